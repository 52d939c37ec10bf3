"""Decode a clip of any format to 16 kHz mono."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from corpora.manifest import one_line
from corpora.mp3 import with_length

SAMPLE_RATE_HZ = 16_000
MIN_SAMPLES = SAMPLE_RATE_HZ * 20 // 1000
"""One window of the front end, 20 ms."""
MAX_DURATION_S = 1800.0
"""Half an hour: at 48 kHz in stereo 0.7 GB; longer sound is read in parts, by offset and duration."""
BLOCK_S = 60.0
"""Seconds that `decode_blocks` reads at once; what is not longer comes out as `decode` gives it, to the last bit."""
SILENT_PEAK = 1e-4
"""-80 dB of full scale, three steps of 16-bit sound: nothing louder means nothing was recorded."""
_SAMPLE_RATE_LIMITS_HZ = (4_000, 384_000)

_MAX_VALUES = 1800 * 48_000 * 2
"""Samples of all channels together: 0.7 GB. A header may say 1,024 channels."""
_MAX_SHORTFALL_S = 0.25
"""Real MP3s end up to 22 ms before what their header says; one that is cut off holds half a sentence."""
_LOUDEST = 2.0**31
"""Of full scale: 32-bit integers that nobody scaled. Energies of much louder sound overflow."""

Reason = Literal[
    "missing", "empty", "undecodable", "silent", "too_short", "too_long", "bad_samples", "bad_row", "duplicate"
]


class AudioError(ValueError):
    """A clip that cannot be used; `reason` is a key for counting."""

    def __init__(self, message: str, reason: Reason = "undecodable") -> None:
        super().__init__(one_line(message))
        self.reason: Reason = reason


def decode(
    source: str | Path | bytes | AudioError, offset_s: float = 0.0, duration_s: float | None = None
) -> npt.NDArray[np.float32]:
    """Decode a file, or a file's bytes, to 16 kHz mono, (num_samples,) in about [-1, 1].

    Channels are averaged. `duration_s` past the end reads to the end. An AudioError, which `Corpus.clips` gives for a
    clip that it does not have, is raised.

    Raises:
        AudioError: missing, empty, undecodable, silent, shorter than 20 ms, longer than half an hour, or samples that
            are not finite numbers.
    """
    if isinstance(source, AudioError):
        raise source
    name = "clip" if isinstance(source, bytes) else str(source)
    samples, rate_hz = _read(source, name, offset_s, duration_s)
    mono = _mono(samples, name)
    _check_heard(name, len(mono), _peak(mono), offset_s)
    mono = _resample(mono, rate_hz)
    _check_length(name, len(mono))
    return mono


def decode_blocks(
    source: str | Path | bytes, offset_s: float = 0.0, duration_s: float | None = None
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode sound of any length to 16 kHz mono, block by block; the blocks joined are what `decode` gives.

    Memory is that of a block, and no click is heard where two meet: the resampler's filter goes on across them.

    Raises:
        AudioError: as `decode`, but for the half hour. That all was silent or too short is told after the last block.
    """
    name = "clip" if isinstance(source, bytes) else str(source)
    num_read, num_given, peak = 0, 0, 0.0
    resampler: soxr.ResampleStream | None = None
    for samples, rate_hz, is_last in _read_blocks(source, name, offset_s, duration_s, BLOCK_S):
        mono = _mono(samples, name)
        num_read += len(mono)
        peak = max(peak, _peak(mono))
        if rate_hz != SAMPLE_RATE_HZ:
            resampler = resampler or soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
            mono = resampler.resample_chunk(mono, last=is_last)
        num_given += len(mono)
        yield mono
    _check_heard(name, num_read, peak, offset_s)
    _check_length(name, num_given)


def duration_of(source: str | Path, offset_s: float = 0.0, duration_s: float | None = None) -> float:
    """The seconds that `decode_blocks` will give, by the file's header.

    Raises:
        AudioError: missing, empty or undecodable.
    """
    with _opened(source, str(source)) as file:
        return _segment(file, str(source), offset_s, duration_s)[1] / int(file.samplerate)


@contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[soundfile.SoundFile]:
    """A sound file whose troubles are AudioErrors."""
    if isinstance(source, bytes):
        num_bytes = len(source)
    elif os.path.isfile(source):
        num_bytes = os.path.getsize(source)
    else:
        raise AudioError(f"{name}: there is no such file.", reason="missing")
    if num_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes). Drop it or get it again.", reason="empty")
    try:
        # As bytes, for soundfile takes no name that is not UTF-8.
        opened = _in_memory(source) if isinstance(source, bytes) else nullcontext(os.fsencode(source))
        with opened as name_or_descriptor, soundfile.SoundFile(name_or_descriptor, closefd=False) as file:
            if file.format != "MP3":
                yield file
                return
            with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as content:
                whole = with_length(content)
                with nullcontext(file) if whole is None else soundfile.SoundFile(whole) as told:
                    yield told
    # TypeError: soundfile takes ".raw" for headerless sound and asks for its rate.
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{name}: {num_bytes:,} bytes cannot be decoded ({getattr(error, 'error_string', error)}). Drop it or get "
            "it again."
        ) from error


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Bytes as a file descriptor. libsndfile reads it without Python, whose lock would have other threads wait."""
    is_linux = hasattr(os, "memfd_create")
    with open(os.memfd_create("clip"), "w+b") if is_linux else tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _read(
    source: str | Path | bytes, name: str, offset_s: float, duration_s: float | None
) -> tuple[npt.NDArray[np.float32], int]:
    """(num_samples, channels) at the file's own rate, and that rate."""
    [(samples, rate_hz, _)] = _read_blocks(source, name, offset_s, duration_s, block_s=None)
    return samples, rate_hz


