"""The disk under a study: whether a folder can be written and has room, and whether an error says that it is full."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from search.config import ConfigError, StudyConfig
from search.interrupt import resume_flag

MIN_FREE_BYTES = 100_000_000
"""Where less is free nothing is begun: features take 46 MB an hour of speech, and a trial of the smallest published
QuartzNet (5x5, 6.7 million weights) keeps 134 MB."""

WEIGHTS_A_TRIAL_KEEPS = 5
"""In sizes of the network: `last.ckpt` holds the weights, their average and two moments of each (AdamW and LAMB;
NovoGrad and Lion have one), `best.pt` the average again. A 15x5 of 76 MB keeps 380 MB."""

_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full", "disk I/O error",
         "Not enough free space to write")
"""Said by the kernel, by SQLite (the second where its journal does not fit) and by NumPy, which gives no number; what
Ray brings from another process may be text alone."""


class DiskFullError(RuntimeError):
    """A disk that got full while a study ran."""


def check_disks(config: StudyConfig, run: Path, resume: bool) -> None:
    """Refuse a run's folder or a cache without rights or room, before any work.

    Raises:
        ConfigError: it names which and what can be done instead.
    """
    source = Path(str(config.source))
    num_bytes = source.stat().st_size if source.is_file() else 0  # its weights, perhaps in half precision
    check_room(run, max(MIN_FREE_BYTES, WEIGHTS_A_TRIAL_KEEPS * num_bytes),
               "start a new study with --out" if resume else "name another folder with --out")
    check_cache(config.cache_folder)


def check_cache(cache: Path) -> None:
    """Refuse a cache without rights or room.

    Raises:
        ConfigError: it names which and what can be done instead.
    """
    check_room(cache, MIN_FREE_BYTES, "name another folder with --cache")


def check_room(folder: Path, needed_bytes: int, instead: str, what: str = "a study") -> None:
    """Refuse a folder that cannot be written, or whose disk has too little room for `what`; nothing is written.

    Raises:
        ConfigError: either, with what can be done `instead`.
    """
    there = _nearest(folder)
    if not there.is_dir():
        raise ConfigError(f"{folder}: cannot be written ({there} is not a folder). Move it away, or {instead}.")
    if not os.access(there, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        why = "its disk is mounted read-only" if is_read_only else "this user has no right to"
        raise ConfigError(f"{folder}: cannot be written ({why}). Make it writable, or {instead}.")
    total, _, free = shutil.disk_usage(there)
    if not total:  # one of the kernel's, such as /proc, or one that does not tell
        _try(there, folder, instead)
    elif free < needed_bytes:
        raise ConfigError(f"{folder}: {_megabytes(free)} are free on its disk; {what} needs at least "
                          f"{_megabytes(needed_bytes)} there to begin. Make room, or {instead}.")


def _try(there: Path, folder: Path, instead: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({there} takes no files: {error.strerror}). Check the path, or "
                          f"{instead}.") from error


def free_bytes(folder: Path) -> int:
    """What is free on the disk where a folder is, or will be."""
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextlib.contextmanager
def full_disk_named(folder: Path, cache: Path) -> Iterator[None]:
    """Inside the block an error behind which is a full disk becomes one that says how the study goes on.

    Raises:
        DiskFullError: in place of such an error.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        free = ", ".join(f"{path} {_megabytes(shutil.disk_usage(path).free)}" for path in (folder, cache)
                         if path.exists())
        raise DiskFullError(f"{folder}: the disk is full or cannot be written ({_reason(error)}; free now: {free}). "
                            f"What was done is kept; make room and go on with {resume_flag(folder)}") from error


def is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error, however often it was wrapped, by Ray too."""
    return any(_says_full(one) for one in _chain(error))


def _reason(error: BaseException) -> str:
    """The words of the outermost who says it in one line; a Ray task's error holds its whole traceback."""
    said = [str(one) for one in _chain(error) if _says_full(one)]
    lines = [text for text in said if "\n" not in text] or [words for words in _FULL if words in said[0]] or said
    return lines[0].rstrip(".")


def _says_full(error: BaseException) -> bool:
    is_errno = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    return is_errno or says_full(str(error))


def says_full(text: str) -> bool:
    """Whether the text of an error is that of a full disk."""
    return any(words in text for words in _FULL)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, all that it was raised from or while, and what Ray keeps as its cause."""
    seen: list[BaseException] = [error]
    for one in seen:
        yield one
        before = (one.__cause__, one.__context__, getattr(one, "cause", None))
        seen += [e for e in before if isinstance(e, BaseException) and not any(e is known for known in seen)]


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"
