"""What libsndfile does not read is heard as FFmpeg hears it, from a file and from bytes, in part and in blocks."""

import io
import os
import struct
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from corpora.audio import AudioError, decode, decode_blocks, duration_of

pytestmark = pytest.mark.timeout(60)

DURATION_S = 3.0


def chirp(rate_hz: int) -> npt.NDArray[np.float32]:
    """From 200 Hz up, so that no two places sound alike."""
    t = np.arange(round(rate_hz * DURATION_S)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


def muxed(format: str, codec: str, rate_hz: int, layout: str = "mono") -> bytes:
    """The chirp in a container of FFmpeg's."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        channels = np.stack([chirp(rate_hz)] * (2 if layout == "stereo" else 1))
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        sizes = stream.codec_context.frame_size or 1024
        for part in av.AudioResampler(stream.format, layout, rate_hz, frame_size=sizes).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def unfinished_wav(subtype: str = "PCM_16") -> bytes:
    """As a recorder leaves it that dies: the header says that nothing follows."""
    file = io.BytesIO()
    soundfile.write(file, chirp(8_000), 8_000, format="WAV", subtype=subtype)
    content = bytearray(file.getvalue())
    data = content.index(b"data")
    content[4:8], content[data + 4 : data + 8] = struct.pack("<I", 36), bytes(4)
    return bytes(content)


@pytest.mark.parametrize(("format", "codec", "rate_hz"), [
    ("ipod", "aac", 44_100), ("ipod", "alac", 44_100), ("adts", "aac", 16_000), ("webm", "libopus", 48_000),
    ("matroska", "flac", 16_000), ("3gp", "libopencore_amrnb", 8_000), ("amr", "libopencore_amrnb", 8_000),
    ("mpegts", "aac", 48_000), ("wav", "g722", 16_000), ("wv", "wavpack", 16_000),
])
def test_what_ffmpeg_reads_is_heard_whole_in_part_and_in_blocks(
        tmp_path: Path, format: str, codec: str, rate_hz: int) -> None:
    clip = muxed(format, codec, rate_hz)
    path = tmp_path / "clip"
    path.write_bytes(clip)
    whole = decode(clip)
    assert len(whole) == pytest.approx(DURATION_S * 16_000, rel=0.03)
    assert np.sqrt(np.mean(whole[1000:40_000] ** 2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.15)
    assert np.array_equal(decode(path), whole) and np.array_equal(np.concatenate(list(decode_blocks(path))), whole)
    part = decode(path, offset_s=1.5, duration_s=1.0)
    assert len(part) == 16_000
    assert np.sqrt(np.mean((part - whole[24_000:40_000])[200:-200] ** 2)) < 0.01
    assert duration_of(path) == pytest.approx(DURATION_S, rel=0.03)
    with pytest.raises(AudioError) as error:
        decode(path, offset_s=5.0)
    assert error.value.reason == "empty"


def test_channels_of_a_stereo_m4a_are_averaged() -> None:
    assert np.sqrt(np.mean(decode(muxed("ipod", "aac", 44_100, "stereo")) ** 2)) == pytest.approx(0.28, rel=0.05)


def test_what_is_not_seekable_is_heard_from_any_place() -> None:
    """GSM, as telephone exchanges record it, and its like."""
    for format, subtype in (("WAV", "GSM610"), ("AIFF", "GSM610"), ("W64", "GSM610"), ("WAV", "G721_32"),
                            ("AU", "G723_24"), ("WAV", "NMS_ADPCM_16")):
        file = io.BytesIO()
        soundfile.write(file, chirp(8_000), 8_000, format=format, subtype=subtype)
        whole = decode(file.getvalue())
        assert len(whole) == pytest.approx(DURATION_S * 16_000, rel=0.02), (format, subtype)
        part = decode(file.getvalue(), offset_s=1.0, duration_s=0.5)
        assert np.sqrt(np.mean((part - whole[16_000:24_000])[200:-200] ** 2)) < 0.01, (format, subtype)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "ULAW", "ALAW", "FLOAT"])
def test_wav_that_its_recorder_never_closed_is_heard_to_its_end(subtype: str) -> None:
    clip = unfinished_wav(subtype)
    assert len(decode(clip)) == DURATION_S * 16_000
    assert len(decode(clip[:-801])) == pytest.approx(DURATION_S * 16_000, rel=0.05)
    assert sum(map(len, decode_blocks(clip))) == DURATION_S * 16_000


def test_flac_of_untold_length_is_heard_to_its_end() -> None:
    file = io.BytesIO()
    soundfile.write(file, chirp(16_000), 16_000, format="FLAC")
    streamed = bytearray(file.getvalue())
    streamed[21:26] = ((streamed[21] & 0xF0) << 32).to_bytes(5, "big")
    assert np.array_equal(decode(bytes(streamed)), decode(file.getvalue()))
    assert len(decode(bytes(streamed), offset_s=2.5, duration_s=9.0)) == 8_000


def test_untold_length_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpora.audio.MAX_DURATION_S", 2.0)
    monkeypatch.setattr("corpora.audio.BLOCK_S", 1.0)
    for clip in (unfinished_wav(), muxed("adts", "aac", 16_000)):
        with pytest.raises(AudioError, match="must be 2 s or less"):
            decode(clip)
        assert len(decode(clip, offset_s=1.0, duration_s=1.5)) == 24_000


def test_m4a_that_is_cut_off_is_no_clip() -> None:
    with pytest.raises(AudioError, match="cut off"):
        clip = muxed("matroska", "flac", 16_000)
        decode(clip[: len(clip) // 2])


@pytest.mark.parametrize(("format", "subtype", "endian"), [
    ("WAV", "PCM_16", "LITTLE"), ("WAV", "PCM_24", "BIG"), ("WAVEX", "FLOAT", "LITTLE"), ("RF64", "PCM_16", "LITTLE"),
    ("WAV", "GSM610", "LITTLE"), ("WAV", "ALAW", "LITTLE"), ("AIFF", "PCM_16", "BIG"), ("AIFF", "ULAW", "FILE"),
    ("AU", "PCM_16", "BIG"), ("AU", "PCM_16", "LITTLE"), ("W64", "PCM_16", "LITTLE"), ("NIST", "PCM_16", "LITTLE"),
    ("SVX", "PCM_16", "BIG"),
])
def test_sound_with_less_than_its_header_says_is_cut(tmp_path: Path, format: str, subtype: str, endian: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, chirp(8_000), 8_000, format=format, subtype=subtype, endian=endian)
    clip = file.getvalue()
    assert len(decode(clip)) == pytest.approx(DURATION_S * 16_000, rel=0.02)
    (tmp_path / "x.wav").write_bytes(clip[: len(clip) // 2])
    for half in (clip[: len(clip) // 2], tmp_path / "x.wav"):
        with pytest.raises(AudioError, match=r"ends after 1\..* of 3\..* s: it is cut off"):
            decode(half)


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("CAF", "PCM_16")])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_sound_that_ends_inside_a_part_is_cut_off(format: str, subtype: str, share: float) -> None:
    file = io.BytesIO()
    soundfile.write(file, chirp(16_000), 16_000, format=format, subtype=subtype)
    clip = file.getvalue()
    assert len(decode(clip)) == pytest.approx(DURATION_S * 16_000, rel=0.02)
    with pytest.raises(AudioError, match="it is cut off"):
        decode(clip[: round(len(clip) * share)])


def test_ogg_that_nobody_closed_is_heard_to_its_last_page() -> None:
    """As from a recorder that was ended, or a stream: its last page is whole, and does not say that it is the last."""
    clip = muxed("ogg", "libopus", 48_000)
    last = clip.rindex(b"OggS")
    assert len(decode(clip[:last])) > 0.5 * DURATION_S * 16_000


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0xFFFF_FFF0, 0xFFFF_FFFF])
def test_wav_of_a_stream_is_heard_to_its_end(size: int) -> None:
    clip = bytearray(unfinished_wav())
    data = clip.index(b"data")
    clip[4:8] = clip[data + 4 : data + 8] = struct.pack("<I", size)
    assert len(decode(bytes(clip))) == DURATION_S * 16_000


def test_sound_with_packets_that_cannot_be_decoded_is_no_clip() -> None:
    clip = bytearray(muxed("tta", "tta", 16_000))
    third = len(clip) // 3
    clip[third : 2 * third] = np.random.default_rng(0).bytes(third)
    with pytest.raises(AudioError, match="s of it are damaged"):
        decode(bytes(clip))


def test_headerless_sound_of_a_telephone_is_heard_at_its_rate(tmp_path: Path) -> None:
    for name, format, codec in (("x.al", "alaw", "pcm_alaw"), ("X.UL", "mulaw", "pcm_mulaw")):
        (tmp_path / name).write_bytes(muxed(format, codec, 8_000))
        assert len(decode(tmp_path / name)) == pytest.approx(DURATION_S * 16_000, rel=0.03)


def test_what_neither_reads_says_so_and_how_to_convert_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match=r"libsndfile: Format not recognised; FFmpeg: .*convert it: ffmpeg -i IN"):
        decode(b"<html>Please log in</html>" * 9)
    clip = muxed("ipod", "aac", 44_100)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match=r"pip install av\).*convert it: ffmpeg -i IN"):
        decode(clip)


def test_play_list_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "tone.aac").write_bytes(muxed("adts", "aac", 16_000))
    for text in (f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\n{tmp_path}/tone.aac\n#EXT-X-ENDLIST\n",
                 f"ffconcat version 1.0\nfile '{tmp_path}/tone.aac'\n"):
        (tmp_path / "list.m4a").write_text(text)
        with pytest.raises(AudioError) as error:
            decode(tmp_path / "list.m4a")
        assert error.value.reason == "undecodable"


def test_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(unfinished_wav())
    os.chmod(tmp_path / "x.wav", 0)
    if os.access(tmp_path / "x.wav", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(AudioError, match="cannot be read"):
        decode(tmp_path / "x.wav")


def test_clip_is_read_beside_what_macos_notes_about_it(tmp_path: Path) -> None:
    """libsndfile looks into ._NAME for a header."""
    notes = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(4000)
    soundfile.write(tmp_path / "clip.mp3", chirp(16_000), 16_000)
    before = decode(tmp_path / "clip.mp3")
    (tmp_path / "._clip.mp3").write_bytes(notes)
    assert np.array_equal(decode(tmp_path / "clip.mp3"), before)
    with pytest.raises(AudioError, match=r"macOS's metadata of the file of this name without \._\. Drop it\."):
        decode(tmp_path / "._clip.mp3")
    with pytest.raises(AudioError, match="macOS's metadata"):
        decode(notes)
