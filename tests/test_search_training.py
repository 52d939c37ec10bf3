"""Production training: a recipe to its end through a kill, the model that comes out, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from told_study import EPOCHS, make_run, write_trial

from corpora.features import FeatureStore
from models.averaging import mean_weights
from models.recognizer import Recognizer
from search import cluster, training
from search.command_line.training_arguments import parse_training
from search.config import ConfigError, StudyConfig, load_config
from search.records.fingerprints import Identity
from search.records.measured import Look, MeanOfLatest, Overlaps, ReferenceFacts
from search.records.run_folder import PRODUCTION, RunFolder
from search.records.trial_record import read_failure, write_failure
from search.results.run_summary import TrainingSummary
from search.speech.evaluate_test import score
from search.speech.task import SpeechTask
from search.training import TrainingError, keep_mean, model_card, train_recipe
from search.training_config import TrainingConfig, load_training
from search.trials.interrupt import Interrupt
from search.tuning.warm_start import read_past
from spaces.recipe import OptimizerRecipe, Recipe, TrainingRecipe

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.timeout(600)

RECIPE = Recipe(training=TrainingRecipe(epochs=4, audio_s_per_step=30),
                study={"corpus": ["/data/es.tar.gz"], "language": "it", "source": "/data/en.nemo", "seed": 7})


@pytest.mark.parametrize(("flags", "said"), [
    (["--epochs", "20"], "epochs of the production training is 4, and 20 now; a resumed one keeps it, as warm-up and "
     "annealing are laid over all epochs. Leave the flag out, or train anew: python search/train.py {run}/recipe.yaml "
     "--epochs 20 --out ANOTHER."),
    (["--workers", "3"], "workers of the production training is 1, and 3 now; a resumed one keeps it. Leave the flag "),
    (["--seed", "8"], "seed of the production training is 7, and 8 now; "),
    (["--language", "fr"], "language of the production training is "),
    (["--corpus", "a b.jsonl", "it's.jsonl"], "--corpus '{here}/a b.jsonl' '{here}/it'\"'\"'s.jsonl' --out ANOTHER")])
def test_resumed_training_refuses_what_it_keeps_in_words_of_its_own(tmp_path: Path, flags: list[str],
                                                                    said: str) -> None:
    run = _begun(tmp_path / "run")
    (run / "made_of.json").unlink(missing_ok=True)  # as in a run of before content was compared
    recipe, config, *_ = parse_training(["--resume", str(run), *flags])
    with pytest.raises(ConfigError) as caught:
        train_recipe(recipe, config, resume=True)
    assert said.format(run=run, here=Path.cwd()) in str(caught.value) and "study" not in str(caught.value)


def test_changed_recipe_is_no_training_to_go_on_with(tmp_path: Path) -> None:
    run = _begun(tmp_path / "run")
    recipe = replace(RECIPE, optimizer=OptimizerRecipe(name="lion", lr=1e-4))
    recipe.save(run / "recipe.yaml")
    found, config, *_ = parse_training(["--resume", str(run)])
    with pytest.raises(ConfigError, match="recipe.yaml: has changed since the training began .optimizer.name lion "
                                          "instead of adamw, .* train anew: python search/train.py .* --out ANOTHER"):
        train_recipe(found, config, resume=True)


def test_each_script_names_the_other_for_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    training, study = _begun(tmp_path / "my training"), tmp_path / "study"
    study.mkdir()
    (study / "study.db").touch()
    for resume in (True, False):
        with pytest.raises(ConfigError, match="already holds a production training. Resume it with python "
                                              "search/train.py --resume '.*my training'"):
            RunFolder.open(replace(load_config(training), out=str(training)), resume)
    with pytest.raises(ConfigError, match="training.yaml is missing.*holds a study: python search/run.py --resume "):
        load_training(study)
    with pytest.raises(ConfigError, match="already holds a study. Resume it with python search/run.py --resume "):
        train_recipe(RECIPE, TrainingConfig(out=str(study)))
    with pytest.raises(ConfigError, match="holds a production training, which has tried one recipe"):
        read_past(RunFolder(tmp_path / "new", replace(StudyConfig(), warm_start=(str(training),))), resume=False)


def test_workers_that_do_not_fit_are_advised_by_flags_of_both_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 2.0}])
    with pytest.raises(cluster.ClusterError, match="2 workers of one training want 2 CPUs and 2 GPUs; the cluster "
                                                   "has 2 and 0[.]") as caught:
        cluster.capacity(2, 1.0, 1.0)
    advised = {flag.removeprefix("--").replace("-", "_") for flag in re.findall("--[a-z-]+", str(caught.value))}
    for kind in (StudyConfig, TrainingConfig):
        assert advised and advised <= {f.name for f in fields(kind)} and "workers_per_trial" not in str(caught.value)


def _begun(path: Path) -> Path:
    """The folder of a training of two epochs out of four."""
    config = TrainingConfig(out=str(path))
    run = RunFolder.open(config.study(RECIPE), False, PRODUCTION)
    run.begin(Identity(corpus=("0",), source="1", space="", features="1"))
    config.save(run.path)
    RECIPE.save(run.path / "recipe.yaml")
    write_trial(run.trials, training.NAME, 0.3, recipe=RECIPE, num_epochs=2)
    return run.path


def test_mean_of_weights_averages_statistics_and_keeps_the_last_count() -> None:
    states = [{"w": torch.full((2,), float(i)), "running_var": torch.tensor(i + 1.0),
               "num_batches_tracked": torch.tensor(i)} for i in (1, 2, 6)]
    mean = mean_weights(states)
    assert mean["w"].tolist() == [3.0, 3.0] and mean["running_var"] == 4 and mean["num_batches_tracked"] == 6


def test_mean_is_of_as_many_latest_epochs_as_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    record = write_trial(run.trials, "training", 0.5)
    for epoch in (1, 2, 3, 4):  # 1 and 2 are left of a training that was resumed with fewer
        torch.save({"w": torch.tensor([float(epoch)])}, record.weights_after(epoch))
    store, averaged = FeatureStore(SpeechTask.of(room.context).store), []

    class Task:
        """Stands where Ray's task would."""

        def options(self, **_: Any) -> "Task":
            return self

        def remote(self, context: Any, recipe: Recipe, weights: Path, split: str) -> list[str]:
            averaged.append(torch.load(weights)["w"].item())
            return store.split(split).texts

    monkeypatch.setattr(training, "transcribe_trial", Task())
    monkeypatch.setattr(training.ray, "get", lambda heard: heard)
    assert keep_mean(record, room.context, store) is None and not averaged, "none was asked for"
    record.keep_last = 2
    found = keep_mean(record, room.context, store)
    assert found and (found.epochs, averaged) == ([3, 4], [3.5]) and found.is_kept
    assert torch.load(record.best_weights)["w"].item() == 3.5 and record.dev_hypotheses() == store.split("dev").texts
    assert keep_mean(record, room.context, store) == found and len(averaged) == 1


