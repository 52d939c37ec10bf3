"""Keys of files' content, computed once and remembered by each file's metadata.

A file is read again when its path, device, inode, size, mtime or ctime (in nanoseconds) differs. Nobody can set a
ctime, so files that are written, replaced, or restored with their old date are noticed. Files changed in the last two
seconds are not remembered, because file system clocks are coarse. The key of a file above 1 GiB covers its size and 256
pieces spread over it, unless all of it is asked for.
"""

import hashlib
import os
import stat
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from files.atomic import write_shared

_READERS = 8
"""Files read at once; a disk, and more so shared storage, is slow to answer a single request."""
_WHOLE_BYTES = 1 << 30
_PIECES, _PIECE_BYTES = 256, 1 << 16
_SETTLED_S = 2.0
"""The resolution of FAT's clock, the coarsest."""
_SAID_BYTES = 10 << 30
"""Reading more takes a minute or longer, so a line says so."""
_KEY_BYTES = 16
_CHUNK_BYTES = 1 << 20
_VERSION = b"cuarzo contents\1"

MISSING = b""
"""The key of anything that is not a regular file or cannot be read."""


def content_keys(paths: Sequence[str], memory: Path | None = None, *, is_whole: bool = False) -> list[bytes]:
    """A key of each file's content; equal for a copy, whatever its name and dates.

    `memory` is a file that keeps keys between calls; without it, or if it cannot be written, everything is read.
    """
    known = _recall(memory)
    states = [_state_of(path) for path in paths]
    signatures = [_signature(path, state, is_whole) if state else b""
                  for path, state in zip(paths, states, strict=True)]
    left = [i for i, signature in enumerate(signatures) if signature and signature not in known]
    num_bytes = sum(state.st_size for i in left if (state := states[i]) is not None)
    if num_bytes > _SAID_BYTES:
        print(f"reading {len(left):,} files, {num_bytes / 1e9:,.0f} GB, to identify their content; next time only "
              "changed files are read", file=sys.stderr, flush=True)
    began = time.time()
    with ThreadPoolExecutor(_READERS) as pool:
        read = dict(zip(left, pool.map(lambda i: _key_of(paths[i], is_whole), left), strict=True))
    keys = [read[i] if i in read else known.get(signature, MISSING) for i, signature in enumerate(signatures)]
    if memory is not None and read:
        kept = {signature: key for path, signature, state, key in zip(paths, signatures, states, keys, strict=True)
                if state and key and (signature in known or _is_settled(path, state, signature, began, is_whole))}
        _remember(memory, kept)
    return keys


def content_key(file: IO[bytes]) -> bytes:
    """The key of all content of an open file of any size."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()[:_KEY_BYTES]


def _state_of(path: str) -> os.stat_result | None:
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def _signature(path: str, state: os.stat_result, is_whole: bool) -> bytes:
    facts = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns, is_whole)
    return hashlib.blake2b(os.fsencode(f"{path}\0{facts}"), digest_size=_KEY_BYTES).digest()


def _is_settled(path: str, state: os.stat_result, signature: bytes, began: float, is_whole: bool) -> bool:
    """Whether a file last changed well before it was read."""
    if max(state.st_mtime, state.st_ctime) >= began - _SETTLED_S:
        return False
    now = _state_of(path)
    return now is not None and _signature(path, now, is_whole) == signature


def _key_of(path: str, is_whole: bool) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if is_whole or size <= _WHOLE_BYTES:
                return content_key(file)
            digest = hashlib.sha256(f"{size}\n".encode())
            for piece in range(_PIECES):
                file.seek((size - _PIECE_BYTES) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    except OSError:
        return MISSING
    return digest.digest()[:_KEY_BYTES]


def _recall(memory: Path | None) -> dict[bytes, bytes]:
    """Signatures and keys; none if the file is missing or not ours."""
    try:
        content = memory.read_bytes() if memory else b""
    except OSError:
        return {}
    entries, rest = divmod(len(content) - len(_VERSION), 2 * _KEY_BYTES)
    if not content.startswith(_VERSION) or rest:
        return {}
    starts = range(len(_VERSION), len(_VERSION) + entries * 2 * _KEY_BYTES, 2 * _KEY_BYTES)
    return {content[i : i + _KEY_BYTES]: content[i + _KEY_BYTES : i + 2 * _KEY_BYTES] for i in starts}


def _remember(memory: Path, known: dict[bytes, bytes]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_shared(memory, lambda file: file.write(_VERSION + b"".join(a + b for a, b in known.items())))
    except OSError:
        return  # they are only computed again
