"""Trials that hang are ended, trials that get nowhere are given up, and machines that go are forgiven."""

import errno
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial

from search.cluster import ClusterError, check_shared
from search.records.job import Job
from search.records.trial_record import ALIVE, read_failure
from search.trials import watchdog
from search.trials.interrupt import Interrupt
from search.trials.watchdog import LOOK_EVERY_S, NO_WORKERS, NODE_LOST, START_PATIENCE_S, Watchdog, why_lost
from spaces.recipe import Recipe


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    return clock


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    actors: list[str] = []
    monkeypatch.setattr(watchdog.ray, "kill", actors.append)
    return actors


def running(name: str, folder: Path) -> Any:
    (folder / name).mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(status=Trial.RUNNING, config=Job(id=name, recipe=Recipe(), seed=0).parameters(),
                           error_file=folder / f"{name}.txt",
                           temporary_state=SimpleNamespace(ray_actor=f"actor of {name}"))


def beat(folder: Path, name: str, at_s: float) -> None:
    (folder / name / ALIVE).touch()
    os.utime(folder / name / ALIVE, (at_s, at_s))


def lose(watch: Watchdog, trial: Any, error: BaseException) -> None:
    with trial.error_file.open("a") as file:  # as Tune does
        file.write(f"Failure # 1 (occurred at 2026-01-01_00-00-00)\n{error}\n")
    watch.on_trial_recover(0, [trial], trial)


def test_trial_without_a_step_for_too_long_is_ended_once(tmp_path: Path, clock: Clock, killed: list[str]) -> None:
    watch, trial = Watchdog(tmp_path, 60, Interrupt()), running("0000", tmp_path)
    watch.on_trial_start(0, [trial], trial)
    for second in range(0, 200, 5):
        clock.now = second
        if second < 100:
            beat(tmp_path, "0000", 1e6 + second)  # the file's clock is another one
        watch.on_step_end(0, [trial])
        assert killed == (["actor of 0000"] if second > 95 + 60 else [])


def test_start_has_patience_of_its_own(tmp_path: Path, clock: Clock, killed: list[str]) -> None:
    watch, trial = Watchdog(tmp_path, 20, Interrupt()), running("0000", tmp_path)
    beat(tmp_path, "0000", 5.0)  # left by an earlier process
    watch.on_trial_start(0, [trial], trial)
    clock.now = START_PATIENCE_S
    watch.on_step_end(0, [trial])
    assert not killed
    clock.now = START_PATIENCE_S + 2
    watch.on_step_end(0, [trial])
    assert killed


def test_workers_that_do_not_come_are_waited_for_and_never_counted(
        tmp_path: Path, clock: Clock, killed: list[str], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """A worker group's process runs while its machines are still to come."""
    monkeypatch.setattr(watchdog, "free_orphaned_groups", lambda: None)
    watch, trial = Watchdog(tmp_path, 20, Interrupt(), has_groups=True), running("0000", tmp_path)
    for waited in range(1, 9):
        watch.on_trial_start(0, [trial], trial)
        clock.now += START_PATIENCE_S + 2
        watch.on_step_end(0, [trial])
        assert len(killed) == waited
        lose(watch, trial, ActorDiedError())
    assert read_failure(tmp_path / "0000") is None
    assert capsys.readouterr().out.splitlines()[-1] == f"trial 0000: {NO_WORKERS}; it resumes after epoch 0"
    for second in range(3):  # they came, and hang
        watch.on_trial_start(0, [trial], trial)
        beat(tmp_path, "0000", 1e6 + second)
        clock.now += LOOK_EVERY_S
        watch.on_step_end(0, [trial])
        clock.now += 22
        watch.on_step_end(0, [trial])
        lose(watch, trial, ActorDiedError())
    assert read_failure(tmp_path / "0000") == "no training step for 20s; 3 times without an epoch between"


def test_trial_that_waits_is_not_watched(tmp_path: Path, clock: Clock, killed: list[str]) -> None:
    watch, trial = Watchdog(tmp_path, 20, Interrupt()), running("0000", tmp_path)
    trial.status = Trial.PENDING
    for clock.now in (0, 1000, 2000):
        watch.on_step_end(0, [trial])
    assert not killed


def test_trial_is_given_up_after_three_losses_without_an_epoch_between(tmp_path: Path,
                                                                       capsys: pytest.CaptureFixture[str]) -> None:
    watch, trial = Watchdog(tmp_path, 60, Interrupt()), running("0000", tmp_path)
    for _ in range(2):
        lose(watch, trial, ActorDiedError())
        lose(watch, trial, ActorDiedError())
        assert read_failure(tmp_path / "0000") is None
        watch.on_trial_result(0, [trial], trial, {"epoch": 1, "is_new": True})
    watch.on_trial_result(0, [trial], trial, {"epoch": 1, "is_new": False})  # told again, not trained
    for _ in range(3):
        lose(watch, trial, ActorDiedError())
    assert read_failure(tmp_path / "0000") == "its process was lost; 3 times without an epoch between"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "trial 0000: its process was lost; it resumes after epoch 0"
    assert printed[-2:] == ["trial 0000: its process was lost; it resumes after epoch 1",
                            "trial 0000: its process was lost; it is given up"]


def test_lost_machines_are_not_counted(tmp_path: Path) -> None:
    watch, trial = Watchdog(tmp_path, 60, Interrupt()), running("0000", tmp_path)
    for _ in range(9):
        lose(watch, trial, ActorDiedError())
        lose(watch, trial, died_with("The actor is dead because its node has died. Node Id: f00"))
        watch.on_trial_result(0, [trial], trial, {"epoch": 1, "is_new": True})
    assert read_failure(tmp_path / "0000") is None


def died_with(message: str) -> RayActorError:
    return RayActorError(error_msg=message)


def test_full_disk_stops_the_search_and_is_nobodys_failure(tmp_path: Path) -> None:
    interrupt = Interrupt()
    watch, trial = Watchdog(tmp_path, math.inf, interrupt), running("0000", tmp_path)
    lose(watch, trial, OSError(errno.ENOSPC, "No space left on device", "last.ckpt"))
    assert interrupt.is_set() and isinstance(watch.error, OSError) and watch.error.errno == errno.ENOSPC
    assert read_failure(tmp_path / "0000") is None


def test_node_that_does_not_see_the_folder_stops_the_search_in_one_line(tmp_path: Path) -> None:
    interrupt = Interrupt()
    watch, trial = Watchdog(tmp_path, math.inf, interrupt), running("0000", tmp_path)
    with pytest.raises(ClusterError) as told:
        check_shared(tmp_path / "elsewhere")
    lose(watch, trial, RuntimeError(f"ray::Trial.train()\n  File x\nsearch.cluster.ClusterError: {told.value}"))
    assert interrupt.is_set() and isinstance(watch.error, ClusterError) and str(watch.error) == str(told.value)
    assert read_failure(tmp_path / "0000") is None


def test_what_took_a_process_is_said_in_words() -> None:
    assert why_lost("its node has died") == NODE_LOST
    text = str(OutOfMemoryError("Task was killed due to the node running low on memory."))
    assert "ran out of memory" in why_lost(text)
    assert why_lost(str(ActorDiedError())) == "its process was lost"
    assert why_lost("Traceback:\n  line 3\nWorkersLost: the group ended\n") == "WorkersLost: the group ended"
