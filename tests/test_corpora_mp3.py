"""The length of MP3s by their frames: only where the bit rate varies and no header tells it."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio import AudioError, decode
from corpora.corpus import open_corpus
from corpora.mp3 import _first_frame, _frame, varying_length_s

pytestmark = pytest.mark.timeout(60)

RATE_HZ = 48_000


def encode(mode: str, rate_hz: int = RATE_HZ) -> bytes:
    """Two seconds of noise, and eight that are quiet."""
    random = np.random.default_rng(0)
    sound = np.concatenate([random.standard_normal(2 * rate_hz) * 0.3, random.standard_normal(8 * rate_hz) * 1e-3])
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode,
                             compression_level=0.5) as writer:
        writer.write(sound.astype(np.float32))
    return file.getvalue()


def without_tag(content: bytes) -> bytes:
    """The same without its first frame, which tells the length."""
    at = _first_frame(content, 0)
    assert at is not None
    frame = _frame(content, at)
    assert frame is not None and b"Xing" in content[at:at + frame[3]]
    return content[:at] + content[at + frame[3]:]


@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 24_000, 16_000])
def test_varying_rate_without_a_header_is_counted_frame_by_frame(rate_hz: int) -> None:
    content = encode("VARIABLE", rate_hz)
    assert varying_length_s(content) is None, "its header tells the length"
    assert varying_length_s(without_tag(content)) == pytest.approx(10, abs=0.2)
    tagged = b"ID3\x04\x00\x00\x00\x00\x02\x01" + b"\x00" * 257 + without_tag(content)
    assert varying_length_s(tagged) == varying_length_s(without_tag(content))


def test_half_a_clip_does_not_pass_for_the_whole(tmp_path: Path) -> None:
    content = without_tag(encode("VARIABLE"))
    announced_s = soundfile.info(io.BytesIO(content)).duration
    assert announced_s < 5, "libsndfile believes the loud beginning's rate"
    for source in (content, tmp_path / "clip.mp3"):
        if isinstance(source, Path):
            source.write_bytes(content)
        said = r"bit rate varies and no header tells its length: .* of 10\.\d+ s"
        with pytest.raises(AudioError, match=said) as error:
            decode(source)
        assert error.value.reason == "undecodable"
    assert len(decode(encode("VARIABLE"))) == pytest.approx(160_000, rel=0.01)


def test_constant_rate_and_other_bytes_are_left_alone(shared_data: Path) -> None:
    assert varying_length_s(encode("CONSTANT")) is None
    corpus = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")
    clips = [clip for _, _, clip in corpus.clips(("train", "dev", "test"))]
    assert len(clips) == 64 and all(varying_length_s(clip) is None for clip in clips if isinstance(clip, bytes))
    random = np.random.default_rng(0)
    for content in (b"", b"\xff" * 9000, b"ID3", random.bytes(50_000), b"ID3" + b"\xff" * 20):
        assert varying_length_s(content) is None
