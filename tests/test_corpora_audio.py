"""Any clip to 16 kHz mono, and a reason for each that cannot be."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from corpora.audio import SAMPLE_RATE_HZ, AudioError, decode, decode_blocks, duration_of
from corpora.corpus import open_corpus

pytestmark = pytest.mark.timeout(60)


def tone(rate_hz: int, duration_s: float = 1.0) -> npt.NDArray[np.float32]:
    """440 Hz at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * duration_s)) / rate_hz)).astype(np.float32)


def encoded(samples: npt.NDArray[np.float32], rate_hz: int, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=format, subtype=subtype)
    return file.getvalue()


def reason_of(source: str | Path | bytes | AudioError, **segment: float) -> str:
    with pytest.raises(AudioError) as error:
        decode(source, **segment)
    assert "\n" not in str(error.value)
    return error.value.reason


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 192_000])
def test_every_rate_becomes_the_same_sound_at_16_khz(rate_hz: int) -> None:
    samples = decode(encoded(tone(rate_hz), rate_hz, subtype="FLOAT"))
    assert samples.dtype == np.float32
    assert samples.shape == (SAMPLE_RATE_HZ,)
    inside = slice(400, -400)
    assert np.abs(samples[inside] - tone(SAMPLE_RATE_HZ)[inside]).max() < 0.01


