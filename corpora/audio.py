"""Decode a clip of any format to 16 kHz mono."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from corpora.ffmpeg import NoSoundError
from corpora.manifest import one_line
from corpora.sound import Sound, is_apple_double, open_sound

SAMPLE_RATE_HZ = 16_000
MIN_SAMPLES = SAMPLE_RATE_HZ * 20 // 1000
"""One window of the front end, 20 ms."""
MAX_DURATION_S = 1800.0
"""Half an hour, 0.7 GB at 48 kHz in stereo; longer audio is read in parts, by offset and duration."""
BLOCK_S = 60.0
"""Seconds that `decode_blocks` reads at once; up to this length its result equals `decode`'s to the last bit."""
SILENT_PEAK = 1e-4
"""-80 dB of full scale, three steps of 16-bit audio; if nothing is louder, nothing was recorded."""
_SAMPLE_RATE_LIMITS_HZ = (4_000, 384_000)

_MAX_VALUES = 1800 * 48_000 * 2
"""Samples of all channels together, 0.7 GB; a header may claim 1,024 channels."""
_MAX_SHORTFALL_S = 0.25
"""Real MP3s end up to 22 ms before their header's length; a truncated one lacks half a sentence."""
_LOUDEST = 2.0**31
"""Relative to full scale: unscaled 32-bit integers. The energies of much louder audio overflow."""

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

    Channels are averaged. A `duration_s` past the end reads to the end. If `source` is an AudioError, as
    `Corpus.clips` yields for a missing clip, it is raised.

    Raises:
        AudioError: missing, empty, undecodable, silent, shorter than 20 ms, longer than half an hour, or with samples
            that are not finite.
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
    """Decode audio of any length to 16 kHz mono, block by block; joined, the blocks equal what `decode` returns.

    Uses the memory of one block. There are no clicks between blocks: the resampler's filter runs across them.

    Raises:
        AudioError: as `decode`, but without the limit of half an hour. Audio that is silent or too short is reported
            after the last block.
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
    """The seconds that `decode_blocks` will yield, from the file's header; an estimate if the header does not say.

    Raises:
        AudioError: missing, empty or undecodable.
    """
    with _opened(source, str(source)) as sound:
        _, num_samples = _segment(sound, str(source), offset_s, duration_s)
        if num_samples is not None:
            return num_samples / sound.samplerate
        return max(0.0, sound.length_s - offset_s)


@contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[Sound]:
    """Open a file with libsndfile, or FFmpeg if that cannot read it or finds it empty; failures are AudioErrors."""
    if isinstance(source, bytes):
        num_bytes = len(source)
    elif os.path.isfile(source):
        num_bytes = os.path.getsize(source)
    else:
        raise AudioError(f"{name}: there is no such file.", reason="missing")
    if num_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes). Drop it or download it again.", reason="empty")
    try:
        with ExitStack() as stack:
            yield open_sound(source, stack)
    except (soundfile.SoundFileError, NoSoundError, RuntimeError) as error:
        raise AudioError(_why_undecodable(source, name, num_bytes, error)) from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error}). Check its permissions.") from error


def _why_undecodable(source: str | Path | bytes, name: str, num_bytes: int, error: Exception) -> str:
    if is_apple_double(source):
        return f"{name}: is not audio, but macOS's metadata of the file of this name without ._. Drop it."
    why = getattr(error, "error_string", error)
    return (f"{name}: {num_bytes:,} bytes cannot be decoded ({why}). Drop it, download it again, or convert it: "
            "ffmpeg -i IN -ac 1 OUT.wav (headerless audio needs -f and -ar before -i).")


def _read(
    source: str | Path | bytes, name: str, offset_s: float, duration_s: float | None
) -> tuple[npt.NDArray[np.float32], int]:
    """(num_samples, channels) at the file's own sample rate, and that rate."""
    blocks = list(_read_blocks(source, name, offset_s, duration_s, block_s=None))
    samples = blocks[0][0] if len(blocks) == 1 else np.concatenate([block for block, _, _ in blocks])
    return samples, blocks[0][1]


def _read_blocks(
    source: str | Path | bytes, name: str, offset_s: float, duration_s: float | None, block_s: float | None
) -> Iterator[tuple[npt.NDArray[np.float32], int, bool]]:
    """(num_samples, channels) at the file's own sample rate, that rate, and whether it is the last block.

    Without `block_s` there is one block if the file gives its length; the limits on memory hold in any case.
    """
    with _opened(source, name) as sound:
        start, num_samples = _segment(sound, name, offset_s, duration_s)
        rate_hz = sound.samplerate
        most = int((block_s or BLOCK_S) * rate_hz) if block_s or num_samples is None else num_samples
        _check_fits(sound, name, most if num_samples is None else min(num_samples, most))
        if start:
            sound.skip(start)
        num_read, is_last = 0, False
        while not is_last:
            wanted = most if num_samples is None else min(num_samples - num_read, most)
            samples = sound.read(wanted)
            num_read += len(samples)
            is_last = num_read == num_samples or len(samples) < wanted
            if is_last and sound.frames is not None and num_samples is not None:
                _check_whole(name, num_read, num_samples, rate_hz)
            if is_last and sound.lost_s > _MAX_SHORTFALL_S:
                raise AudioError(f"{name}: {sound.lost_s:.2f} s of it are damaged and cannot be decoded. Get it again.")
            if block_s is None:
                _check_fits(sound, name, num_read)
            yield samples, rate_hz, is_last


def _check_fits(file: Sound, name: str, num_samples: int) -> None:
    """Check the limits on what is in memory at once."""
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
        raise AudioError(f"{name}: ends after {found_s:.2f} of {said_s:.2f} s: it is cut off. Download it again.")


def _mono(samples: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    # The mean over a single channel would take a quarter of the decoding time. The peak shows overflow of the sum and
    # samples that are not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        mono: npt.NDArray[np.float32] = (
            samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        )
    peak = _peak(mono)
    if not peak <= _LOUDEST:
        raise AudioError(
            f"{name}: holds samples that are not finite or above {_LOUDEST:.0f} (peak is {peak}). Encode it again.",
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


def _segment(sound: Sound, name: str, offset_s: float, duration_s: float | None) -> tuple[int, int | None]:
    """First sample and number of samples to read, at the file's own rate and within it; None reads to the end of a file
    that does not give its length."""
    lowest, highest = _SAMPLE_RATE_LIMITS_HZ
    if not lowest <= sound.samplerate <= highest:
        raise AudioError(f"{name}: sample rate is {sound.samplerate:,} Hz; it must be in [{lowest:,}, {highest:,}].")
    start = round(offset_s * sound.samplerate)
    wanted = None if duration_s is None else max(1, round(duration_s * sound.samplerate))
    if sound.frames is None:
        return start, wanted
    if start >= sound.frames:
        at_s = sound.frames / sound.samplerate
        raise AudioError(f"{name}: ends at {at_s:.3f} s; the utterance starts at {offset_s} s.", reason="empty")
    left = sound.frames - start
    return start, left if wanted is None else min(left, wanted)


def _resample(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    resampled: npt.NDArray[np.float32] = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return resampled
