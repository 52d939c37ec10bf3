"""Cut long audio into segments to transcribe one by one: at pauses, or overlapping where there is none.

The networks were trained on single sentences, each normalised on its own. In a window over several speakers, quiet
ones are lost next to loud ones. Of the 342 words of 40 Common Voice clips a 15x5 gets 32 wrong clip by clip, 29 when
they are joined with pauses of half a second and cut here, and 50 in overlapping windows of 20 s.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpora.audio import SAMPLE_RATE_HZ

WHOLE_S = 30.0
"""Clips up to this length are never cut."""
MIN_SEGMENT_S = 2.0
"""As Common Voice's shortest sentences; less is too short for the statistics of the normalisation."""
MAX_SEGMENT_S = 20.0
"""As the longest training clips. If there is no pause for this long, the cut is at the quietest place."""
PAUSE_S = 0.4
"""Shortest pause between words; quiet within a word is shorter: the closure of a plosive lasts a tenth of a second."""
PAUSE_DB = 20.0
"""A pause is this far below the loudest 20 ms in the 2 s before it, and in the 2 s after it."""
DIP_DB = 12.0
"""A dip is shallower than a pause, or deep only compared with one side. It may be a noisy pause, a long silence or a
soft voice, so the segments overlap there."""
LOUD_WITHIN_S = 2.0
MARGIN_S = 1.0
"""How far each of two overlapping segments reaches into the other."""
_SILENCE_POWER = 1e-10


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a clip."""

    waveform: Tensor
    """16 kHz mono, (num_samples,)."""
    start: int
    """Network frames from the start of the clip."""
    is_joined: bool
    """Whether it overlaps the segment before by twice MARGIN_S, because it may not begin in a pause."""


@dataclass(frozen=True)
class _Cut:
    frame: int
    is_pause: bool


def cut(blocks: Iterable[npt.NDArray[np.float32]], frame_samples: int) -> Iterator[Segment]:
    """Cut 16 kHz mono audio that arrives in blocks; the segments do not depend on the blocks.

    `frame_samples` is the number of samples per frame of log-probabilities; segments start on these frames. Uses the
    memory of one block and one segment.
    """
    seconds = SAMPLE_RATE_HZ / frame_samples
    margin = round(MARGIN_S * seconds)
    ahead = round((MAX_SEGMENT_S + LOUD_WITHIN_S + PAUSE_S) * seconds)  # how far ahead the choice of a cut looks
    held = np.zeros(0, np.float32)
    origin = 0  # frame of the first sample in memory
    last = _Cut(0, True)  # where the unfinished segment begins

    def piece_until(end: int | None) -> Segment:
        start = last.frame if last.is_pause else max(0, last.frame - margin)
        samples = held[(start - origin) * frame_samples:None if end is None else (end - origin) * frame_samples]
        return Segment(waveform=torch.from_numpy(samples.copy()), start=start, is_joined=not last.is_pause)

    def cuts(is_end: bool) -> Iterator[Segment]:
        nonlocal held, origin, last
        while True:
            rest = held[(last.frame - origin) * frame_samples:]
            if not is_end and len(rest) <= WHOLE_S * SAMPLE_RATE_HZ:  # which is more than `ahead`
                return
            found = _next_cut(levels_db(rest[:ahead * frame_samples], frame_samples), seconds,
                              is_end and len(rest) <= ahead * frame_samples)
            if found is None:
                return
            following = _Cut(last.frame + found.frame, found.is_pause)
            yield piece_until(following.frame if found.is_pause else following.frame + margin)
            last = following
            kept = max(origin, last.frame - margin)
            held, origin = held[(kept - origin) * frame_samples:], kept

    for block in blocks:
        held = np.concatenate([held, block])
        yield from cuts(is_end=False)
    if last.frame > 0 or len(held) > WHOLE_S * SAMPLE_RATE_HZ:
        yield from cuts(is_end=True)
    yield piece_until(None)


def levels_db(samples: npt.NDArray[np.float32], frame_samples: int) -> npt.NDArray[np.float32]:
    """The power of each whole frame, in dB."""
    frames = samples[:len(samples) // frame_samples * frame_samples].reshape(-1, frame_samples)
    levels: npt.NDArray[np.float32] = 10 * np.log10(np.square(frames).mean(axis=1) + _SILENCE_POWER)
    return levels


def _next_cut(levels: npt.NDArray[np.float32], seconds: float, is_end: bool) -> _Cut | None:
    """Where a segment that begins with `levels` ends: at the first pause or dip, else where it is quietest, or nowhere.

    `seconds` is frames per second. At the end of the clip the last segment is no shorter than the others.
    """
    shortest, longest, within = (round(s * seconds) for s in (MIN_SEGMENT_S, MAX_SEGMENT_S, LOUD_WITHIN_S))
    limit = min(longest, len(levels) - shortest) if is_end else longest
    if limit <= shortest:
        return None
    quiet = _loudest(levels, math.ceil(PAUSE_S * seconds / 2), math.ceil(PAUSE_S * seconds / 2))
    before, after = _loudest(levels, within, 0), _loudest(levels, 0, within)
    depth_db = np.minimum(before, after) - quiet
    is_place = (depth_db > DIP_DB) | (np.maximum(before, after) - quiet > PAUSE_DB)
    places = np.flatnonzero(is_place[shortest:limit])
    if len(places):
        first = int(places[0])
        run = shortest + places[places - np.arange(len(places)) == first]  # the first run without a gap
        silent = run[depth_db[run] > PAUSE_DB]
        frames = silent if len(silent) else run
        return _Cut(int(frames[0] + frames[-1]) // 2, bool(len(silent)))
    if is_end and len(levels) <= longest:
        return None
    return _Cut(shortest + int(quiet[shortest:limit].argmin()), False)


def _loudest(levels: npt.NDArray[np.float32], before: int, after: int) -> npt.NDArray[np.float32]:
    """The greatest level from `before` frames before each frame to `after` frames after it."""
    padded = np.pad(levels, (before, after), constant_values=-np.inf)
    loudest: npt.NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1).max(axis=1)
    return loudest
