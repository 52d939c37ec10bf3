"""Ctrl-C and supervisors' signals: the first stops the study so that it can be resumed, the second ends it at once."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.records.shell_words import resume_flag

SUPERVISORS = (signal.SIGTERM, signal.SIGHUP)
"""What systemd, Docker, Slurm, `timeout` or a closed terminal sends; each acts like Ctrl-C."""

PATIENCE_S = 12.0
"""From a supervisor's signal to our exit, whatever is still running: the supervisor's SIGKILL follows soon after."""

STOPPING = "stopping: trials keep their last checkpoint; press Ctrl-C again to end at once"


class Interrupted(Exception):
    """Ctrl-C or a supervisor's signal; the study is kept and can be resumed."""


class Interrupt:
    """Whether the user or a supervisor asked to stop."""

    def __init__(self) -> None:
        self._is_set = self._is_unsaid = False  # not Events, because Ray Tune pickles objects that hold this one

    def set(self) -> None:
        """Ask every trial to stop."""
        self._is_set = True

    def ask(self) -> None:
        """The same from a signal handler, which must not print, because it may interrupt another print."""
        self._is_set = self._is_unsaid = True

    def is_set(self) -> bool:
        """Whether someone asked."""
        return self._is_set

    def answer(self) -> str | None:
        """A reply to the request to stop, once; None otherwise."""
        if not self._is_unsaid:
            return None
        self._is_unsaid = False
        return STOPPING

    def raise_if_set(self, folder: Path) -> None:
        """End the study here if someone asked to stop.

        Raises:
            Interrupted: someone asked to stop.
        """
        if self.is_set():
            raise Interrupted(f"stopped; what was done is kept. Resume with {resume_flag(folder)}")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside the block, the first signal asks the study to stop, the second raises KeyboardInterrupt, and the third
    exits without any cleanup."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    count = 0

    def ask(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > 2:
            os._exit(exit_code())
        if count == 2:
            raise KeyboardInterrupt
        interrupt.ask()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


# --- supervisors ----------------------------------------------------------------------------------------------------

_received: list[int] = []
"""Supervisors' signals that this process has received."""


def is_stopped() -> bool:
    """Whether a supervisor asked this process to end."""
    return bool(_received)


def exit_code() -> int:
    """The exit code of a stopped program: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (_received[0] if _received else signal.SIGINT)


@contextmanager
def supervised() -> Iterator[None]:
    """Inside the block, a supervisor's signal acts like Ctrl-C, and the program ends soon after.

    The signals are blocked in every thread and process started inside, and one thread of ours waits for them: Ray's own
    SIGTERM handler prints a C++ stack trace and aborts, and a signal that `timeout` or a terminal sends to the whole
    process group would kill Ray's processes before the trials have saved anything. Ignored signals (`nohup`) stay
    ignored.
    """
    taken = {number for number in SUPERVISORS if signal.getsignal(number) is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread() or not taken:
        yield
        return
    _received.clear()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *taken)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(taken, ended), name="signals", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        signal.pthread_kill(watch.ident or 0, next(iter(taken)))
        watch.join()
        for number, handler in handlers.items():  # Ray has replaced them
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(taken: set[signal.Signals], ended: threading.Event) -> None:
    """Pass signals on as Ctrl-C, which interrupts whatever the main thread waits for; exit when patience runs out."""
    until = math.inf
    while True:
        left_s = max(0.0, until - time.monotonic())
        found = signal.sigtimedwait(taken, left_s) if _received else signal.sigwait(taken)
        if ended.is_set():
            return
        if found is None:
            with contextlib.suppress(OSError):
                os.write(2, b"stopped in the middle; what was done before is kept\n")
            os._exit(exit_code())
        until = min(until, time.monotonic() + PATIENCE_S)
        _received.append(found if isinstance(found, int) else found.si_signo)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
