"""Trials through real Ray, stopped in both modes: what they hold is free again, and nothing goes on in secret."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from noise_study import RECIPE, make_context
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search import cluster
from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.trials.interrupt import Interrupt
from search.trials.run_trials import _Stop, run_jobs

PATIENCE_S = 3.0
"""In which the CPUs of a stopped trial have to be free."""


class StopAfter(FIFOScheduler):
    """Stops each trial after an epoch, and remembers when."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch, self.stopped_at = epoch, math.nan

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.stopped_at = time.monotonic()
        return str(TrialScheduler.STOP if result["epoch"] >= self.epoch else TrialScheduler.CONTINUE)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_stopped_trial_frees_its_cpus_and_trains_no_further(tmp_path: Path, num_workers: int) -> None:
    context = make_context(tmp_path, num_workers)
    long = replace(RECIPE, training=replace(RECIPE.training, epochs=10_000))
    jobs = [Job(id=f"{number:04d}", recipe=long, seed=0) for number in range(3)]
    scheduler = StopAfter(epoch=2)
    with cluster.connected():
        all_cpus = ray.cluster_resources()["CPU"]
        run_jobs(context, concurrency=1, interrupt=Interrupt(), total=3, jobs=jobs, scheduler=scheduler)
        while ray.available_resources().get("CPU", 0.0) < all_cpus - 1e-6:
            assert time.monotonic() - scheduler.stopped_at < PATIENCE_S, ray.available_resources()
            time.sleep(0.05)
    records = [TrialRecord.load(context.folder / job.id) for job in jobs]
    assert [len(record.epochs) for record in records] == [2, 2, 2]
    assert {record.workers for record in records} == {num_workers}
    # One group for the three of them.
    assert len(list((context.folder / ".ray").glob("group-*"))) == (num_workers > 1)


def test_reason_is_printed_once_and_stops_every_trial(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = iter([None, "the budget is spent", None])
    stop = _Stop(Interrupt(), lambda: next(reasons))
    assert [stop.stop_all() for _ in range(4)] == [False, True, True, True]
    assert capsys.readouterr().out == "the budget is spent\n"
