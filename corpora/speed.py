"""Speed perturbation of log-mel frames: a clip at 0.9 or 1.1 of its speed, without access to its audio."""

import math
from functools import lru_cache

import numpy as np

SLOWEST, UNCHANGED, FASTEST = 9, 10, 11
"""Tenths of a clip's own speed (Ko, Peddinti, Povey and Khudanpur, Audio augmentation for speech recognition, 2015)."""

HIGHEST_HZ = 8000.0
"""Where the highest mel ends."""

_MEL_HZ = 200 / 3
"""Slaney's mel scale: hertz per mel up to 1 kHz; above, 27 mels per factor of 6.4."""
_MELS_TO_1_KHZ = 1000 / _MEL_HZ
_MELS_PER_E_FOLD = 27 / math.log(6.4)


def draw_tenths(num_clips: int, seed: int, epoch: int) -> np.ndarray:
    """The speed of each clip in an epoch, (num_clips,) tenths: 9, 10 or 11 with equal probability."""
    return np.random.default_rng([seed, epoch, 1]).integers(SLOWEST, FASTEST + 1, size=num_clips)


def frames_at(num_frames: np.ndarray, tenths: np.ndarray | int) -> np.ndarray:
    """Number of frames of clips at another speed."""
    return num_frames * UNCHANGED // tenths


def change_speed(frames: np.ndarray, tenths: int, out: np.ndarray) -> None:
    """Write (frames, mels) at another speed to `out`, (frames_at(frames, tenths), mels).

    Speed s multiplies each frequency by s and each time by 1 / s; values are interpolated between the two nearest mels
    and frames. Mels above the recorded range repeat the highest one.
    """
    warped = frames.astype(np.float32) @ mel_warp(frames.shape[1], tenths)
    at = np.arange(len(out)) * tenths
    before, share = at // UNCHANGED, (at % UNCHANGED / np.float32(UNCHANGED)).astype(np.float32)
    np.take(warped, before, axis=0, out=out, mode="clip")
    out += (np.take(warped, before + 1, axis=0, mode="clip") - out) * share[:, None]


@lru_cache(maxsize=8)
def mel_warp(num_mels: int, tenths: int) -> np.ndarray:
    """Matrix (mels, mels) that shifts the frequencies of frames by `tenths`, with mels from 0 to 8 kHz."""
    step = _hz_to_mel(HIGHEST_HZ) / (num_mels + 1)
    warp = np.zeros((num_mels, num_mels), dtype=np.float32)
    for mel, centre_hz in enumerate(mel_centres_hz(num_mels)):
        hz = centre_hz * UNCHANGED / tenths
        source = min(_hz_to_mel(hz) / step - 1, num_mels - 1)
        below = max(0, min(int(source), num_mels - 2))
        warp[below, mel], warp[below + 1, mel] = 1 - max(0.0, source - below), max(0.0, source - below)
    return warp


def mel_centres_hz(num_mels: int) -> np.ndarray:
    """The frequency at the middle of each mel, (mels,), with mels from 0 to 8 kHz."""
    step = _hz_to_mel(HIGHEST_HZ) / (num_mels + 1)
    return np.array([_mel_to_hz((mel + 1) * step) for mel in range(num_mels)])


def _hz_to_mel(hz: float) -> float:
    return hz / _MEL_HZ if hz < 1000 else _MELS_TO_1_KHZ + math.log(hz / 1000) * _MELS_PER_E_FOLD


def _mel_to_hz(mel: float) -> float:
    return mel * _MEL_HZ if mel < _MELS_TO_1_KHZ else 1000 * math.exp((mel - _MELS_TO_1_KHZ) / _MELS_PER_E_FOLD)
