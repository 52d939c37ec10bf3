"""What trials share, and how many epochs a job has left."""

from dataclasses import replace
from pathlib import Path

import pytest
from noise_study import RECIPE, make_context
from told_study import RECIPE as TOLD
from told_study import write_trial

from search.records.job import Job
from search.records.trial_record import write_failure
from search.trials.context import Link, epochs_left

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1.0, 1), (2.0, 2), (3.9, 3)])
def test_worker_has_a_thread_for_each_whole_cpu(tmp_path: Path, cpus: float, threads: int) -> None:
    context = replace(make_context(tmp_path), cpus_per_worker=cpus)
    assert (context.threads, context.device, context.gpus) == (threads, "cpu", 0.0)


def test_gpus_of_a_trial_are_those_of_all_its_workers(tmp_path: Path) -> None:
    context = replace(make_context(tmp_path, num_workers=4), gpus_per_worker=0.5)
    assert (context.device, context.gpus) == ("cuda", 2.0)
    worker = context.worker(Link())
    assert (worker.device, worker.rank, worker.num_workers) == ("cuda", 0, 4)
    assert worker.agree(True) and not worker.agree(False)


def test_job_has_the_epochs_left_that_were_not_recorded(tmp_path: Path) -> None:
    whole = TOLD.training.epochs
    known = write_trial(tmp_path, "0002", 0.4)
    assert epochs_left(tmp_path, Job(id="0001", recipe=TOLD, seed=3)) == whole
    assert epochs_left(tmp_path, Job(id="0002", recipe=TOLD, seed=3)) == whole - len(known.epochs)
    write_failure(tmp_path / "0002", "it would fail again")
    assert epochs_left(tmp_path, Job(id="0002", recipe=TOLD, seed=3)) == 0
    assert epochs_left(tmp_path, Job(id="0003", recipe=RECIPE, seed=0)) == RECIPE.training.epochs
