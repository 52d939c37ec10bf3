"""A study of many trials that train nothing: the time of the machinery around a trial, and which part of it grows.

The study is `search.study.search` with all it uses: Ray Tune with its actors, Optuna's TPE in SQLite, ASHA, records on
disk, progress lines. Only the training function is replaced: it draws a curve from the recipe, with noise.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import optuna
import ray
from optuna.samplers import TPESampler
from ray import tune

from models.quartznet import named_network
from search import cluster
from search.config import StudyConfig
from search.records.job import Job
from search.records.run_folder import RunFolder
from search.records.trial_record import Epoch, TrialRecord
from search.speech.task import MEASURES, SpeechTask
from search.speech.vocabularies import VocabularyReport
from search.study import search, trial_rows
from search.study_task import Prepared
from search.trials import run_trials
from search.trials.budget import Budget
from search.trials.context import TrialContext
from search.trials.interrupt import Interrupt
from search.trials.progress import ProgressLines
from search.tuning.asha import ResumableASHA
from search.tuning.searcher import OptunaSearcher
from spaces import spanish
from spaces.recipe import Recipe

MAX_EPOCHS = 9
"""With rungs at 1 and 3, a trial runs two or three epochs on average."""

WINDOW = 100
"""Trials over which a mean is taken."""

TUNE, WAITING, TPE, OPTUNA, CUARZO = "Ray Tune", "waiting for actors", "TPE", "Optuna and SQLite", "Cuarzo"

PARTS: dict[str, Sequence[tuple[Any, Sequence[str]]]] = {
    TUNE: (),
    WAITING: ((ray, ["wait"]),),
    TPE: ((TPESampler, ["infer_relative_search_space", "sample_relative", "sample_independent"]),),
    OPTUNA: ((optuna.Study, ["ask", "tell", "add_trial", "get_trials"]),
             (optuna.Trial, ["report", "set_user_attr", "suggest_categorical", "suggest_float", "suggest_int"])),
    CUARZO: ((OptunaSearcher, ["suggest", "on_trial_result", "on_trial_complete"]),
             (ResumableASHA, ["on_trial_add", "on_trial_result", "on_trial_complete", "on_trial_remove"]),
             (ProgressLines, ["on_trial_result", "on_trial_complete"])),
}
"""What the driver's seconds are charged to, and the calls that say so; Ray Tune's are all that is left."""


class Clock:
    """Seconds of the driver by part; a call inside another one counts for its own part alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open, self._since = [TUNE], time.perf_counter()

    def read(self) -> dict[str, float]:
        """Seconds of each part until now."""
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now
        return dict(self.seconds)

    @contextmanager
    def inside(self, part: str) -> Iterator[None]:
        """Charge the block to a part."""
        self.read()
        self._open.append(part)
        try:
            yield
        finally:
            self.read()
            self._open.pop()

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, charged to a part where the driver's own thread makes it."""

        @wraps(call)
        def charged(*values: Any, **named: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return call(*values, **named)
            with self.inside(part):
                return call(*values, **named)

        return charged

    @contextmanager
    def charging(self) -> Iterator[None]:
        """Inside the block every call of `PARTS` is charged."""
        with ExitStack() as stack:
            for part, owners in PARTS.items():
                for owner, names in owners:
                    for name in names:
                        stack.enter_context(patch.object(owner, name, self.timed(part, getattr(owner, name))))
            yield


# --- the trial ------------------------------------------------------------------------------------------------------


def stub_trial(config: dict[str, Any], context: TrialContext) -> None:
    """Stands for `search.trials.trainable.run_trial`: reports and records a curve, and the seconds of the records."""
    job = Job.of(config)
    record = TrialRecord(context.folder / job.id, job.recipe, job.seed)
    records_s = 0.0
    for epoch in curve(job.recipe, Random(f"{job.seed}-{job.id}")):
        record.epochs.append(epoch)
        start = time.perf_counter()
        record.save()
        records_s += time.perf_counter() - start
        tune.report(epoch.flat() | {"trial": record.id, "checkpoint": "", "is_new": True, "records_s": records_s})


def curve(recipe: Recipe, noise: Random) -> Iterator[Epoch]:
    """Word error rates that fall by epoch to a floor, which the recipe decides: there is something to learn for TPE."""
    low, high = spanish.LR_RANGES[recipe.optimizer.name]
    off = math.log(recipe.optimizer.lr / math.sqrt(low * high)) / math.log(high / low)
    floor = 0.2 + 0.6 * off**2 + recipe.training.dropout + 0.1 * (recipe.transfer.batchnorm == "adapt")
    best = math.inf
    for epoch in range(1, recipe.training.epochs + 1):
        wer = floor + (1 - floor) * math.exp(-epoch / 2) + noise.gauss(0, 0.02)
        best = min(best, wer)
        metrics = {"wer": wer, "cer": wer / 2, "folded_wer": wer, "latest_wer": wer, "best_wer": best, "loss": wer,
                   "audio_h": 0.1 * epoch, "rank": wer, "collapsed": 0.0}
        yield Epoch(epoch=epoch, metrics=metrics, train_s=0.01 * epoch, outside_s=0.01, to_first_step_s=0.01, gpu_s=0.0)


# --- the study ------------------------------------------------------------------------------------------------------


def prepare(run: RunFolder) -> Prepared:
    """What a study would know of a corpus and a source that nobody reads."""
    network = named_network("15x5")
    reports = {recipe: VocabularyReport(kind=recipe.kind, size=recipe.size, num_labels=recipe.size or 35,
                                        infeasible_share=0.0, mean_labels=0.0, unknown_share=0.0,
                                        error=None) for recipe in spanish.vocabularies()}
    context = TrialContext(
        study=run.name, folder=run.trials, num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0,
        task=SpeechTask(store=run.path, vocabularies=run.path, num_mels=network.num_mels,
                        sources={"": ray.put("nobody reads it")}, space="spanish", max_epochs=MAX_EPOCHS,
                        reports=reports,
                        lettered=frozenset({""})), timeout_s=math.inf, wandb="off")
    return Prepared(context=context, concurrency=cluster.capacity(1, 1.0, 0.0))


def run_stub_study(folder: Path, trials: int, seed: int) -> dict[str, Any]:
    """Run it; returns what each part took at the first, the middle and the last trials."""
    run = RunFolder.open(StudyConfig(out=str(folder), space="spanish", trials=trials, max_epochs=MAX_EPOCHS,
                                     grace_epochs=1, seed=seed, wandb="off"), resume=False)
    clock, ends, records_s, complete = Clock(), [], [], OptunaSearcher.on_trial_complete

    def completed(searcher: OptunaSearcher, name: str, result: dict[str, Any] | None = None,
                  error: bool = False) -> None:
        complete(searcher, name, result, error)
        ends.append(clock.read())
        records_s.append((result or {}).get("records_s", 0.0))

    with (run.locked(), cluster.connected(), redirect_stdout(sys.stderr),
          patch.object(run_trials, "run_trial", stub_trial),
          patch.object(OptunaSearcher, "on_trial_complete", completed), clock.charging()):
        study = search(run, prepare(run), Interrupt(), Budget.open(run.config, run.path, False))
    rows = trial_rows(study, run, MEASURES["wer"])
    return {"trials": trials, "seed": seed, "epochs": sum(row["epochs"] for row in rows),
            "states": Counter(row["state"] for row in rows), "search_s": sum(clock.read().values()),
            "windows": windows(ends, records_s)}


def windows(ends: Sequence[dict[str, float]], records_s: Sequence[float]) -> list[dict[str, Any]]:
    """Seconds a trial of each part at the first, the middle and the last trials, from the end of the very first on."""
    count = len(ends) - 1
    size = max(1, min(WINDOW, count // 3))
    found = []
    for before in (0, (count - size) // 2, count - size):
        after = before + size
        parts = {part: (ends[after][part] - ends[before][part]) / size for part in PARTS}
        found.append({"from": before + 2, "to": after + 1, "parts": parts, "total": sum(parts.values()),
                      "ours": sum(parts[part] for part in (TPE, OPTUNA, CUARZO)),
                      "records": sum(records_s[before + 1 : after + 1]) / size})
    return found


def table(figures: dict[str, Any]) -> Iterator[str]:
    """Markdown: milliseconds a trial."""
    yield (f"{figures['trials']} trials, {figures['epochs']} epochs in {figures['search_s']:.0f} s. "
           "Milliseconds a trial, mean of a window:")
    yield ""
    yield f"| trials | in all | {' | '.join(PARTS)} | records (in the actor) | Cuarzo + Optuna + SQLite |"
    yield "|---" * (len(PARTS) + 4) + "|"
    for row in figures["windows"]:
        values = [row["total"], *row["parts"].values(), row["records"], row["ours"]]
        yield f"| {row['from']} to {row['to']} | {' | '.join(f'{1000 * value:.1f}' for value in values)} |"
    first, last = figures["windows"][0]["parts"], figures["windows"][-1]["parts"]
    grown = {part: last[part] - first[part] for part in PARTS}
    most = max(grown, key=lambda part: grown[part])
    yield ""
    yield f"What grows most is {most}: {1000 * first[most]:.1f} to {1000 * last[most]:.1f} ms a trial."
