"""Write files completely or not at all, even across a power cut."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4


def write_aside(path: Path, content: bytes) -> None:
    """Write a file aside, then rename it: a partial file is never seen, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shared(path, lambda file: file.write(content))


def write_shared(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """The same for what `write` writes; several threads and processes may do it at once, each under its own name aside.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with aside.open("wb") as file:
            write(file)
        take_place(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def aside_of(path: Path) -> Path:
    """Where a file with a single writer is written before it takes its place; a later process may continue it."""
    return path.with_name(path.name + ".part")


def take_place(aside: Path, path: Path) -> None:
    """Rename a file that was written aside, once it is on the disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    rename(aside, path)


def rename(aside: Path, path: Path) -> None:
    """Rename a file or a folder whose content is on the disk, so that its name is there too when this returns."""
    os.replace(aside, path)
    with contextlib.suppress(OSError):  # not every network file system can sync folders
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
