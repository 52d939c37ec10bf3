"""Standard streams that accept every character, and do not end a study when their reader is gone."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_NAMES = ("stdin", "stdout", "stderr")


class _Deaf(io.RawIOBase):
    """A stream whose writes never fail: what a broken pipe, a closed terminal or a full disk does not accept is
    dropped."""

    def __init__(self, stream: io.TextIOWrapper, raw: io.RawIOBase) -> None:
        self._stream, self._raw = stream, raw  # keeps the stream alive, which closes `raw` when it is collected

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            return self._raw.write(content) or 0
        return len(content)


@contextmanager
def steady(outlive_reader: bool) -> Iterator[None]:
    """Inside the block, no character ends the program: one that the stream's encoding lacks is written as its code.

    With `outlive_reader`, writes to standard output never fail; those to standard error never do. A stream that was
    closed from the start reads and writes nothing.
    """
    before = {name: getattr(sys, name) for name in _NAMES}
    for number, name in enumerate(_NAMES):
        if before[name] is None:
            _fill(number)
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
    sys.stdout = _steadied(sys.stdout, is_deaf=outlive_reader)
    sys.stderr = _steadied(sys.stderr, is_deaf=True)
    try:
        yield
    finally:
        for name in _NAMES[1:]:
            stream = getattr(sys, name)
            if stream is not before[name] and before[name] is not None:
                stream.flush()
            setattr(sys, name, before[name])


def _fill(number: int) -> None:
    """Open /dev/null in place of a closed stream, or every print would write to the next file that is opened."""
    try:
        os.fstat(number)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_RDWR), number)


def _steadied(stream: TextIO, is_deaf: bool) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # a notebook's, or a test's
    stream.reconfigure(errors="backslashreplace")
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with PYTHONUNBUFFERED there is no buffer
    if not is_deaf or not isinstance(raw, io.RawIOBase):
        return stream
    return io.TextIOWrapper(io.BufferedWriter(_Deaf(stream, raw)), encoding=stream.encoding, errors="backslashreplace",
                            line_buffering=stream.line_buffering, write_through=stream.write_through)


def leave_reader() -> None:
    """After a broken pipe, discard what is still to be written, including at interpreter exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
