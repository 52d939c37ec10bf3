"""Decode a clip of any format to 16 kHz mono."""

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from corpora.manifest import one_line

SAMPLE_RATE_HZ = 16_000
MIN_SAMPLES = SAMPLE_RATE_HZ * 20 // 1000
"""One window of the front end, 20 ms."""
MAX_DURATION_S = 1800.0
"""Half an hour: at 48 kHz in stereo 0.7 GB; longer sound is read in parts, by offset and duration."""
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
    # The mean over a single channel would take a quarter of the time that its decoding takes. Overflow of the sum, and
    # samples that are not finite, are told below by the peak.
    with np.errstate(over="ignore", invalid="ignore"):
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    peak = float(max(mono.max(), -mono.min()))
    if not peak <= _LOUDEST:
        raise AudioError(
            f"{name}: holds samples that are no finite numbers up to {_LOUDEST:.0f} (peak is {peak}). Encode it again.",
            reason="bad_samples",
        )
    if peak < SILENT_PEAK:
        raise AudioError(f"{name}: peak is {peak:.1e}; it must be {SILENT_PEAK} or more. Drop it.", reason="silent")
    mono = _resample(mono, rate_hz)
    if len(mono) < MIN_SAMPLES:
        raise AudioError(
            f"{name}: is {1000 * len(mono) / SAMPLE_RATE_HZ:.1f} ms; it must be 20 ms or more. Drop it.",
            reason="too_short",
        )
    return mono


def _read(
    source: str | Path | bytes, name: str, offset_s: float, duration_s: float | None
) -> tuple[npt.NDArray[np.float32], int]:
    """Read (num_samples, channels) at the file's own rate."""
    if isinstance(source, bytes):
        num_bytes = len(source)
    elif os.path.isfile(source):
        num_bytes = os.path.getsize(source)
    else:
        raise AudioError(f"{name}: there is no such file.", reason="missing")
    if num_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes). Drop it or get it again.", reason="empty")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            start, num_samples = _segment(file, name, offset_s, duration_s)
            file.seek(start)
            samples: npt.NDArray[np.float32] = file.read(num_samples, dtype="float32", always_2d=True)
            rate_hz = int(file.samplerate)
    # TypeError: soundfile takes ".raw" for headerless sound and asks for its rate.
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{name}: {num_bytes:,} bytes cannot be decoded ({error}). Drop it or get it again."
        ) from error
    if len(samples) < num_samples - _MAX_SHORTFALL_S * rate_hz:
        found_s, said_s = len(samples) / rate_hz, num_samples / rate_hz
        raise AudioError(f"{name}: ends after {found_s:.2f} of {said_s:.2f} s: it is cut off. Get it again.")
    if len(samples) == 0:
        raise AudioError(f"{name}: holds 0 samples from {offset_s} s on. Drop it.", reason="empty")
    return samples, rate_hz


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
    return start, num_samples


def _resample(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    resampled: npt.NDArray[np.float32] = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return resampled
