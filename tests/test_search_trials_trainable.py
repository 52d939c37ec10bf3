"""What becomes of a trial that raises: a failure with its reason, unless the disk was full or its GPU is lost."""

import contextlib
import errno
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from noise_study import make_context
from ray.exceptions import ActorDiedError, RayTaskError
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError

from search.cluster import NOT_SHARED, ClusterError
from search.records.job import Job
from search.records.trial_record import read_failure, write_failure
from search.trials import trainable
from search.trials.context import TrialStopped
from search.trials.trainable import GpuLost, TuneLink, WorkerGroup, WorkersLost, cause_of, run_trial
from search.trials.watchdog import why_lost
from spaces.recipe import Recipe

JOB = Job(id="0000", recipe=Recipe(), seed=0)


OUT_OF_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.4 GiB is free. "
    "Process 4242 has 77.73 GiB memory in use.")


class Setting:
    num_workers = 1

    def __init__(self, folder: Path, gpus_per_worker: float = 1.0) -> None:
        self.folder, self.gpus_per_worker = folder, gpus_per_worker


@pytest.mark.parametrize(("error", "reason"), [
    (MemoryError("no room for 3 GB"), "MemoryError: no room for 3 GB"),
    (ValueError("first\nsecond"), "ValueError: first"),
    (OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
                    "79.11 GiB of which 1.4 GiB is free. Lower max_audio_s_per_pass, or raise gpus_per_worker where it "
                    "is below 1")])
def test_trial_that_raises_keeps_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception,
                                            reason: str) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(trainable, "_train_here", fail)
    context: Any = Setting(tmp_path)
    run_trial(JOB.parameters(), context)
    assert read_failure(tmp_path / "0000") == reason
    run_trial(JOB.parameters(), context)
    assert len(calls) == 1  # it would fail in the same way again


def test_node_without_the_studys_folder_trains_nothing_and_leaves_nothing_there(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would train, and write where nobody looks."""
    monkeypatch.setattr(trainable, "_train_here", lambda *_: pytest.fail("trained"))
    context: Any = Setting(tmp_path / "trials")
    with pytest.raises(ClusterError, match="trials: is not on storage that all nodes share"):
        run_trial(JOB.parameters(), context)
    assert not context.folder.exists()


@pytest.mark.parametrize("error", [
    ActorDiedError(), RayOutOfMemoryError("of the node"),
    RuntimeError(f"its workers were lost 3 times, at first by ClusterError: /runs: {NOT_SHARED}")])
def test_what_other_processes_meet_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                              error: Exception) -> None:
    """As a machine goes, its processes do not go at once; and a worker may be on another machine."""
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(trainable, "_train_here", fail)
    context: Any = Setting(tmp_path)
    with pytest.raises(type(error)):
        run_trial(JOB.parameters(), context)
    assert read_failure(tmp_path / "0000") is None


def test_full_disk_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainable, "_train_here", fail)
    context: Any = Setting(tmp_path)
    with pytest.raises(OSError, match="No space"):
        run_trial(JOB.parameters(), context)
    assert read_failure(tmp_path / "0000") is None


@pytest.mark.parametrize(("error", "gpus_per_worker"), [
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA"), 1),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), 1),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), 1),
    (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), 1),
    (OUT_OF_MEMORY, 0.25)])  # it may be full of the others'
def test_lost_gpu_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception,
                                             gpus_per_worker: float) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(trainable, "_train_here", fail)
    context: Any = Setting(tmp_path, gpus_per_worker)
    with pytest.raises(GpuLost, match=f"{type(error).__name__}: (CUDA|cuDNN|Triton)") as lost:
        run_trial(JOB.parameters(), context)
    assert len(str(lost.value).splitlines()) == 1  # the watchdog tells the last line
    assert read_failure(tmp_path / "0000") is None


def test_group_that_lost_its_gpus_again_and_again_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reason = "its workers were lost 3 times without an epoch between, at first by AcceleratorError: CUDA error: unknown"

    class WorkerGroup:
        def train(self, *_: Any) -> None:
            raise RuntimeError(reason)

    monkeypatch.setattr(trainable.WorkerGroup, "of_this_process", lambda _: WorkerGroup())
    context: Any = Setting(tmp_path)
    context.num_workers = 2
    run_trial(JOB.parameters(), context)
    assert read_failure(tmp_path / "0000") == f"RuntimeError: {reason}"


def test_reason_that_was_found_first_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        write_failure(tmp_path / "0000", "found first")
        raise ValueError("later")

    monkeypatch.setattr(trainable, "_train_here", fail)
    context: Any = Setting(tmp_path)
    run_trial(JOB.parameters(), context)
    assert read_failure(tmp_path / "0000") == "found first"


def raised_in_a_worker(error: Exception) -> Exception:
    """As Ray Train keeps it."""
    return UserExceptionWithTraceback(error, f"Traceback (most recent call last):\n  ...\n{error!r}")


GONE = WorkerHealthCheckFailedError("a worker is gone", failure=ActorDiedError())
NO_PEER = raised_in_a_worker(RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize(("error", "said"), [
    ({1: raised_in_a_worker(ValueError("second")), 0: raised_in_a_worker(ValueError("first"))}, "ValueError: first"),
    ({0: NO_PEER, 1: GONE}, "ActorDiedError: "),  # who lost the connection is not who was lost
    (WorkerGroupError("text", {0: NO_PEER}), "RuntimeError: Connection closed by peer"),
    (ControllerError(RayTaskError("start", "Traceback\nRuntimeError: no interface", RuntimeError("no interface"))),
     "RuntimeError: no interface"),
    (OSError("of the driver"), "OSError: of the driver")])
def test_cause_of_a_lost_group_is_the_first_workers_own_words(error: Any, said: str) -> None:
    assert cause_of(error).startswith(said) and "\n" not in cause_of(error)


def test_group_that_ended_gives_its_cause_as_the_trials_reason() -> None:
    class Ended:
        def is_alive(self) -> bool:
            return False

    lane = WorkerGroup.__new__(WorkerGroup)
    lane._fit, lane._ended_by = Ended(), "RuntimeError: no interface"  # type: ignore[assignment]
    with pytest.raises(WorkersLost) as lost:
        lane._take()
    text = f"Traceback:\n  ...\nsearch.trials.trainable.WorkersLost: {lost.value}\n"
    assert why_lost(text) == "the worker group ended before its trial did: RuntimeError: no interface"


def test_trial_that_tune_stops_is_told_from_code_that_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune exits inside of `report`, and forgets before that it was to stop."""
    monkeypatch.setattr(trainable.tune, "report", lambda _: sys.exit(0))
    with pytest.raises(TrialStopped):
        TuneLink().report({})


@pytest.mark.parametrize("error", [None, RuntimeError("the group is gone"), SystemExit(1)])
@pytest.mark.parametrize("said", ["ValueError: a worker's own words", ""])
def test_words_of_a_worker_outlive_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             error: BaseException | None, said: str) -> None:
    """Ray's own account may be another one, or none: an error that cannot be brought from a worker ends the group."""
    def fit() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(trainable, "TorchTrainer", lambda *_, **__: SimpleNamespace(fit=fit))
    monkeypatch.setattr(trainable.ray, "get", lambda value: value)
    lane = WorkerGroup.__new__(WorkerGroup)
    lane._mailbox, lane._ended_by = SimpleNamespace(said=SimpleNamespace(remote=lambda: said)), ""
    with contextlib.suppress(SystemExit):
        lane._run(make_context(tmp_path, num_workers=2))
    assert lane._ended_by == (said or ("" if error is None else f"{type(error).__name__}: {error}"))