def _read_blocks(
    source: str | Path | bytes, name: str, offset_s: float, duration_s: float | None, block_s: float | None
) -> Iterator[tuple[npt.NDArray[np.float32], int, bool]]:
    """(num_samples, channels) at the file's own rate, that rate, and whether it is the last block; without `block_s`
    all is one block."""
    with _opened(source, name) as file:
        start, num_samples = _segment(file, name, offset_s, duration_s)
        rate_hz, left, is_last = int(file.samplerate), num_samples, False
        most = num_samples if block_s is None else int(block_s * rate_hz)
        _check_fits(file, name, min(left, most))
        file.seek(start)
        while not is_last:
            wanted = min(left, most)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            left -= len(samples)
            is_last = left == 0 or len(samples) < wanted
            if is_last:
                _check_whole(name, num_samples - left, num_samples, rate_hz)
            yield samples, rate_hz, is_last


def _check_fits(file: soundfile.SoundFile, name: str, num_samples: int) -> None:
    """What is read at once."""
    if num_samples * file.channels > _MAX_VALUES:
        raise AudioError(
            f"{name}: has {num_samples:,} samples in {file.channels:,} channels; all channels together must have "
            f"{_MAX_VALUES:,} or less. Cut it.",
            reason="too_long",
        )
    if num_samples > MAX_DURATION_S * file.samplerate:
        length_s = num_samples / file.samplerate
        raise AudioError(
            f"{name}: is {length_s:,.0f} s; it must be {MAX_DURATION_S:,.0f} s or less. Cut it.", reason="too_long"
        )


def _check_whole(name: str, num_read: int, num_samples: int, rate_hz: int) -> None:
    if num_read < num_samples - _MAX_SHORTFALL_S * rate_hz:
        found_s, said_s = num_read / rate_hz, num_samples / rate_hz
        raise AudioError(f"{name}: ends after {found_s:.2f} of {said_s:.2f} s: it is cut off. Get it again.")


def _mono(samples: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    # The mean over a single channel would take a quarter of the time that its decoding takes. Overflow of the sum, and
    # samples that are not finite, are told by the peak.
    with np.errstate(over="ignore", invalid="ignore"):
        mono: npt.NDArray[np.float32] = (
            samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        )
    peak = _peak(mono)
    if not peak <= _LOUDEST:
        raise AudioError(
            f"{name}: holds samples that are no finite numbers up to {_LOUDEST:.0f} (peak is {peak}). Encode it again.",
            reason="bad_samples",
        )
    return mono


def _peak(mono: npt.NDArray[np.float32]) -> float:
    return float(max(mono.max(), -mono.min())) if len(mono) else 0.0


def _check_heard(name: str, num_samples: int, peak: float, offset_s: float) -> None:
    if num_samples == 0:
        raise AudioError(f"{name}: holds 0 samples from {offset_s} s on. Drop it.", reason="empty")
    if peak < SILENT_PEAK:
        raise AudioError(f"{name}: peak is {peak:.1e}; it must be {SILENT_PEAK} or more. Drop it.", reason="silent")


def _check_length(name: str, num_samples: int) -> None:
    if num_samples < MIN_SAMPLES:
        raise AudioError(
            f"{name}: is {1000 * num_samples / SAMPLE_RATE_HZ:.1f} ms; it must be 20 ms or more. Drop it.",
            reason="too_short",
        )


def _segment(file: soundfile.SoundFile, name: str, offset_s: float, duration_s: float | None) -> tuple[int, int]:
    """First sample and number of samples to read, at the file's own rate, within its limits."""
    lowest, highest = _SAMPLE_RATE_LIMITS_HZ
    if not lowest <= file.samplerate <= highest:
        raise AudioError(f"{name}: sample rate is {file.samplerate:,} Hz; it must be in [{lowest:,}, {highest:,}].")
    start = round(offset_s * file.samplerate)
    if start >= file.frames:
        at_s = file.frames / file.samplerate
        raise AudioError(f"{name}: ends at {at_s:.3f} s; the utterance starts at {offset_s} s.", reason="empty")
    num_samples = file.frames - start
    if duration_s is not None:
        num_samples = min(num_samples, max(1, round(duration_s * file.samplerate)))
    return start, num_samples


def _resample(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    resampled: npt.NDArray[np.float32] = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return resampled
