"""How long an MP3 is by its frames, where its header does not say so.

libsndfile takes the length of an MP3 without a Xing, Info or VBRI header from its size and its first frame's bit rate.
That is right where the rate is constant; where it varies, half a clip may pass for the whole.

Source: ISO/IEC 11172-3, 2.4.1.3 and 2.4.2.3 (frame headers); ISO/IEC 13818-3 (lower sampling rates).
"""

from collections.abc import Iterator
from itertools import islice

_KBITS = {  # by version, layer III
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
_PROBED_AT = (0.0, 0.25, 0.5, 0.75)
"""Places of a file, as shares of it, at which frames have one bit rate where it is constant."""
_PROBED_FRAMES = 8

Frame = tuple[int, int, int, int]
"""Kilobits a second, sampling rate, samples, bytes."""


def varying_length_s(content: bytes) -> float | None:
    """Seconds by the headers of all frames, of an MP3 whose bit rate varies and whose header tells no length.

    None for others. A clip of a few seconds takes some tens of microseconds where the rate is constant.
    """
    start = _first_frame(content, _behind_id3(content))
    if start is None or any(tag in content[start:start + 512] for tag in _LENGTH_TAGS):
        return None
    places = (_first_frame(content, start + int(share * (len(content) - start))) for share in _PROBED_AT)
    rates = {frame[0] for place in places if place is not None
             for frame in islice(_frames(content, place), _PROBED_FRAMES)}
    return sum(samples / rate_hz for _, rate_hz, samples, _ in _frames(content, start)) if len(rates) > 1 else None


def _behind_id3(content: bytes) -> int:
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _first_frame(content: bytes, at: int) -> int | None:
    """Where a frame begins, the first one from a place on: at a header that two others follow."""
    for start in range(at, min(len(content), at + 4096)):
        if content[start] == 0xFF and len(list(islice(_frames(content, start), 3))) == 3:
            return start
    return None


def _frames(content: bytes, at: int) -> Iterator[Frame]:
    """The frames from one on, as long as one follows another."""
    while frame := _frame(content, at):
        yield frame
        at += frame[3]


def _frame(content: bytes, at: int) -> Frame | None:
    """The layer III frame at a place; None where there is none."""
    if at + 4 > len(content) or content[at] != 0xFF or content[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate_index, kbit_index = content[at + 1] >> 3 & 3, content[at + 2] >> 2 & 3, content[at + 2] >> 4
    if version == 1 or rate_index == 3 or not 0 < kbit_index < 15:
        return None
    kbits, rate_hz = _KBITS[3 if version == 3 else 2][kbit_index], _RATES_HZ[version][rate_index]
    samples = 1152 if version == 3 else 576
    return kbits, rate_hz, samples, samples // 8 * kbits * 1000 // rate_hz + (content[at + 2] >> 1 & 1)