def test_training_that_failed_is_tried_again_and_one_that_ended_is_not(tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    config, interrupt, folder = TrainingConfig(), Interrupt(), run.trials / training.NAME
    recipe = replace(RECIPE, training=TrainingRecipe(epochs=EPOCHS))

    def fail(*_: Any, **__: Any) -> None:
        assert read_failure(folder) is None
        write_failure(folder, "out of memory")

    monkeypatch.setattr(training, "run_jobs", fail)  # in place of Ray
    for _ in range(2):
        with pytest.raises(TrainingError, match="out of memory.*--resume"):
            training._train(run, recipe, config, room.context, interrupt)
    write_trial(run.trials, training.NAME, 0.2)
    assert training._train(run, recipe, config, room.context, interrupt).is_complete


def test_card_tells_the_data_the_licence_and_the_figures() -> None:
    texts = ["hola que tal"] * 25
    rates = score(texts, ["hola que"] * 5 + texts[5:], seed=0)
    summary = TrainingSummary(
        training="production", language="es", corpus=["es.tar.gz"], corpus_keys=["0123456789abcdef" * 4],
        reference=ReferenceFacts(key="5" * 64), overlap=Overlaps(said=["2 sentences"]),
        source="en.nemo", source_key="ff", source_licence=None, recipe=RECIPE.flat(), seed=7,
        epochs=3, ended_early=True, best_epoch=2, exported="training", dev=rates,
        test=Look(trial="training", times_read=1, clips=25, winner=rates), audio_h=1.5, workers=2,
        versions={"torch": "2.11.0"})
    said = model_card(summary)
    assert "- careful: 2 sentences" in said and "\n- Intervals are for other clips of the same speakers;" in said
    assert "test, read once: WER 6.7% (95 % interval" in said and "corpus es.tar.gz, content 0123456789abcdef" in said
    assert "averaged weights of epoch 2, of 3 epochs, ended early; 1.50 hours" in said and "keeps that model's" in said
    mean = MeanOfLatest(epochs=[2, 3], wer=0.1, cer=0.1, best_epoch_wer=0.2, is_kept=True)
    summary = replace(summary, source_licence="CC-BY-4.0", mean_of_latest=mean)
    said = model_card(summary)
    assert "licence: CC-BY-4.0" in said and "the mean of the averaged weights of epochs 2 to 3" in said
    said = model_card(replace(summary, source="none", source_key="", source_licence=None))
    assert "- source none\n" in said and "licence" not in said


# --- for real -------------------------------------------------------------------------------------------------------


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "search/train.py", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=400)


