"""Mailbox: an actor through which a trial's process and its worker group exchange messages."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.records.job import Job

GROUP_LOSSES_FORGIVEN = 2
"""How often a trial may lose workers without an epoch in between and resume from its last checkpoint."""

IDLE_S = 10.0
"""Time after which workers without a job ask again; their process group would give up after half an hour."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended; without a reason, it was trained to its end or stopped."""

    reason: str | None = None
    disk_error: OSError | None = None
    """The disk was full, which is no fault of the recipe."""


class Mailbox:
    """Messages between a trial's process and the first of its workers; jobs are numbered from 1."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._number = 0
        self._job: Job | None = None
        self._fit_at = 0.0
        self._reports: list[dict[str, Any]] = []
        self._outcome: Outcome | None = Outcome()
        self._starts, self._losses, self._complaint = 0, 0, ""
        self._is_stopped = self._is_closed = False

    # Called by the trial's process.

    async def begin(self, job: Job, fit_at: float) -> None:
        """The next job."""
        async with self._changed:
            self._number, self._job, self._fit_at = self._number + 1, job, fit_at
            self._reports, self._outcome, self._is_stopped = [], None, False
            self._starts, self._losses, self._complaint = 0, 0, ""
            self._changed.notify_all()

    async def take(self, wait_s: float) -> tuple[dict[str, Any] | None, Outcome | None]:
        """The report of the waiting worker, and how the job ended; waits a while for either."""
        await self._until(lambda: bool(self._reports) or self._outcome is not None, wait_s)
        return (self._reports[0] if self._reports else None), self._outcome

    async def said(self) -> str:
        """What the first worker that left since the last epoch complained of; empty where none said anything."""
        return self._complaint

    async def taken(self) -> None:
        """Confirm that the report was passed on, so that its worker continues."""
        async with self._changed:
            self._reports = self._reports[1:]
            self._changed.notify_all()

    async def stop(self, close: bool = False) -> None:
        """Ask the workers to leave the job, and with `close`, to exit."""
        async with self._changed:
            self._is_stopped, self._is_closed = True, self._is_closed or close
            self._reports = []
            self._changed.notify_all()

    # Called by the first worker.

    async def next(self, after: int) -> tuple[int, Job | None, float] | None:
        """The number of an open job after `after`, the job, and its start; None after a while without one.

        If the job is None, there will be no more.
        """
        await self._until(lambda: self._is_closed or (self._number > after and self._outcome is None), IDLE_S)
        if self._is_closed:
            return 0, None, 0.0
        if self._number <= after or self._outcome is not None:
            return None
        if self._starts > GROUP_LOSSES_FORGIVEN:
            await self._give_up(self._starts)
            return None
        self._starts += 1
        return self._number, self._job, self._fit_at

    async def report(self, number: int, metrics: dict[str, Any]) -> bool:
        """Report one epoch of the job; returns, once it was passed on, whether to leave the job."""
        async with self._changed:
            if number == self._number and not self._is_stopped:
                self._reports.append(metrics)
                if metrics["is_new"]:
                    self._starts, self._losses, self._complaint = 1, 0, ""
                self._changed.notify_all()
        await self._until(lambda: metrics not in self._reports, None)
        return self._is_stopped or number != self._number

    async def stopped(self, number: int) -> None:
        """Return when the job should be left."""
        await self._until(lambda: self._is_stopped or self._number != number, None)

    async def complain(self, number: int, error: str) -> None:
        """Record that a worker left with an error; the first one since the last epoch is kept."""
        if number == self._number:
            self._complaint = self._complaint or error

    async def lost(self, error: str) -> None:
        """Record that the group ended with an error and is restarted, whether or not a worker had taken the job."""
        if self._number and self._outcome is None:
            self._complaint = self._complaint or error
            self._losses += 1
            if self._losses > GROUP_LOSSES_FORGIVEN:
                await self._give_up(self._losses)

    async def _give_up(self, times: int) -> None:
        complaint = f", at first by {self._complaint}" if self._complaint else ""
        await self.end(self._number, Outcome(f"its workers were lost {times} times without an epoch between"
                                             f"{complaint}"))

    async def end(self, number: int, outcome: Outcome) -> None:
        """Record that the job has ended; the first message about it counts."""
        async with self._changed:
            if number == self._number and self._outcome is None:
                self._outcome = outcome
                self._changed.notify_all()

    async def _until(self, holds: Callable[[], bool], wait_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._changed:
                await self._changed.wait_for(holds)
