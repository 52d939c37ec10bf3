"""Trials through Ray Tune: proposed by a searcher or given as a list, with progress, a budget and Ctrl-C."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable import wrap_function

from search.ray_private import await_end, patch_tune
from search.records.job import KEY, Job
from search.trials.budget import Budget
from search.trials.context import TrialContext
from search.trials.interrupt import Interrupt
from search.trials.progress import progress
from search.trials.trainable import STOP_PATIENCE_S, WorkerGroup, run_trial
from search.trials.watchdog import Watchdog

MAX_LOSSES = 100
"""How often Tune restarts a trial. The watchdog gives up on one without progress sooner, but ignores lost machines."""

STOP_GRACE_S = 1.0
"""From a trial's end to the end of its process."""


def run_jobs(context: TrialContext, *, concurrency: int, interrupt: Interrupt, total: int,
             jobs: Sequence[Job] = (), searcher: Searcher | None = None,
             scheduler: TrialScheduler | None = None, budget: Budget | None = None,
             end: Callable[[], str | None] | None = None, so_far: tuple[int, float] = (0, math.inf)) -> None:
    """Run trials until the list or the searcher is exhausted, `end` gives a reason to stop, or the user asks to.

    `total` and `so_far` are for the display: the number of trials, how many ended earlier, and their lowest value of
    the minimised metric.

    Raises:
        OSError, ClusterError: the disk is full, or a node does not see the study's folder; all trials are left as if
            the user had asked to stop.
    """
    measures = context.task.measures
    meter = [] if budget is None else [BudgetMeter(budget, context.gpus, measures.best)]
    patch_tune()
    shown = progress(measures, total, budget, so_far)
    is_local = context.num_workers == 1
    watchdog = Watchdog(context.folder, context.timeout_s, interrupt, has_groups=not is_local)
    resources = ({"CPU": context.cpus_per_worker, "GPU": context.gpus_per_worker} if is_local else {"CPU": 0.001})
    tuner = tune.Tuner(
        tune.with_resources(_trainable(context), resources),
        param_space={} if searcher else {KEY: tune.grid_search([job.parameters()[KEY] for job in jobs])},
        tune_config=tune.TuneConfig(
            metric=None if searcher else measures.minimised.name, mode=None if searcher else "min",
            search_alg=searcher, scheduler=scheduler or FIFOScheduler(), num_samples=-1 if searcher else 1,
            max_concurrent_trials=concurrency, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"tune-{time.time_ns()}", storage_path=str(context.folder / ".ray"), verbose=0,
            stop=_Stop(interrupt, end), callbacks=[watchdog, *meter, shown],
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES)),
    )
    try:
        tuner.fit()
    finally:
        shown.close()
        if budget:
            budget.hold(0.0)
    if watchdog.error:
        raise watchdog.error


def _trainable(context: TrialContext) -> type:
    """`run_trial` as a Tune function trainable, except that a stopped trial may first close its W&B run."""
    function: Any = wrap_function(partial(run_trial, context=context), name="trial")

    class Trial(function):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if not super().reset_config(new_config):
                os._exit(1)  # it is stuck in its last trial, and the next trial would fail because of that
            return True

        def cleanup(self) -> None:
            # Ray takes 30 s to end a process that ran several trials, which holds a gigabyte until then.
            end = threading.Timer(STOP_GRACE_S, os._exit, (0,))
            end.daemon = True
            try:
                await_end(STOP_PATIENCE_S)
                super().cleanup()
                WorkerGroup.close()
            finally:
                end.start()

    return Trial


class _Stop(tune.Stopper):
    """Stops all trials when the user asks, or when there is a reason to, which it prints."""

    def __init__(self, interrupt: Interrupt, end: Callable[[], str | None] | None) -> None:
        self._interrupt, self._end, self._has_ended = interrupt, end, False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if line := self._interrupt.answer():
            print(f"\n{line}", flush=True)
        if self._end and not self._has_ended and (reason := self._end()):
            print(reason, flush=True)
            self._has_ended = True
        return self._has_ended or self._interrupt.is_set()


class BudgetMeter(tune.Callback):
    """Reports to the budget how many GPUs are in use, and the pace of the trainings."""

    def __init__(self, budget: Budget, gpus: float, best: str) -> None:
        """`best` is the name of a trial's lowest value so far."""
        self._budget, self._gpus, self._best = budget, gpus, best

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Count the running trials, several times a second."""
        if self._gpus:
            self._budget.hold(self._gpus * sum(trial.status == RayTrial.RUNNING for trial in trials))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """Record the time of one epoch."""
        self._budget.observe(result["trial"], result["epoch"], result[self._best], result["train_s"],
                             result["outside_s"])
