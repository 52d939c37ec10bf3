"""Production training: train one recipe to its end and export the model."""

import contextlib
import importlib.metadata
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch

from corpora.features import FeatureStore
from corpora.reference import Reference
from files.atomic import write_aside
from files.saved import load_saved
from models.averaging import mean_weights
from models.kernels.cpu import library_folder
from models.metrics import count_errors, is_collapsed
from search import cluster
from search.candidate import Candidate
from search.config import ConfigError
from search.records.disk_space import check_disks, full_disk_named
from search.records.files import damage_named, read_json, write_json
from search.records.fingerprints import Identity
from search.records.job import Job
from search.records.measured import Look, MeanOfLatest, ReferenceFacts, plain, read
from search.records.run_folder import PRODUCTION, RunFolder
from search.records.shell_words import quoted, resume_flag
from search.records.trial_record import FAILURE, TrialRecord, is_complete, read_failure
from search.results.run_summary import TrainingSummary
from search.results.statistics import changes, interval_or_why, with_interval
from search.results.summary import OTHER_SPEAKERS, card_lines
from search.results.training_report import write_training_report
from search.results.wandb_study import log_training
from search.speech import embedded_study, evaluate_test
from search.speech.catalog import located
from search.speech.export import export_models
from search.speech.features import Inputs
from search.speech.ranking import score
from search.speech.split_overlap import kept_overlap
from search.speech.study_inputs import SpeechPrepared, identify, open_inputs, prepare
from search.speech.transcribe_split import transcribe_trial
from search.training_config import TrainingConfig
from search.trials.context import TrialContext
from search.trials.interrupt import Interrupt, interruptible
from search.trials.run_trials import run_jobs
from search.wording import counted
from spaces.recipe import Recipe

NAME = "training"
"""Name of the training's folder among a run's trials, and of its W&B run."""


class TrainingError(RuntimeError):
    """A training that did not finish."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The result of a training."""

    path: Path
    """Its folder; best/ holds the model."""
    summary: TrainingSummary


def train_recipe(recipe: Recipe, config: TrainingConfig, resume: bool = False,
                 look_again: bool = False) -> TrainingResult:
    """Train a recipe to its end, or resume the training in `config.out`; then score it and write `best/`.

    Raises:
        Interrupted: Ctrl-C; the training is kept and can be resumed.
        ValueError, RuntimeError: one of Cuarzo's own types, with a message that says what to do.
    """
    recipe = config.recipe(recipe)
    with contextlib.ExitStack() as stack:
        run = RunFolder.open(located(config.study(recipe)), resume, PRODUCTION)
        _check_same_recipe(run, recipe)
        check_disks(run.config, run.path, resume, library_folder())
        stack.enter_context(full_disk_named(run.path, run.config.cache_folder, library_folder()))
        stack.enter_context(run.locked())
        inputs = open_inputs(run.config)
        run.begin(replace(identify(run.config, inputs), space=""))  # no space is searched
        stack.enter_context(cluster.connected())
        prepared = _prepare(run, recipe, inputs or embedded_study.make_inputs(run.config))
        recipe.save(run.path / "recipe.yaml")
        config.save(run.path)
        context = prepared.context
        with interruptible() as interrupt:
            record = _train(run, recipe, config, context, interrupt)
        averaged = keep_mean(record, context, prepared.store)
        winner = Candidate(recipe=recipe, trainings=[record], dev_texts=prepared.store.split("dev").texts)
        tested = evaluate_test.evaluate_test(run, prepared.store, context, winner, look_again)
        summary = _summarise(run, config, record, averaged, winner.dev_texts, tested)
        export_models(run, context, winner, {"card.md": model_card(summary)})
        write_training_report(run.path)
        log_training(run, context.wandb, summary)
    return TrainingResult(path=run.path, summary=summary)


def _check_same_recipe(run: RunFolder, recipe: Recipe) -> None:
    """Refuse to resume with another recipe than the training started with.

    Raises:
        ConfigError: recipe.yaml was changed since.
    """
    folder = run.trials / NAME
    if (folder / "record.json").exists() and (said := changes(TrialRecord.load(folder).recipe.flat(), recipe.flat())):
        path = quoted(run.path / "recipe.yaml")
        raise ConfigError(f"{run.path / 'recipe.yaml'}: has changed since the training began ({said}), and a resumed "
                          "one keeps its recipe. Put back what was there, or train anew: python search/train.py "
                          f"{path} --out ANOTHER.")


def _prepare(run: RunFolder, recipe: Recipe, inputs: Inputs) -> SpeechPrepared:
    """Features, the recipe's vocabulary, and the cluster divided among the workers.

    Raises:
        ConfigError: the recipe cannot be trained on this corpus or from this source.
    """
    if inputs.source is None and (recipe.network == "source" or recipe.transfer.use_source):
        raise ConfigError("source is none, and the recipe carries a source's weights over or has its shape. Give one "
                          "with --source.")
    prepared = prepare(run, inputs, recipe)
    if reason := prepared.context.task.why_infeasible(recipe):
        raise ConfigError(f"the recipe cannot be trained here: {reason}")
    workers = run.config.workers_per_trial
    if workers > 1 and run.config.cpus_per_worker is None:
        cpus = cluster.cpus_for(workers, prepared.context.gpus_per_worker)
        prepared = replace(prepared, context=replace(prepared.context, cpus_per_worker=cpus))
    return prepared


