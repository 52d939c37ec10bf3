"""What a trial's process and its workers tell each other, whatever happens between them."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from search import workers
from search.record import read_failure, write_failure
from search.workers import GROUP_LOSSES_FORGIVEN, Mailbox, Outcome, run_trial

JOB = {"id": "0000", "recipe": {}, "seed": 0}


def played(scene: Any) -> None:
    """Play a scene with a mailbox, within ten seconds."""

    async def play() -> None:
        await asyncio.wait_for(scene(Mailbox()), 10)

    asyncio.run(play())


def epoch(number: int, is_new: bool = True) -> dict[str, Any]:
    return {"epoch": number, "is_new": is_new, "wer": 0.5}


def test_worker_waits_with_its_report_until_tune_has_decided() -> None:
    async def scene(mailbox: Mailbox) -> None:
        await mailbox.begin(JOB, 1.0)
        assert await mailbox.next(after=0) == (1, JOB, 1.0)
        report = asyncio.create_task(mailbox.report(1, epoch(1)))
        assert await mailbox.take(1.0) == (epoch(1), None)
        await asyncio.sleep(0.05)
        assert not report.done()
        await mailbox.taken()
        assert await report is False  # it goes on
        await mailbox.end(1, Outcome())
        assert await mailbox.take(1.0) == (None, Outcome())

    played(scene)


def test_stopped_job_is_left_by_the_worker_that_waits_and_by_one_that_trains() -> None:
    async def scene(mailbox: Mailbox) -> None:
        await mailbox.begin(JOB, 1.0)
        await mailbox.next(after=0)
        stopped = asyncio.create_task(mailbox.stopped(1))
        report = asyncio.create_task(mailbox.report(1, epoch(1)))
        await mailbox.take(1.0)
        await mailbox.stop()
        await stopped
        assert await report is True
        assert await mailbox.report(1, epoch(2)) is True

    played(scene)


def test_next_job_reaches_workers_that_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.05)

    async def scene(mailbox: Mailbox) -> None:
        assert await mailbox.next(after=0) is None
        await mailbox.begin(JOB, 1.0)
        await mailbox.next(after=0)
        await mailbox.end(1, Outcome())
        waiting = asyncio.create_task(mailbox.next(after=1))
        await mailbox.begin(JOB | {"id": "0001"}, 2.0)
        assert await waiting == (2, JOB | {"id": "0001"}, 2.0)
        await mailbox.end(1, Outcome("late word on the first job"))
        assert (await mailbox.take(0.01))[1] is None
        await mailbox.stop(close=True)
        assert await mailbox.next(after=2) == (0, None, 0.0)

    played(scene)


@pytest.mark.parametrize("is_new", [True, False])
def test_job_that_loses_its_workers_again_and_again_fails_unless_it_gets_on(monkeypatch: pytest.MonkeyPatch,
                                                                            is_new: bool) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.01)

    async def scene(mailbox: Mailbox) -> None:
        await mailbox.begin(JOB, 1.0)
        for _ in range(GROUP_LOSSES_FORGIVEN + 1):
            assert await mailbox.next(after=0) is not None  # workers that were started again know of no job
            report = asyncio.create_task(mailbox.report(1, epoch(1, is_new)))
            await mailbox.take(1.0)
            await mailbox.taken()
            await report
        again = await mailbox.next(after=0)
        _, outcome = await mailbox.take(0.01)
        assert (again is None) == (not is_new) == (outcome is not None)
        if outcome:
            assert outcome.reason == "its workers were lost 3 times without an epoch between"

    played(scene)


class Setting:
    num_workers = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder


@pytest.mark.parametrize(("error", "reason"), [
    (MemoryError("no room for 3 GB"), "MemoryError: no room for 3 GB"),
    (ValueError("first\nsecond"), "ValueError: first")])
def test_trial_that_raises_keeps_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception,
                                            reason: str) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") == reason
    run_trial({"job": JOB}, setting)
    assert len(calls) == 1  # it would fail in the same way again


def test_full_disk_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    with pytest.raises(OSError, match="No space"):
        run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") is None


def test_reason_that_was_found_first_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        write_failure(tmp_path / "0000", "found first")
        raise ValueError("later")

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") == "found first"
