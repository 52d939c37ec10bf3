"""A study that nobody trained: its trials' folders say what they heard, for what comes after the search."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.reference import Reference
from files.atomic import write_aside
from models.metrics import count_errors
from models.mistakes import most_wrong
from search.candidate import Candidate
from search.config import StudyConfig
from search.records.files import write_json
from search.records.fingerprints import Identity
from search.records.measured import Example, Look, Mistakes, plain
from search.records.run_folder import RunFolder
from search.records.trial_record import Epoch, TrialRecord
from search.results.confirmation import RemainingBudget
from search.speech.evaluate_test import score
from search.speech.task import SpeechTask
from search.training import _summarise as summarise_training
from search.training import model_card
from search.training_config import TrainingConfig
from search.trials.budget import Amounts, Budget
from search.trials.context import TrialContext
from spaces.recipe import Recipe, TrainingRecipe

EPOCHS = 4
RECIPE = Recipe(training=TrainingRecipe(epochs=EPOCHS))


def make_run(folder: Path, num_clips: int = 60, **changes: Any) -> tuple[RunFolder, RemainingBudget]:
    """A run's folder with a store of as many dev and test clips, and room without a limit."""
    options: dict[str, Any] = {"corpus": ("es.tar.gz",), "source": "en.nemo", "max_epochs": EPOCHS, "trials": 9}
    run = RunFolder(folder / "run", StudyConfig(**(options | changes)).resolved())
    store = folder / "store"
    rows = [FeatureRow(id=f"{split}{i}", split=split, speaker="s", text=f"uno dos tres cuatro n{i}", duration_s=0.1,
                       features=np.zeros((10, 64), dtype=np.float32))
            for split in ("dev", "test") for i in range(num_clips)]
    write_shard(store, 0, rows, [])
    finish_store(store, 1, {"num_clips": len(rows)})
    run.path.mkdir(parents=True, exist_ok=True)
    write_aside(run.reference, Reference.of(FeatureStore(store)).to_parquet())
    context = TrialContext(
        study="s", folder=run.trials, num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0,
        task=SpeechTask(store=store, vocabularies=store, precision="float32"), timeout_s=math.inf, wandb="off")
    limits = Amounts(wall_s=math.inf, gpu_s=math.inf, cost=math.inf)
    return run, RemainingBudget(Budget(run.path / "spent.json", limits), context, 1)


def dev_texts(num_clips: int = 60) -> list[str]:
    """The references of such a store."""
    return [f"uno dos tres cuatro n{i}" for i in range(num_clips)]


def heard(texts: list[str], share: float, seed: int) -> list[str]:
    """The texts with this share of their words wrong, somewhere."""
    generator = np.random.default_rng(seed)
    return [" ".join("x" if generator.random() < share else word for word in text.split()) for text in texts]


def write_trial(trials: Path, name: str, share: float, *, recipe: Recipe = RECIPE, seed: int = 0,
                num_epochs: int = EPOCHS, texts: list[str] | None = None, metric: str = "wer") -> TrialRecord:
    """The folder of a trial that heard this share of the development words wrong, somewhere else for each name."""
    references = dev_texts() if texts is None else texts
    hypotheses = heard(references, share, seed=int.from_bytes(name.encode(), "big") % 2**32)
    wer = count_errors(references, hypotheses).wer
    metrics = {"wer": wer, "cer": wer, "folded_wer": wer, "latest_wer": wer, f"best_{metric}": wer, "loss": 1.0,
               "rank": wer, "collapsed": 0.0}
    epochs = [Epoch(epoch=i, metrics=metrics | {"audio_h": 0.1 * i},
                    train_s=1.0 * i, outside_s=1.0, to_first_step_s=1.0, gpu_s=0.0)
              for i in range(1, num_epochs + 1)]
    record = TrialRecord(trials / name, recipe, seed, metric=metric, epochs=epochs)
    record.save()
    record.best_weights.touch()
    write_json(record.folder / "dev.json", hypotheses)
    return record


def candidate(*trainings: TrialRecord, hand_recipe: str | None = None, texts: list[str] | None = None) -> Candidate:
    """A recipe with these trainings."""
    return Candidate(recipe=trainings[0].recipe, trainings=list(trainings), hand_recipe=hand_recipe,
                     dev_texts=dev_texts() if texts is None else texts)


def finished_training(folder: Path, name: str, share: float, recipe: Recipe = RECIPE) -> Path:
    """A production run's folder with its summary, whose model heard this share of the words wrong."""
    run, _ = make_run(folder / name)
    run = replace(run, path=run.path.rename(folder / name / name))
    texts, record = dev_texts(), write_trial(run.trials, "training", share, recipe=recipe)
    config = TrainingConfig(corpus=("es.tar.gz",), source="en.nemo")
    config.save(run.path)
    recipe.save(run.path / "recipe.yaml")
    Identity(corpus=("0" * 64,), source="1", space="", features="1").save(run.path / "made_of.json")
    said = heard(texts, share, 1)
    look = Look(trial=record.id, clips=len(texts), winner=score(texts, said, 0),
                mistakes=Mistakes(winner=most_wrong(texts, said)),
                examples=[Example(reference=texts[0], hypothesis=said[0])])
    write_json(run.path / "test.json", {"looks": [plain(look)]})
    tested = replace(look, mistakes=None, examples=None, times_read=1)
    summary = summarise_training(run, config, record, None, texts, tested)
    run.best.mkdir()
    (run.best / "card.md").write_text(model_card(summary))
    return run.path