@pytest.mark.parametrize(("format", "subtype"), [("MP3", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_every_common_format_is_decoded_from_bytes_and_from_a_file(
    tmp_path: Path, format: str, subtype: str | None
) -> None:
    clip = encoded(tone(48_000), 48_000, format, subtype)
    path = tmp_path / "clip"
    path.write_bytes(clip)
    samples = decode(clip)
    assert len(samples) == pytest.approx(SAMPLE_RATE_HZ, rel=0.1)
    assert np.sqrt(np.mean(samples[2000:12000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert np.array_equal(samples, decode(path))
    assert np.array_equal(samples, decode(str(path)))


def test_odd_rate_is_resampled_exactly() -> None:
    samples = decode(encoded(tone(44_099), 44_099, subtype="FLOAT"))
    assert len(samples) == SAMPLE_RATE_HZ
    assert np.abs(samples - tone(SAMPLE_RATE_HZ))[400:-400].max() < 0.001


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(16_000), np.zeros(16_000, np.float32)], axis=1)
    assert np.allclose(decode(encoded(stereo, 16_000, subtype="FLOAT")), tone(16_000) / 2, atol=1e-6)


def test_offset_and_duration_cut_the_utterance_out(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(tone(16_000, 3.0), 16_000, subtype="FLOAT"))
    whole = decode(path)
    assert np.array_equal(decode(path, offset_s=1.0, duration_s=0.5), whole[16_000:24_000])
    assert np.array_equal(decode(path, offset_s=2.0, duration_s=9.0), whole[32_000:])


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_099, 44_100, 48_000])
@pytest.mark.parametrize("block_s", [0.5, 0.777])
def test_blocks_joined_are_the_whole_without_a_click(
    monkeypatch: pytest.MonkeyPatch, rate_hz: int, block_s: float
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, round(3.3 * rate_hz)).astype(np.float32)
    clip = encoded(noise, rate_hz, subtype="FLOAT")
    whole = decode(clip)
    assert np.array_equal(np.concatenate(list(decode_blocks(clip))), whole), "a block that holds all is all"
    monkeypatch.setattr("corpora.audio.BLOCK_S", block_s)
    blocks = list(decode_blocks(clip))
    assert len(blocks) > 3 and max(map(len, blocks)) <= (block_s + 0.1) * SAMPLE_RATE_HZ
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
    stretch = np.concatenate(list(decode_blocks(clip, offset_s=0.5, duration_s=1.7)))
    np.testing.assert_allclose(stretch, decode(clip, offset_s=0.5, duration_s=1.7), atol=1e-6)


def test_blocks_have_no_longest_file(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(tone(4_000, 1801.0), 4_000, subtype="PCM_U8"))
    lengths = [len(block) for block in decode_blocks(path)]
    assert sum(lengths) == 1801 * SAMPLE_RATE_HZ and max(lengths) <= 61 * SAMPLE_RATE_HZ
    assert duration_of(path) == 1801.0 and duration_of(path, 1800.5) == 0.5 and duration_of(path, 3.0, 2.0) == 2.0


def test_blocks_refuse_what_decode_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpora.audio.BLOCK_S", 0.25)
    not_finite = tone(16_000)
    not_finite[9_000] = np.nan
    bad = {"missing": tmp_path / "absent.mp3", "silent": encoded(np.zeros(16_000, np.float32), 16_000),
           "too_short": encoded(tone(16_000, 0.015), 16_000), "undecodable": b"<html>Please log in</html>",
           "bad_samples": encoded(not_finite, 16_000, subtype="FLOAT"), "empty": b""}
    for reason, source in bad.items():
        with pytest.raises(AudioError) as error:
            list(decode_blocks(source))
        assert error.value.reason == reason_of(source) == reason
    half_silent = encoded(np.concatenate([np.zeros(16_000, np.float32), tone(16_000)]), 16_000)
    assert sum(map(len, decode_blocks(half_silent))) == 32_000, "a silent block is no silent clip"


def test_file_whose_name_is_not_utf_8_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"ni\xf1o.wav")
    path.write_bytes(encoded(tone(16_000), 16_000))
    assert len(decode(path)) == sum(map(len, decode_blocks(path))) == 16_000 and duration_of(path) == 1.0


def test_unusable_clips_are_told_apart(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "absent.mp3") == "missing"
    assert reason_of(tmp_path) == "missing"
    assert reason_of(b"") == "empty"
    assert reason_of(encoded(np.zeros(0, np.float32), 16_000)) == "empty"
    assert reason_of(encoded(tone(16_000), 16_000), offset_s=2.0) == "empty"
    assert reason_of(encoded(np.zeros(16_000, np.float32), 16_000)) == "silent"
    assert reason_of(encoded(tone(16_000, 0.015), 16_000)) == "too_short"
    assert reason_of(encoded(tone(4_000, 1801.0), 4_000, subtype="PCM_U8")) == "too_long"
    assert reason_of(encoded(tone(1_000), 1_000)) == "undecodable"
    for value in (np.nan, np.inf, -np.inf):
        for num_channels in (1, 2):
            not_finite = np.stack([tone(16_000)] * num_channels, axis=1)
            not_finite[7, -1] = value
            assert reason_of(encoded(not_finite, 16_000, subtype="FLOAT")) == "bad_samples"


@pytest.mark.parametrize(("format", "subtype"), [("WAV", None), ("FLAC", None), ("OGG", "OPUS"), ("OGG", "VORBIS")])
def test_six_channels_are_averaged(format: str, subtype: str | None) -> None:
    six = np.stack([tone(48_000)] * 6, axis=1)
    samples = decode(encoded(six, 48_000, format, subtype))
    assert len(samples) == SAMPLE_RATE_HZ
    # Ogg's sixth channel is the one for bass alone, and loses the tone.
    assert np.sqrt(np.mean(samples[2000:12000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.18)


def test_thousand_channels_are_bounded_by_all_their_samples(tmp_path: Path) -> None:
    path = tmp_path / "wide.wav"
    path.write_bytes(encoded(np.zeros((10, 1024), np.float32), 48_000, subtype="PCM_U8"))
    header = bytearray(path.read_bytes())
    data = header.index(b"data") + 4
    header[data : data + 4] = (1024 * 200_000).to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, data + 4 + 1024 * 200_000)
    assert reason_of(path) == "too_long"


def ten_hours(path: Path) -> Path:
    """A real header and ten hours of 4 kHz, of which the disk holds nothing but the header."""
    header = bytearray(encoded(tone(4_000, 0.1), 4_000, subtype="PCM_U8"))
    data = header.index(b"data") + 4
    header[data : data + 4] = (36_000 * 4_000).to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, data + 4 + 36_000 * 4_000)
    return path


def test_ten_hours_are_too_long_at_once_and_a_part_of_them_is_read(tmp_path: Path) -> None:
    path = ten_hours(tmp_path / "long.wav")
    assert reason_of(path) == "too_long"
    assert len(decode(path, offset_s=35_000.0, duration_s=2.0)) == 2 * SAMPLE_RATE_HZ
    flac = bytearray(encoded(tone(16_000), 16_000, "FLAC"))
    for num_samples in (36_000 * 16_000, (1 << 36) - 1):
        flac[21:26] = ((flac[21] & 0xF0) << 32 | num_samples).to_bytes(5, "big")
        assert reason_of(bytes(flac)) == "too_long"
    second = encoded(tone(8_000), 8_000, "MP3")
    frame = second.index(second[:2], 1)
    assert reason_of(second[frame:] * 5000) == "too_long"  # the first frame tells the length, the others do not


@pytest.mark.parametrize("part", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("format", ["MP3", "FLAC"])
def test_clip_that_is_cut_off_is_no_clip(format: str, part: float) -> None:
    clip = encoded(tone(48_000, 3.0) * np.linspace(0.1, 1, 144_000, dtype=np.float32), 48_000, format)
    assert reason_of(clip[: round(part * len(clip))]) == "undecodable"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e300])
