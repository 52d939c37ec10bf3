"""Determine the length of an MP3 from its frames if its header lacks it, and supply a header that has it.

libsndfile computes the length of an MP3 without a Xing, Info or VBRI header from its size and its first frame's bit
rate. That is right for a constant rate; for a variable one, half a clip may pass for the whole.

Source: ISO/IEC 11172-3, 2.4.1.3 and 2.4.2.3 (frame headers); ISO/IEC 13818-3 (lower sampling rates); the Xing header of
Xing Technology's encoders, as LAME writes and mpg123 reads it.
"""

import io
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO

_KBITS = {  # by version, layer III
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
_PROBED_AT = (0.0, 0.25, 0.5, 0.75)
"""Positions in a file, as shares of it, where bit rates are compared to see whether the rate is constant."""
_PROBED_FRAMES = 8

Frame = tuple[int, int]
"""Kilobits per second, bytes."""


def with_length(file: IO[bytes]) -> IO[bytes] | None:
    """The MP3 with a header that gives its length, if its bit rate varies and its own header does not.

    None for others. At a constant rate, a clip of a few seconds takes some tens of microseconds; otherwise all frames
    are counted, in the memory of one. The result reads from `file`.
    """
    num_bytes = file.seek(0, io.SEEK_END)
    start = _first_frame(file, _behind_id3(_read(file, 0, 10)))
    if start is None or any(tag in _read(file, start, 512) for tag in _LENGTH_TAGS):
        return None
    places = (_first_frame(file, start + int(share * (num_bytes - start))) for share in _PROBED_AT)
    rates = {kbits for place in places if place is not None
             for kbits, _ in islice(_frames(file, place), _PROBED_FRAMES)}
    if len(rates) < 2:
        return None
    header = _length_header(_read(file, start, 4), _count_frames(file, start))
    return io.BufferedReader(_Headed(header, file, start, num_bytes))


class _Headed(io.RawIOBase):
    """A header, followed by a file from a position on."""

    def __init__(self, header: bytes, file: IO[bytes], start: int, num_bytes: int) -> None:
        self._header, self._file, self._moved = header, file, len(header) - start
        self._at, self._size = 0, num_bytes + self._moved

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = (self._header[self._at : self._at + len(buffer)] if self._at < len(self._header)
                else _read(self._file, self._at - self._moved, len(buffer)))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _length_header(first: bytes, num_frames: int) -> bytes:
    """A silent frame like the first one, with the number of following frames in a Xing tag."""
    version, is_mono = first[1] >> 3 & 3, first[3] >> 6 == 3
    kbits = 9 if version == 3 else 8  # 128 and 64 kbit/s: room for the tag at any sample rate
    header = bytes([0xFF, first[1] | 1, kbits << 4 | first[2] & 0x0C, first[3]])  # without a checksum
    frame = _frame(header)
    assert frame is not None, "it is made of a frame's header"
    side_information = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return (header + bytes(side_information) + b"Xing" + struct.pack(">II", 1, num_frames)).ljust(frame[1], b"\0")


def _read(file: IO[bytes], at: int, num_bytes: int) -> bytes:
    file.seek(at)
    return file.read(num_bytes)


def _behind_id3(content: bytes) -> int:
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _first_frame(file: IO[bytes], at: int) -> int | None:
    """Where the first frame from a position on starts: at a header followed by two others."""
    for start, byte in enumerate(_read(file, at, 4096), start=at):
        if byte == 0xFF and len(list(islice(_frames(file, start), 3))) == 3:
            return start
    return None


def _count_frames(file: IO[bytes], start: int) -> int:
    """All frames from one on, skipping what is not a frame."""
    num_frames, at = 0, start
    while True:
        for _, num_bytes in _frames(file, at):
            num_frames, at = num_frames + 1, at + num_bytes
        found = _first_frame(file, at)
        if found is None:
            return num_frames
        at = found


def _frames(file: IO[bytes], at: int) -> Iterator[Frame]:
    """Consecutive frames from one on."""
    while frame := _frame(_read(file, at, 4)):
        yield frame
        at += frame[1]


def _frame(header: bytes) -> Frame | None:
    """The layer III frame with this four-byte header; None if it is not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, kbit_index = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate_index == 3 or not 0 < kbit_index < 15:
        return None
    kbits, rate_hz = _KBITS[3 if version == 3 else 2][kbit_index], _RATES_HZ[version][rate_index]
    return kbits, (144 if version == 3 else 72) * kbits * 1000 // rate_hz + (header[2] >> 1 & 1)
