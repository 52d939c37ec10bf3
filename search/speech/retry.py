"""Attempts of a download: by one process at a time, and again after a trouble that may pass."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from files.locks import NO_LOCKS_HERE, file_lock

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Before each new attempt; a server that restarts is back within a minute."""
GAIN_BYTES = 16 << 20
"""An attempt that got as much further was no failure: a connection that breaks now and then may still bring 30 GB."""

LOOK_EVERY_S = 0.2
"""Whether another process has ended its download; on NFS each look is a question to the server."""

T = TypeVar("T")


class DownloadError(RuntimeError):
    """A file that cannot be had, or that is not the one that was asked for."""


class PassingError(Exception):
    """A trouble that another attempt may not meet."""

    def __init__(self, what: str, wait_s: float = 0.0, is_part_wrong: bool = False) -> None:
        super().__init__(what)
        self.wait_s = wait_s
        self.is_part_wrong = is_part_wrong


def say(line: str) -> None:
    """Tell the person, beside what a command prints as its result."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(target: Path, work: str = "downloads") -> Iterator[None]:
    """Inside the block no other process makes the same file or folder; where one does, its end is waited for."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(target.with_name(target.name + ".lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{target.name}: another process {work} it; waiting for its end")
            lock.acquire(poll_interval=LOOK_EVERY_S)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        say(f"no locks on this disk ({error.strerror}): start no second process while this one {work} {target.name}")
    try:
        yield
    finally:
        lock.release()


def retried(attempt: Callable[[], T], size: Callable[[], int], name: str, waits_s: Sequence[float]) -> T:
    """Try until an attempt raises no PassingError, with growing waits; one that got much further than all before it
    begins the count again. What is lost and brought once more counts for nothing: it could go on for ever.

    Raises:
        DownloadError: the last of the attempts failed too.
    """
    failures, furthest = 0, size()
    while True:
        try:
            return attempt()
        except PassingError as error:
            failures = 1 if size() - furthest >= GAIN_BYTES else failures + 1
            furthest = max(furthest, size())
            if failures > len(waits_s):
                raise DownloadError(f"{name}: {error}; {failures} attempts failed one after another. {size():,} bytes "
                                    "are kept. Check the network; the same command goes on from there.") from error
            wait_s = max(waits_s[failures - 1], error.wait_s)
            say(f"{name.rpartition('/')[2]}: {error}; trying again in {wait_s:g} s")
            time.sleep(wait_s)