def test_samples_that_are_no_sound_are_told(value: float) -> None:
    samples = np.stack([tone(16_000)] * 2, axis=1).astype(np.float64)
    samples[7, 0] = value
    assert reason_of(encoded(samples, 16_000, subtype="DOUBLE")) == "bad_samples"


def test_sound_in_units_of_integers_is_sound() -> None:
    samples = decode(encoded(tone(16_000) * 32768, 16_000, subtype="FLOAT"))
    assert np.allclose(samples, tone(16_000) * 32768)


def test_zero_bytes_on_disk_are_empty(tmp_path: Path) -> None:
    (tmp_path / "clip.mp3").touch()
    assert reason_of(tmp_path / "clip.mp3") == "empty"


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "raw", "txt"])
def test_garbage_is_undecodable_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    garbage = np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    (tmp_path / f"clip.{suffix}").write_bytes(garbage)
    assert reason_of(tmp_path / f"clip.{suffix}") == "undecodable"
    assert reason_of(b"<html>Please log in</html>") == "undecodable"


def test_error_is_raised_where_the_clip_should_have_been_and_survives_another_process() -> None:
    error: AudioError = pickle.loads(pickle.dumps(AudioError("a.mp3: there is no such file.", reason="missing")))
    assert (error.reason, str(error)) == ("missing", "a.mp3: there is no such file.")
    assert reason_of(error) == "missing"


def test_real_clips_sound_as_the_reference_heard_them(shared_data: Path) -> None:
    with np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz") as reference:
        names, waveforms, lengths = (reference[key] for key in ("clip_names", "waveforms", "waveform_lengths"))
    expected = {str(name): waveform[:length] for name, waveform, length in zip(names, waveforms, lengths, strict=True)}
    found = 0
    for code in ("es", "en"):
        corpus = open_corpus(shared_data / f"cv-corpus-6.1-2020-12-11-{code}.tar.gz")
        for _, utterance, clip in corpus.clips(corpus.splits):
            waveform = expected.get(utterance.audio.rpartition("/")[2])
            if waveform is not None:
                found += 1
                samples = decode(clip)
                assert len(samples) == len(waveform)
                # The reference was resampled by scipy's resample_poly.
                assert np.sqrt(np.mean((samples - waveform) ** 2)) < 0.005 * np.sqrt(np.mean(waveform**2))
    assert found == len(expected)
