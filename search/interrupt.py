"""Ctrl-C: once, the study stops where it can go on; twice, at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Interrupted(Exception):
    """Ctrl-C: the study is kept, and can be resumed."""


class Interrupt:
    """Whether the person asked to stop."""

    def __init__(self) -> None:
        self._is_set = False  # not an Event: Ray Tune pickles whoever holds this

    def set(self) -> None:
        """Ask every trial to stop."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether someone asked."""
        return self._is_set

    def raise_if_set(self, folder: Path) -> None:
        """Leave the study where it is.

        Raises:
            Interrupted: someone asked.
        """
        if self.is_set():
            raise Interrupted(f"stopped; what was done is kept. Go on with --resume {folder}")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside the block the first Ctrl-C asks for a stop, and the second one ends the program at once."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(_: int, __: Any) -> None:
        print("\nstopping: trials keep their last checkpoint; press Ctrl-C again to end at once", flush=True)
        interrupt.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
