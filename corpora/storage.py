"""Files: read by path or by URI, from a local disk or an object store, and written so that none is seen in part."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

Location = str | Path
"""A local path, or a URI such as s3://bucket/name, gs://bucket/name or file:///folder/name."""

_REQUEST_BYTES = 8 << 20
"""Read from an object store at a time: a request takes its store 20 to 100 ms, however small it is."""


def is_uri(location: Location) -> bool:
    """Whether it names its file system; a Path never does."""
    return isinstance(location, str) and "://" in location


def open_file(location: Location) -> IO[bytes]:
    """Open for reading and seeking, buffered.

    Raises:
        OSError: there is no such file, its store does not answer, or nothing here knows the URI's scheme.
    """
    if not is_uri(location):
        return Path(location).open("rb")
    try:
        file_system, path = fs.FileSystem.from_uri(location)
    except pa.ArrowException as error:
        raise OSError(str(error).partition("\n")[0]) from error
    return io.BufferedReader(cast(io.RawIOBase, file_system.open_input_file(path)), _REQUEST_BYTES)


def num_bytes_of(file: IO[bytes]) -> int:
    """The size of an open file, which is read from its start next."""
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return num_bytes


def write_aside(path: Path, content: bytes) -> None:
    """Write a file aside first and then rename it: it is never seen in part, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shared(path, lambda file: file.write(content))


def write_shared(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Likewise what `write` writes; several threads and processes may write it at the same time: each has a name of
    its own aside."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with aside.open("wb") as file:
            write(file)
        take_place(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def aside_of(path: Path) -> Path:
    """Where a file that one process alone writes is written before it takes its place; it may be gone on with."""
    return path.with_name(path.name + ".part")


def take_place(aside: Path, path: Path) -> None:
    """Rename a file that was written aside, once it is on the disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    rename(aside, path)


def rename(aside: Path, path: Path) -> None:
    """Rename a file or a folder whose content is on the disk, so that its name is there too when this returns."""
    os.replace(aside, path)
    with contextlib.suppress(OSError):  # not every file system of a network knows folders that are synced
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
