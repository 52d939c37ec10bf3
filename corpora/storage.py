"""Read files by path or URI, from a local disk or an object store."""

import io
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
from pyarrow import fs

Location = str | Path
"""A local path, or a URI such as s3://bucket/name, gs://bucket/name or file:///folder/name."""

_REQUEST_BYTES = 8 << 20
"""Bytes per request to an object store: a request takes 20 to 100 ms, however small."""


def is_uri(location: Location) -> bool:
    """Whether a location names its file system; a Path never does."""
    return isinstance(location, str) and "://" in location


def open_file(location: Location) -> IO[bytes]:
    """Open for reading and seeking, buffered.

    Raises:
        OSError: there is no such file, its store does not answer, or the URI's scheme is unknown.
    """
    if not is_uri(location):
        return Path(location).open("rb")
    try:
        file_system, path = fs.FileSystem.from_uri(location)
    except pa.ArrowException as error:
        raise OSError(str(error).partition("\n")[0]) from error
    return io.BufferedReader(cast(io.RawIOBase, file_system.open_input_file(path)), _REQUEST_BYTES)


def num_bytes_of(file: IO[bytes]) -> int:
    """The size of an open file, which is left at its start."""
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return num_bytes
