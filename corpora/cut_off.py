"""Tell from a file's own header, or its last page, that the file is cut off.

libsndfile takes the length of what is left for the whole's. AMR, AAC's ADTS, AC-3 and MPEG streams say
no length at all.
"""

import os
import re
from collections.abc import Iterator
from typing import IO, Literal

_LARGE = 0xFFFFFFFF
"""Stands for a size that RF64 stores elsewhere, or that the writer of a stream did not know."""
_ENDLESS = 0x7FFF0000
"""Sizes from here on also come from writers that did not know the size."""
_PAGE_BYTES = 27 + 255 + 255 * 255
"""The largest page of Ogg."""


class CutOffError(ValueError):
    """A file that ends inside a part whose length it tells; how much is missing it does not tell."""


def share_left(file: IO[bytes], kind: str) -> float:
    """How much of the samples that the header of a file of libsndfile's format `kind` tells are in it; 1 too where the
    header was never finished, or tells nothing.

    Raises:
        CutOffError: an Ogg file ends inside a page.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if kind == "OGG":
        _check_last_page(file, num_bytes)
    size, start, most = _told(file, kind)
    left = num_bytes - start
    return left / size if 0 < left < size < most else 1.0


def _told(file: IO[bytes], kind: str) -> tuple[int, int, int]:
    """The bytes of samples that the header tells, where they start, and a size that no finished header tells."""
    if kind in ("WAV", "WAVEX", "RF64"):
        return _wav(file)
    if kind in ("AIFF", "SVX", "CAF"):
        file.seek(8 if kind == "CAF" else 12)
        width = 8 if kind == "CAF" else 4
        name = {"AIFF": b"SSND", "SVX": b"BODY", "CAF": b"data"}[kind]
        found = (part[1:] for part in _parts(file, width, 2 if width == 4 else 1) if part[0] == name)
        return (*next(found, (0, 0)), 1 << 63 if width == 8 else _ENDLESS)
    if kind == "W64":
        file.seek(40)
        while len(head := file.read(24)) == 24:
            size, start = int.from_bytes(head[16:], "little") - 24, file.tell()
            if head[:4] == b"data":
                return size, start, 1 << 63
            file.seek(min(start + max(0, size) + -size % 8, 1 << 62))
    if kind == "AU":
        order: Literal["big", "little"] = "little" if file.read(4) == b"dns." else "big"
        start, size = (int.from_bytes(file.read(4), order) for _ in range(2))
        return size, start, _ENDLESS
    if kind == "NIST":
        text = file.read(1024).decode("latin-1")
        counts = [re.search(rf"^{name} -i (\d+)", text, re.MULTILINE) for name in (
            "sample_count", "channel_count", "sample_n_bytes")]
        values = [int(count[1]) for count in counts if count]
        if len(values) == 3:
            return values[0] * values[1] * values[2], int(text[8:16].strip() or 1024), 1 << 63
    return 0, 0, 0


def _wav(file: IO[bytes]) -> tuple[int, int, int]:
    order: Literal["big", "little"] = "big" if file.read(12)[:4] == b"RIFX" else "little"
    large = 0
    for name, size, start in _parts(file, 4, 2, order):
        if name == b"data":
            return (large or size) if size == _LARGE else size, start, 1 << 63 if large else _ENDLESS
        if name == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
    return 0, 0, 0


def _parts(file: IO[bytes], width: int, even: int,
           order: Literal["big", "little"] = "big") -> Iterator[tuple[bytes, int, int]]:
    """Name, size and start of each chunk, from where the file stands."""
    while len(head := file.read(4 + width)) == 4 + width:
        size, start = int.from_bytes(head[4:], order), file.tell()
        yield head[:4], size, start
        if size >= 1 << 62:
            return
        file.seek(start + size + size % even)


def _check_last_page(file: IO[bytes], num_bytes: int) -> None:
    """A page without the mark of the last one is no fault: a recorder that was ended, or a stream, leaves none."""
    begin = max(0, num_bytes - _PAGE_BYTES)
    file.seek(begin)
    end = file.read()
    at = end.rfind(b"OggS\0")
    if at < 0:
        return
    num_segments = end[at + 26] if at + 26 < len(end) else 255
    segments = end[at + 27 : at + 27 + num_segments]
    if len(segments) < num_segments or at + 27 + num_segments + sum(segments) > len(end):
        raise CutOffError("it ends inside an Ogg page: it is cut off")
