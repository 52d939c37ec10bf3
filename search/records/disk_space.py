"""Check that folders are writable and have enough free space, and recognise errors caused by a full disk."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from search.config import ConfigError, StudyConfig
from search.records.shell_words import resume_flag

MIN_FREE_BYTES = 100_000_000
"""A study needs this much free space to start: features take 46 MB per hour of speech, and a trial of the smallest
published QuartzNet (5x5, 6.7 million weights) keeps 134 MB."""

WEIGHTS_A_TRIAL_KEEPS = 5
"""In multiples of the network's size: `last.ckpt` holds the weights, their average and two moments (AdamW and LAMB;
NovoGrad and Lion have one), `best.pt` the average again. A 15x5 of 76 MB keeps 380 MB."""

_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full", "disk I/O error",
         "Not enough free space to write", "No usable temporary directory found")
"""Messages of the kernel, SQLite (the second one if its journal does not fit), NumPy, which sets no errno, and Python's
tempfile. Errors that Ray passes on from another process may be plain text."""


LIBRARY_BYTES = 10_000_000
"""A compiled library takes 0.2 MB; the compiler's temporary files are larger."""


class DiskFullError(RuntimeError):
    """A disk that filled up while a study was running."""


def check_disks(config: StudyConfig, run: Path, resume: bool, libraries: Path) -> None:
    """Refuse a run's folder or cache that is not writable or too full, before any work. `libraries`: see `check_cache`.

    Raises:
        ConfigError: the message names the folder and an alternative.
    """
    files = [Path(source) for source in config.sources.values()]
    num_bytes = max((file.stat().st_size for file in files if file.is_file()), default=0)  # maybe in half precision
    check_room(run, max(MIN_FREE_BYTES, WEIGHTS_A_TRIAL_KEEPS * num_bytes),
               "start a new study with --out" if resume else "name another folder with --out")
    check_cache(config.cache_folder, libraries)


def check_cache(cache: Path, libraries: Path) -> None:
    """Refuse a cache or temporary folder that is not writable or too full; for compiled `libraries`, only warn.

    Raises:
        ConfigError: the message names the folder and an alternative.
    """
    check_room(cache, MIN_FREE_BYTES, "name another folder with --cache or CUARZO_CACHE")
    check_room(temporary_folder(), MIN_FREE_BYTES, "name another folder with TMPDIR")
    check_room(ray_folder(), MIN_FREE_BYTES, "name another folder with RAY_TMPDIR")
    try:
        check_room(libraries, LIBRARY_BYTES, "name another folder with CUARZO_CACHE",
                   "compiling the kernels")
    except ConfigError as error:  # everything else may be in another cache, named by --cache
        print(f"warning: {error} Without them training on CPUs is 2 times slower or worse.", flush=True)


def ray_folder() -> Path:
    """Where a Ray started on this machine keeps its sessions."""
    return Path(os.environ.get("RAY_TMPDIR") or temporary_folder())


def temporary_folder() -> Path:
    """The folder for temporary files of compilers, Python and W&B. Python's `tempfile.gettempdir` would return another
    folder once the disk is full."""
    return Path(os.environ.get("TMPDIR") or "/tmp")


def check_room(folder: Path, needed_bytes: int, instead: str, what: str = "a study") -> None:
    """Refuse a folder that cannot be written, or whose disk has too little space for `what`; nothing is written.

    Raises:
        ConfigError: the folder is refused; the message ends with what to do `instead`.
    """
    there = nearest(folder)
    if not there.is_dir():
        raise ConfigError(f"{folder}: cannot be written ({there} is not a folder). Move it away, or {instead}.")
    if not os.access(there, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        why = "its disk is mounted read-only" if is_read_only else "this user has no right to"
        raise ConfigError(f"{folder}: cannot be written ({why}). Make it writable, or {instead}.")
    total, _, free = shutil.disk_usage(there)
    if not total:  # a virtual file system such as /proc, or one that does not report its size
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
    """Free bytes on the disk that a folder is on, or will be on."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextlib.contextmanager
def full_disk_named(folder: Path, *others: Path) -> Iterator[None]:
    """Inside the block, replace an error caused by a full disk by one that says how to resume the study in `folder`.

    Raises:
        DiskFullError: instead of such an error.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        free = ", ".join(f"{path} {_megabytes(free_bytes(path))}" for path in _places(folder, *others))
        full = ", ".join(map(str, full_places(error, folder, *others)))
        raise DiskFullError(f"{full}: the disk is full or cannot be written ({_reason(error)}; free now: {free}). "
                            f"What was done is kept; make room and resume with {resume_flag(folder)}") from error


def _places(*folders: Path) -> list[Path]:
    """All folders that a study writes to, each once."""
    return list(dict.fromkeys([*folders, ray_folder(), temporary_folder()]))


def full_places(error: BaseException, *folders: Path) -> list[Path]:
    """The folders that are full: the one that an error names, otherwise those with little space or no inodes left."""
    places = _places(*folders)
    for one in _chain(error):
        if isinstance(one, OSError) and _says_full(one) and isinstance(one.filename, str | bytes | os.PathLike):
            file = Path(os.fsdecode(one.filename))
            return [next((place for place in places if file.is_relative_to(place)), file)]
    return [place for place in places if free_bytes(place) < MIN_FREE_BYTES or not _has_files_left(place)] or places[:1]


def _has_files_left(folder: Path) -> bool:
    disk = os.statvfs(nearest(folder))
    return disk.f_favail > 0 or disk.f_files == 0  # a file system without a fixed number of inodes reports 0


def is_full(error: BaseException) -> bool:
    """Whether a full disk caused an error, however often it was wrapped, including by Ray."""
    return any(_says_full(one) for one in _chain(error))


def _reason(error: BaseException) -> str:
    """The outermost message that says so in one line; the error of a Ray task holds its whole traceback."""
    said = [str(one) for one in _chain(error) if _says_full(one)]
    lines = [text for text in said if "\n" not in text] or [words for words in _FULL if words in said[0]] or said
    return lines[0].rstrip(".")


def _says_full(error: BaseException) -> bool:
    is_errno = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    return is_errno or says_full(str(error))


def says_full(text: str) -> bool:
    """Whether an error's text says that a disk is full."""
    return any(words in text for words in _FULL)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, its causes and contexts, and what Ray keeps as its cause."""
    seen: list[BaseException] = [error]
    for one in seen:
        yield one
        before = (one.__cause__, one.__context__, getattr(one, "cause", None))
        seen += [e for e in before if isinstance(e, BaseException) and not any(e is known for known in seen)]


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"
