"""Ctrl-C and a supervisor's signals: once, the study stops where it can go on; twice, at once."""

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
"""What systemd, Docker, Slurm, `timeout` and a terminal that is closed send; each is taken as Ctrl-C."""

PATIENCE_S = 12.0
"""From a supervisor's signal to our end, whatever still runs by then: it kills for good soon after."""

STOPPING = "stopping: trials keep their last checkpoint; press Ctrl-C again to end at once"


class Interrupted(Exception):
    """Ctrl-C, or a supervisor's signal: the study is kept, and can be resumed."""


class Interrupt:
    """Whether the person asked to stop."""

    def __init__(self) -> None:
        self._is_set = self._is_unsaid = False  # no Events: Ray Tune pickles whoever holds this

    def set(self) -> None:
        """Ask every trial to stop."""
        self._is_set = True

    def ask(self) -> None:
        """The same for a signal's handler, which must not print: it may stand in the middle of another print."""
        self._is_set = self._is_unsaid = True

    def is_set(self) -> bool:
        """Whether someone asked."""
        return self._is_set

    def answer(self) -> str | None:
        """What to tell the person who asked, once."""
        if not self._is_unsaid:
            return None
        self._is_unsaid = False
        return STOPPING

    def raise_if_set(self, folder: Path) -> None:
        """Leave the study where it is.

        Raises:
            Interrupted: someone asked.
        """
        if self.is_set():
            raise Interrupted(f"stopped; what was done is kept. Go on with {resume_flag(folder)}")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside the block the first signal asks for a stop, the second one ends the program at once, and the third one
    does not even wait for its end."""
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
"""Signals of supervisors that this process got."""


def is_stopped() -> bool:
    """Whether a supervisor asked this process to end."""
    return bool(_received)


def exit_code() -> int:
    """Of a program that was stopped: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (_received[0] if _received else signal.SIGINT)


@contextmanager
def supervised() -> Iterator[None]:
    """Inside the block a supervisor's signal is as Ctrl-C, and the program has ended soon after.

    They are kept from every thread and process that is started inside, and waited for by a thread of ours: Ray's own
    handler of SIGTERM prints a stack of C++ and aborts, and a signal that `timeout` or a terminal sends to the whole
    group would take Ray's processes before the trials have kept anything. One that was ignored stays so (`nohup`).
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
        for number, handler in handlers.items():  # Ray has put its own in place of them
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(taken: set[signal.Signals], ended: threading.Event) -> None:
    """Pass signals on as Ctrl-C, which interrupts whatever the main thread waits for; end the program in the end."""
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
