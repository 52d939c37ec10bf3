"""Long sound is cut in pauses, or with an overlap."""

import numpy as np
import numpy.typing as npt
import pytest

from models.pieces import Piece, cut

pytestmark = pytest.mark.timeout(60)

FRAME = 320
RATE_HZ = 16_000
MARGIN = 50


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE_HZ)).astype(np.float32)


def pieces_of(sound: npt.NDArray[np.float32], block: int = 10**9) -> list[Piece]:
    return list(cut((sound[i:i + block] for i in range(0, len(sound), block)), FRAME))


def is_covered(sound: npt.NDArray[np.float32], pieces: list[Piece]) -> bool:
    """Whether the pieces in their places are the sound, every sample."""
    rebuilt = np.full(len(sound), np.nan, np.float32)
    for piece in pieces:
        rebuilt[piece.start * FRAME:piece.start * FRAME + len(piece.waveform)] = piece.waveform.numpy()
    return np.array_equal(rebuilt, sound)


def test_half_a_minute_is_whole() -> None:
    sound = np.concatenate([noise(14.5), noise(1, 1e-4), noise(14.5)])
    [piece] = pieces_of(sound)
    assert (piece.start, piece.is_joined) == (0, False) and np.array_equal(piece.waveform.numpy(), sound)


def test_pauses_are_cut_in_their_middle_and_pieces_do_not_overlap() -> None:
    speech_s, pause_s = [5.0, 1.0, 7.0, 3.0, 12.0, 4.0], 0.6
    sound = np.concatenate([part for seconds in speech_s for part in (noise(seconds), noise(pause_s, 1e-3))])
    pieces = pieces_of(sound)
    assert is_covered(sound, pieces) and sum(len(piece.waveform) for piece in pieces) == len(sound)
    assert not any(piece.is_joined for piece in pieces)
    ends_s = np.cumsum(np.array(speech_s) + pause_s)
    # The second of speech is too short for a piece of its own.
    np.testing.assert_allclose([piece.start / 50 for piece in pieces[1:]], ends_s[[0, 2, 3, 4]] - 0.3, atol=0.05)


def test_sound_without_a_pause_is_cut_where_it_is_quietest_with_an_overlap() -> None:
    sound = noise(60)
    sound[12 * RATE_HZ:round(12.5 * RATE_HZ)] *= 0.3  # 10 dB: no pause
    pieces = pieces_of(sound)
    assert is_covered(sound, pieces)
    assert [piece.is_joined for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert 12 < pieces[1].start / 50 + 1 < 12.5
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert before.start + len(before.waveform) // FRAME - after.start >= 2 * MARGIN
    assert max(len(piece.waveform) for piece in pieces) <= 22 * RATE_HZ


def test_quiet_speaker_beside_a_loud_one_is_no_pause() -> None:
    sound = np.concatenate([part for i in range(6) for part in (noise(3, 0.3, i), noise(4, 0.005, i))])
    assert [piece.is_joined for piece in pieces_of(sound)][1:].count(False) == 0


@pytest.mark.parametrize("block", [4_000, 77_777, 960_000])
def test_pieces_do_not_depend_on_the_blocks(block: int) -> None:
    generator = np.random.default_rng(1)
    sound = np.concatenate([noise(seconds, level, i) for i, (seconds, level) in enumerate(
        zip(generator.uniform(0.2, 9, 40), generator.choice([0.1, 0.03, 1e-3, 0], 40), strict=True))])
    whole, blocked = pieces_of(sound), pieces_of(sound, block)
    assert is_covered(sound, whole)
    assert {piece.is_joined for piece in whole} == {True, False}
    assert [(piece.start, piece.is_joined, len(piece.waveform)) for piece in whole] == [
        (piece.start, piece.is_joined, len(piece.waveform)) for piece in blocked]


@pytest.mark.parametrize("level", [0.0, 1e-3])
def test_long_silence_is_cut_off_from_the_speech_beside_it(level: float) -> None:
    sound = np.concatenate([noise(5), noise(90, level), noise(5)])
    pieces = pieces_of(sound)
    assert is_covered(sound, pieces) and max(len(piece.waveform) for piece in pieces) <= 22 * RATE_HZ
    seconds = [(piece.start / 50, piece.start / 50 + len(piece.waveform) / RATE_HZ) for piece in pieces]
    assert max(end for start, end in seconds if start < 5) < 7.5, "what holds the speech holds little silence"
    assert min(start for start, end in seconds if end > 95) > 92.5
