"""Frames at another speed are near those of the resampled sound."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.functional import melscale_fbanks, resample

from corpora.audio import decode
from corpora.speed import FASTEST, SLOWEST, change_speed, draw_tenths, frames_at, mel_warp
from models.frontend import FrontendConfig, LogMel


def changed(frames: np.ndarray, tenths: int) -> np.ndarray:
    out = np.full((int(frames_at(np.array(len(frames)), tenths)), frames.shape[1]), np.nan, dtype=np.float32)
    change_speed(frames, tenths, out)
    return out


def test_speeds_are_as_many_of_each_and_others_in_each_epoch() -> None:
    tenths = draw_tenths(3000, seed=1, epoch=0)
    assert np.bincount(tenths)[9:].tolist() == pytest.approx([1000] * 3, abs=100) and set(tenths) == {9, 10, 11}
    assert np.array_equal(tenths, draw_tenths(3000, seed=1, epoch=0))
    for other in (draw_tenths(3000, seed=1, epoch=1), draw_tenths(3000, seed=2, epoch=0)):
        assert 0.55 < (tenths != other).mean() < 0.78
    assert np.array_equal(draw_tenths(40, 1, 0), tenths[:40]), "a clip's speed does not hang on how many there are"


@pytest.mark.parametrize("tenths", [SLOWEST, FASTEST])
def test_frames_are_read_off_in_time(tenths: int) -> None:
    ramp = np.repeat(np.arange(50, dtype=np.float16)[:, None], 64, axis=1)
    out = changed(ramp, tenths)
    assert len(out) == 500 // tenths
    np.testing.assert_allclose(out, np.repeat(np.minimum(np.arange(len(out)) * tenths / 10, 49)[:, None], 64, axis=1),
                               rtol=1e-6)


@pytest.mark.parametrize("tenths", [SLOWEST, FASTEST])
@pytest.mark.parametrize("num_mels", [64, 80])
def test_mels_are_read_off_where_their_frequency_came_from(tenths: int, num_mels: int) -> None:
    filters = melscale_fbanks(257, 0.0, 8000.0, num_mels, 16_000, norm="slaney", mel_scale="slaney")
    hz = (filters * torch.linspace(0, 8000, 257)[:, None]).sum(0) / filters.sum(0)
    read = hz.numpy() @ mel_warp(num_mels, tenths)
    wanted = np.minimum(hz.numpy() * 10 / tenths, hz[-1].item())
    inside = slice(4, num_mels - 4)  # filters narrower than a bin of the FFT have no centre to speak of
    np.testing.assert_allclose(read[inside], wanted[inside], rtol=0.02)
    np.testing.assert_allclose(mel_warp(num_mels, tenths).sum(0), 1, rtol=1e-6)


@pytest.mark.parametrize("num_frames", [1, 2, 11])
def test_shortest_clips_stay_finite(num_frames: int) -> None:
    for tenths in (SLOWEST, FASTEST):
        assert np.isfinite(changed(np.ones((num_frames, 64), dtype=np.float16), tenths)).all()


@pytest.mark.parametrize(("tenths", "least"), [(SLOWEST, 0.97), (FASTEST, 0.98)])
def test_real_clips_are_near_their_resampled_sound(shared_data: Path, tenths: int, least: float) -> None:
    frontend = LogMel(FrontendConfig(pad_to=0)).eval()

    def log_mel(sound: torch.Tensor) -> np.ndarray:
        features, lengths = frontend(sound[None], torch.tensor([len(sound)]))
        frames: np.ndarray = features[0, :, : int(lengths[0])].T.numpy()
        return frames

    correlations, distances = [], []
    with tarfile.open(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz") as tar:
        names = [name for name in tar.getnames() if name.endswith(".mp3")][:8]
        sounds = [torch.from_numpy(decode(tar.extractfile(name).read()))  # type: ignore[union-attr]
                  for name in names]
    for sound in sounds:
        true = log_mel(resample(sound, 16_000 * tenths // 10, 16_000, lowpass_filter_width=32))
        ours = changed(log_mel(sound).astype(np.float16), tenths)
        assert abs(len(true) - len(ours)) <= 1
        both = min(len(true), len(ours))
        correlations.append(np.corrcoef(true[:both].ravel(), ours[:both].ravel())[0, 1])
        distances.append(np.abs(true[:both] - ours[:both]).mean())
    assert np.mean(correlations) > least
    assert np.mean(distances) < 0.15
