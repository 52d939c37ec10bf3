"""MP3s of varying bit rate are heard to their end, whether or not a header tells how long they are."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio import decode, decode_blocks, duration_of
from corpora.corpus import open_corpus
from corpora.mp3 import _first_frame, _frame, with_length

pytestmark = pytest.mark.timeout(60)

RATE_HZ = 48_000


def encode(mode: str, rate_hz: int = RATE_HZ, channels: int = 1) -> bytes:
    """Two seconds of noise, and eight that are quiet."""
    random = np.random.default_rng(0)
    sound = random.standard_normal((10 * rate_hz, channels)) * 0.3
    sound[2 * rate_hz :] *= 0.003
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, channels, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode,
                             compression_level=0.5) as writer:
        writer.write(sound.astype(np.float32))
    return file.getvalue()


def without_tag(content: bytes) -> bytes:
    """The same without its first frame, which tells the length."""
    at = _first_frame(io.BytesIO(content), 0)
    assert at is not None
    frame = _frame(content[at : at + 4])
    assert frame is not None and b"Xing" in content[at : at + frame[1]]
    return content[:at] + content[at + frame[1] :]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [48_000, 32_000, 24_000, 16_000, 12_000, 8_000])
def test_varying_rate_without_a_header_sounds_as_with_one(rate_hz: int, channels: int) -> None:
    content = encode("VARIABLE", rate_hz, channels)
    assert with_length(io.BytesIO(content)) is None, "its header tells the length"
    bare = without_tag(content)
    assert soundfile.info(io.BytesIO(bare)).duration < 7, "libsndfile believes the loud beginning's rate"
    whole, found = decode(content), decode(bare)
    # The header's also tells how many samples the encoder put before the sound: a frame is heard earlier without.
    before = len(found) - len(whole)
    assert 0 < before < 1_500
    delay = max(range(before + 1), key=lambda lag: float(whole[:30_000] @ found[lag : lag + 30_000]))
    np.testing.assert_allclose(found[delay + 500 : delay + 150_000], whole[500:150_000], atol=1e-5)
    padded = b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257) + bare + b"TAG" + bytes(125)
    assert np.array_equal(decode(padded), found)


def test_parts_and_blocks_of_a_varying_rate_are_those_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp3"
    path.write_bytes(without_tag(encode("VARIABLE")))
    whole = decode(path)
    assert duration_of(path) == pytest.approx(10, abs=0.03) and len(whole) == pytest.approx(160_000, rel=0.003)
    assert np.array_equal(np.concatenate(list(decode_blocks(path))), whole)
    for offset_s, duration_s in ((0.0, 10.0), (6.0, 2.0)):  # as a manifest names them
        part = decode(path, offset_s, duration_s)
        assert len(part) == 16_000 * duration_s
        start = round(16_000 * offset_s)
        np.testing.assert_allclose(part[200:-200], whole[start : start + len(part)][200:-200], atol=1e-5)
        assert np.array_equal(np.concatenate(list(decode_blocks(path, offset_s, duration_s))), part)


def test_sound_behind_what_is_no_frame_is_counted() -> None:
    bare = without_tag(encode("VARIABLE"))
    assert len(decode(bare[:60_000] + bytes(600) + bare[60_000:])) == len(decode(bare))


def test_hours_of_a_varying_rate_are_counted_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.mp3"
    path.write_bytes(without_tag(encode("VARIABLE")) * 40)
    tracemalloc.start()
    with path.open("rb") as file:
        assert with_length(file) is not None
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 1 << 20 < path.stat().st_size // 2
    assert duration_of(path) == pytest.approx(400, rel=0.01)


def test_constant_rate_and_other_bytes_are_left_alone(shared_data: Path) -> None:
    assert with_length(io.BytesIO(encode("CONSTANT"))) is None
    corpus = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")
    clips = [clip for _, _, clip in corpus.clips(("train", "dev", "test"))]
    assert len(clips) == 64 and all(
        isinstance(clip, bytes) and with_length(io.BytesIO(clip)) is None for clip in clips)
    random = np.random.default_rng(0)
    for content in (b"", b"\xff" * 9000, b"ID3", random.bytes(50_000), b"ID3" + b"\xff" * 20):
        assert with_length(io.BytesIO(content)) is None
