"""Retry a download after temporary errors, in one process at a time."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from files.locks import NO_LOCKS_HERE, file_lock

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Waits before each retry; a server that restarts is back within a minute."""
GAIN_BYTES = 16 << 20
"""An attempt that got this much further does not count as a failure, so a flaky connection can still download 30 GB."""

LOOK_EVERY_S = 0.2
"""How often to check whether another process has finished; on NFS each check is a request to the server."""

T = TypeVar("T")


class DownloadError(RuntimeError):
    """A file that cannot be downloaded, or is not the one requested."""


class PassingError(Exception):
    """A temporary error; another attempt may succeed."""

    def __init__(self, what: str, wait_s: float = 0.0, is_part_wrong: bool = False) -> None:
        super().__init__(what)
        self.wait_s = wait_s
        self.is_part_wrong = is_part_wrong


def say(line: str) -> None:
    """Print a message for the user on standard error, apart from a command's results."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(target: Path, work: str = "downloads") -> Iterator[None]:
    """Inside the block, no other process makes the same file or folder; if one is doing so, wait for it to finish."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(target.with_name(target.name + ".lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{target.name}: another process {work} it; waiting for it to finish")
            lock.acquire(poll_interval=LOOK_EVERY_S)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        say(f"no locks on this disk ({error.strerror}): start no other process while this one {work} {target.name}")
    try:
        yield
    finally:
        lock.release()


def retried(attempt: Callable[[], T], size: Callable[[], int], name: str, waits_s: Sequence[float]) -> T:
    """Try until an attempt raises no PassingError, with growing waits; an attempt that got much further than all
    earlier ones resets the count of failures. Bytes lost and downloaded again do not count, or it might never end.

    Raises:
        DownloadError: the last attempt failed too.
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
                                    "are kept. Check the network; the same command continues from there.") from error
            wait_s = max(waits_s[failures - 1], error.wait_s)
            say(f"{name.rpartition('/')[2]}: {error}; trying again in {wait_s:g} s")
            time.sleep(wait_s)
