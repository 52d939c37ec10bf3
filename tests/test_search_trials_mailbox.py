"""What a trial's process and its workers tell each other, whatever happens between them."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from search.records.job import Job
from search.trials import mailbox as mailbox_module
from search.trials.mailbox import GROUP_LOSSES_FORGIVEN, Mailbox, Outcome
from spaces.recipe import Recipe

JOB = Job(id="0000", recipe=Recipe(), seed=0)


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
    monkeypatch.setattr(mailbox_module, "IDLE_S", 0.05)

    async def scene(mailbox: Mailbox) -> None:
        assert await mailbox.next(after=0) is None
        await mailbox.begin(JOB, 1.0)
        await mailbox.next(after=0)
        await mailbox.end(1, Outcome())
        waiting = asyncio.create_task(mailbox.next(after=1))
        await mailbox.begin(replace(JOB, id="0001"), 2.0)
        assert await waiting == (2, replace(JOB, id="0001"), 2.0)
        await mailbox.end(1, Outcome("late word on the first job"))
        assert (await mailbox.take(0.01))[1] is None
        await mailbox.stop(close=True)
        assert await mailbox.next(after=2) == (0, None, 0.0)

    played(scene)


@pytest.mark.parametrize("is_new", [True, False])
def test_job_that_loses_its_workers_again_and_again_fails_unless_it_gets_on(monkeypatch: pytest.MonkeyPatch,
                                                                            is_new: bool) -> None:
    monkeypatch.setattr(mailbox_module, "IDLE_S", 0.01)

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


@pytest.mark.parametrize("is_taken", [True, False])
def test_group_that_is_lost_again_and_again_fails_the_job_with_its_first_words(is_taken: bool) -> None:
    """Also where no worker came far enough to take the job, or to say anything."""
    async def scene(mailbox: Mailbox) -> None:
        await mailbox.lost("of no job")
        await mailbox.begin(JOB, 1.0)
        for number in range(GROUP_LOSSES_FORGIVEN + 1):
            assert (await mailbox.take(0.01))[1] is None
            if is_taken:
                assert await mailbox.next(after=0) is not None
            await mailbox.lost(f"ActorDiedError: worker {number} is gone")
        assert await mailbox.said() == "ActorDiedError: worker 0 is gone"
        _, outcome = await mailbox.take(0.01)
        assert outcome and outcome.reason == ("its workers were lost 3 times without an epoch between, at first by "
                                              "ActorDiedError: worker 0 is gone")

    played(scene)


def test_losses_are_forgiven_after_an_epoch() -> None:
    async def scene(mailbox: Mailbox) -> None:
        await mailbox.begin(JOB, 1.0)
        for number in range(1, 3 * GROUP_LOSSES_FORGIVEN):
            await mailbox.next(after=0)
            report = asyncio.create_task(mailbox.report(1, epoch(number)))
            await mailbox.take(1.0)
            await mailbox.taken()
            await report
            await mailbox.lost("ActorDiedError: gone")
        assert (await mailbox.take(0.01))[1] is None

    played(scene)
