"""Long sound is cut in pauses, or with an overlap."""

import numpy as np
import numpy.typing as npt
import pytest

from models.segmentation import Segment, cut

pytestmark = pytest.mark.timeout(60)

FRAME = 320
RATE_HZ = 16_000
MARGIN = 50


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE_HZ)).astype(np.float32)


def segments_of(sound: npt.NDArray[np.float32], block: int = 10**9) -> list[Segment]:
    return list(cut((sound[i:i + block] for i in range(0, len(sound), block)), FRAME))


def is_covered(sound: npt.NDArray[np.float32], segments: list[Segment]) -> bool:
    """Whether the segments in their places are the sound, every sample."""
    rebuilt = np.full(len(sound), np.nan, np.float32)
    for segment in segments:
        rebuilt[segment.start * FRAME:segment.start * FRAME + len(segment.waveform)] = segment.waveform.numpy()
    return np.array_equal(rebuilt, sound)


def test_half_a_minute_is_whole() -> None:
    sound = np.concatenate([noise(14.5), noise(1, 1e-4), noise(14.5)])
    [segment] = segments_of(sound)
    assert (segment.start, segment.is_joined) == (0, False) and np.array_equal(segment.waveform.numpy(), sound)


def test_pauses_are_cut_in_their_middle_and_pieces_do_not_overlap() -> None:
    speech_s, pause_s = [5.0, 1.0, 7.0, 3.0, 12.0, 4.0], 0.6
    sound = np.concatenate([part for seconds in speech_s for part in (noise(seconds), noise(pause_s, 1e-3))])
    segments = segments_of(sound)
    assert is_covered(sound, segments) and sum(len(segment.waveform) for segment in segments) == len(sound)
    assert not any(segment.is_joined for segment in segments)
    ends_s = np.cumsum(np.array(speech_s) + pause_s)
    # The second of speech is too short for a segment of its own.
    np.testing.assert_allclose([segment.start / 50 for segment in segments[1:]], ends_s[[0, 2, 3, 4]] - 0.3, atol=0.05)


def test_sound_without_a_pause_is_cut_where_it_is_quietest_with_an_overlap() -> None:
    sound = noise(60)
    sound[12 * RATE_HZ:round(12.5 * RATE_HZ)] *= 0.3  # 10 dB: no pause
    segments = segments_of(sound)
    assert is_covered(sound, segments)
    assert [segment.is_joined for segment in segments] == [False] + [True] * (len(segments) - 1)
    assert 12 < segments[1].start / 50 + 1 < 12.5
    for before, after in zip(segments, segments[1:], strict=False):
        assert before.start + len(before.waveform) // FRAME - after.start >= 2 * MARGIN
    assert max(len(segment.waveform) for segment in segments) <= 22 * RATE_HZ


def test_quiet_speaker_beside_a_loud_one_is_no_pause() -> None:
    sound = np.concatenate([part for i in range(6) for part in (noise(3, 0.3, i), noise(4, 0.005, i))])
    assert [segment.is_joined for segment in segments_of(sound)][1:].count(False) == 0


@pytest.mark.parametrize("block", [4_000, 77_777, 960_000])
def test_pieces_do_not_depend_on_the_blocks(block: int) -> None:
    generator = np.random.default_rng(1)
    sound = np.concatenate([noise(seconds, level, i) for i, (seconds, level) in enumerate(
        zip(generator.uniform(0.2, 9, 40), generator.choice([0.1, 0.03, 1e-3, 0], 40), strict=True))])
    whole, blocked = segments_of(sound), segments_of(sound, block)
    assert is_covered(sound, whole)
    assert {segment.is_joined for segment in whole} == {True, False}
    assert [(segment.start, segment.is_joined, len(segment.waveform)) for segment in whole] == [
        (segment.start, segment.is_joined, len(segment.waveform)) for segment in blocked]


@pytest.mark.parametrize("level", [0.0, 1e-3])
def test_long_silence_is_cut_off_from_the_speech_beside_it(level: float) -> None:
    sound = np.concatenate([noise(5), noise(90, level), noise(5)])
    segments = segments_of(sound)
    assert is_covered(sound, segments) and max(len(segment.waveform) for segment in segments) <= 22 * RATE_HZ
    seconds = [(segment.start / 50, segment.start / 50 + len(segment.waveform) / RATE_HZ) for segment in segments]
    assert max(end for start, end in seconds if start < 5) < 7.5, "what holds the speech holds little silence"
    assert min(start for start, end in seconds if end > 95) > 92.5