def _train(run: RunFolder, recipe: Recipe, config: TrainingConfig, context: TrialContext,
           interrupt: Interrupt) -> TrialRecord:
    """Train what is left to train.

    Raises:
        TrainingError: it failed; the message says why.
    """
    folder = context.folder / NAME
    training = Job(id=NAME, recipe=recipe, seed=run.config.seed, patience=config.patience,
                   keep_last=config.average_last)
    if not is_complete(folder):
        (folder / FAILURE).unlink(missing_ok=True)  # the cause may have been fixed since
        run_jobs(context, concurrency=1, interrupt=interrupt, total=1, jobs=[training])
        interrupt.raise_if_set(run.path)
    if not is_complete(folder):
        reason = read_failure(folder) or "its process was lost and did not come back"
        raise TrainingError(f"{run.path}: the training failed: {reason.rstrip('.')}. Resume it with "
                            f"{resume_flag(run.path)}")
    return TrialRecord.load(folder)


def keep_mean(record: TrialRecord, context: TrialContext, store: FeatureStore) -> MeanOfLatest | None:
    """Try the mean of the latest epochs' weights, and keep it as the best if it is better on dev.

    Returns: what was averaged and its error rates on dev; None if there were fewer than two epochs.
    """
    path = record.folder / "mean.json"
    if path.exists():
        with damage_named(path):
            return read(MeanOfLatest, read_json(path))
    latest = record.epochs[-record.keep_last :] if record.keep_last else []  # older ones may be there too
    epochs = [epoch.epoch for epoch in latest if record.weights_after(epoch.epoch).exists()]
    if len(epochs) < 2 or record.best is None:
        return None
    mean = record.folder / "mean.pt"
    torch.save(mean_weights([load_saved(record.weights_after(epoch)) for epoch in epochs]), mean)
    resources = {"num_cpus": context.cpus_per_worker, "num_gpus": context.gpus_per_worker}
    heard = ray.get(transcribe_trial.options(**resources).remote(context, record.recipe, mean, "dev"))
    texts = store.split("dev").texts
    errors = count_errors(texts, heard)
    mean_score = score(errors, record.metric, is_collapsed(texts, heard))
    found = MeanOfLatest(epochs=epochs, wer=errors.wer, cer=errors.cer, best_epoch_wer=record.best["wer"],
                         is_kept=mean_score < record.best.score(record.metric))
    if found.is_kept:
        write_aside(record.best_weights, mean.read_bytes())
        write_json(record.folder / "dev.json", heard)
    write_json(path, plain(found))
    mean.unlink()
    return found


def _summarise(run: RunFolder, config: TrainingConfig, record: TrialRecord, averaged: MeanOfLatest | None,
               dev_texts: list[str], tested: Look | None) -> TrainingSummary:
    """The training's figures, written to summary.json."""
    made_of = Identity.load(run.path / "made_of.json")
    best, last = record.best, record.epochs[-1]
    assert best is not None
    summary = TrainingSummary(
        training=run.name, corpus=list(run.config.corpora) or ["embedded default"],
        corpus_keys=list(made_of.corpus), language=run.config.spoken.code,
        reference=read(ReferenceFacts, Reference.load(run.reference).facts()), overlap=kept_overlap(run.path),
        source=run.config.source_called("") or "embedded English", source_key=made_of.source,
        source_licence=config.source_licence, recipe=record.recipe.flat(), seed=run.config.seed,
        epochs=len(record.epochs), ended_early=len(record.epochs) < record.recipe.training.epochs,
        best_epoch=best.epoch, mean_of_latest=averaged, exported=record.id,
        dev=evaluate_test.score(dev_texts, record.dev_hypotheses(), run.config.seed), test=tested,
        audio_h=last["audio_h"], train_s=last.train_s, gpu_s=last.gpu_s, workers=record.workers,
        versions={name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
    )
    summary.save(run.path)
    return summary


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Cuarzo itself, where it is run from its folder
        return "not installed"


PACKAGES = ("cuarzo", "torch", "pytorch-lightning", "ray")
"""Packages whose versions a model card lists."""


def model_card(summary: TrainingSummary) -> str:
    """What the model is, what it was made of and what was measured, as Markdown."""
    dev, averaged = summary.dev, summary.mean_of_latest
    interval = interval_or_why(dev, dev.num_utterances, "development")
    kept = "the averaged weights of epoch " + str(summary.best_epoch)
    if averaged and averaged.is_kept:
        kept = f"the mean of the averaged weights of epochs {averaged.epochs[0]} to {averaged.epochs[-1]}"
    ended = ", ended early" if summary.ended_early else ""
    licence = summary.source_licence or ("not given; what is trained from a model keeps that model's licence: look "
                                            "it up before you share this one")
    return "\n".join([
        f"# {summary.training}: QuartzNet for {summary.language}", "",
        "## Measured", "",
        *(f"- {line}" for line in card_lines(summary)),
        *(f"- careful: {said}" for said in summary.overlap.said),
        f"- dev: WER {dev.wer:.1%} ({interval}), CER {with_interval(dev, 'cer')}; epochs were chosen on it, so it "
        "flatters",
        f"- WER and CER are corpus ratios on the frozen reference text {summary.reference.key[:16]}, greedy "
        "decoding, no language model",
        f"- {OTHER_SPEAKERS}", "",
        "## Made of", "",
        *(f"- corpus {name}, content {key[:16]}" for name, key in
          zip(summary.corpus, summary.corpus_keys, strict=True)),
        f"- source {summary.source}" + (f", SHA-256 {summary.source_key}" if summary.source_key else ""),
        *([f"- the source's licence: {licence}"] if summary.source != "none" else []),
        f"- weights: {kept}, of {counted(summary.epochs, 'epoch')}{ended}; {summary.audio_h:.2f} hours of training "
        f"speech, seed {summary.seed}, {counted(summary.workers, 'worker')}",
        "- versions: " + ", ".join(f"{name} {version}" for name, version in summary.versions.items()), "",
        "## Recipe", "", "```yaml",
        *(f"{name}: {value}" for name, value in summary.recipe.items()), "```", ""])