@pytest.mark.slow
def test_training_survives_sigterm_and_a_kill_and_leaves_a_model(shared_data: Path, tmp_path: Path) -> None:
    study = {"corpus": [str(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")], "language": "es", "seed": 1,
             "source": str(shared_data / "reference" / "quartznet5x5_small_random.nemo")}
    recipe = Recipe(training=TrainingRecipe(epochs=8, audio_s_per_step=30), study=study)
    recipe.save(tmp_path / "recipe.yaml")
    out = tmp_path / "out"
    flags = ["--out", str(out), "--cache", str(tmp_path / "cache"), "--precision", "float32"]
    flags.append("--allow-overlap")  # one word, said in train and in test
    begun = [str(tmp_path / "recipe.yaml"), *flags, "--average-last", "3"]
    record = out / "trials" / "training" / "record.json"
    before = list[dict[str, Any]]()
    again = ["--resume", str(out)]
    for arguments, how, code in ((begun, signal.SIGTERM, 143), (again, signal.SIGKILL, -9)):
        stopped = subprocess.Popen([sys.executable, "search/train.py", *arguments], cwd=ROOT, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        until = time.monotonic() + 300
        while not record.exists() or len(json.loads(record.read_text())["epochs"]) <= len(before):
            assert time.monotonic() < until and stopped.poll() is None
            time.sleep(0.05)
        os.killpg(stopped.pid, how)
        _, said = stopped.communicate(timeout=60)
        assert stopped.returncode == code, said
        if how == signal.SIGTERM:
            assert said == f"stopped; what was done is kept. Resume with --resume {out}\n"
        now = json.loads(record.read_text())["epochs"]
        assert now[: len(before)] == before
        before = now
    assert len(before) < 8

    anew = train(str(tmp_path / "recipe.yaml"), *flags)
    assert anew.returncode == 1 and "already holds" in anew.stderr and anew.stderr.count("\n") == 1
    done = train("--resume", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    epochs = json.loads(record.read_text())["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 9)) and epochs[: len(before)] == before
    summary = json.loads((out / "summary.json").read_text())
    assert summary["mean_of_latest"]["epochs"] == [6, 7, 8] and summary["test"]["times_read"] == 1
    kept = summary["mean_of_latest"] if summary["mean_of_latest"]["is_kept"] else min(epochs, key=lambda e: e["score"])
    assert summary["dev"]["wer"] == pytest.approx(kept["wer"])
    assert len(summary["corpus_keys"][0]) == 64 and summary["source_key"]
    card = (out / "best" / "card.md").read_text()
    assert card in done.stdout and "test, read once" in card
    assert Recipe.load(out / "best" / "recipe.yaml").study["seed"] == 1
    assert len(Recognizer.load(out / "best" / "model.nemo").transcribe([torch.zeros(16_000)])) == 1

    once_more = train("--resume", str(out))
    assert once_more.returncode == 0 and json.loads((out / "summary.json").read_text())["test"]["times_read"] == 1
