"""Features changed as if recorded elsewhere are near those of a recording changed so, and the rest stays as it is."""

import tarfile
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora.audio import decode
from corpora.speed import mel_centres_hz
from models import other_recordings
from models.frontend import FrontendConfig, LogMel
from models.other_recordings import OtherRecordings

LENGTHS = torch.tensor([300, 200])


def features_of(num_clips: int = 2) -> Tensor:
    drawn = torch.randn(num_clips, 64, 300, generator=torch.Generator().manual_seed(1))
    drawn[1::2, :, 200:] = 0.0
    return drawn


def others(share: float = 1.0, seed: int = 0) -> OtherRecordings:
    return OtherRecordings(share, torch.Generator().manual_seed(seed))


def real_clips(shared_data: Path) -> list[Tensor]:
    """The beginnings of three clips, at 16 kHz, without the silence that their encoder put first."""
    with tarfile.open(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz") as tar:
        names = [member for member in tar.getmembers() if member.name.endswith(".mp3")][:3]
        return [torch.from_numpy(decode(cast(IO[bytes], tar.extractfile(name)).read()))[4_000:64_000]
                for name in names]


def with_noise(clip: Tensor, snr_db: float) -> Tensor:
    """The clip over a steady noise of its own spectrum."""
    spectrum = torch.fft.rfft(clip).abs()
    spectrum[:180] = 0.0  # hum below 60 Hz
    phases = torch.exp(2j * torch.pi * torch.rand(len(spectrum), generator=torch.Generator().manual_seed(0)))
    return clip + torch.fft.irfft(spectrum * phases, len(clip)) * 10 ** (-snr_db / 20)


def log_mel(waveform: Tensor) -> tuple[Tensor, Tensor]:
    front = LogMel(FrontendConfig()).eval()
    features, lengths = front(waveform[None], torch.tensor([len(waveform)]))
    return features, lengths


def set_limits(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Nothing but what is given: no noise that is heard, no tilt, no fading, no telephone."""
    off = {"SNR_DB": (200.0, 200.0), "TILT_NATS": 0.0, "FADE_NATS": 0.0, "TELEPHONE_SHARE": 0.0}
    for name, value in (off | values).items():
        monkeypatch.setattr(other_recordings, name, value)


def inner(features: Tensor) -> Tensor:
    """Without the frames at the ends, where a cut through the sound is heard."""
    return features[0, :, 5:-5]


def alike(first: Tensor, second: Tensor) -> float:
    """Correlation."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def test_changed_clips_are_normalised_and_padding_stays_silent() -> None:
    given = features_of()
    kept = given.clone()
    changed = others()(given, LENGTHS)
    assert torch.equal(given, kept) and not torch.allclose(changed, given, atol=0.1)
    for clip, length in zip(changed, LENGTHS.tolist(), strict=True):
        torch.testing.assert_close(clip[:, :length].mean(1), torch.zeros(64), atol=1e-4, rtol=0)
        torch.testing.assert_close(clip[:, :length].std(1), torch.ones(64), atol=1e-3, rtol=0)
        assert not clip[:, length:].any()


def test_share_of_the_clips_is_changed_in_training_alone() -> None:
    given, lengths = features_of(400), torch.full((400,), 200)
    given[:, :, 200:] = 0.0
    network = others(share=0.3)
    is_changed = (network(given, lengths) != given).any(-1).any(-1)
    assert 90 < int(is_changed.sum()) < 150
    assert torch.equal(network.eval()(given, lengths), given) and torch.equal(others(share=0.0)(given, lengths), given)


def test_seed_repeats_the_changes_and_each_step_draws_others() -> None:
    first, second = others(), others()
    given = features_of()
    once = first(given, LENGTHS)
    assert torch.equal(once, second(given, LENGTHS)) and not torch.equal(once, first(given, LENGTHS))


def test_noise_is_as_that_of_a_noisy_recording(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.linspace(0.05, 0.95, 19)
    for clip in real_clips(shared_data):
        (clean, lengths), (noisy, _) = log_mel(clip), log_mel(with_noise(clip, 10.0))
        set_limits(monkeypatch, SNR_DB=(10.0, 10.0), FLUTTER_NATS=0.6)
        made, plain, real = (torch.quantile(inner(one), shares, dim=1)
                             for one in (others()(clean, lengths), clean, noisy))
        assert (made - real).abs().mean() < 0.6 * (plain - real).abs().mean()
        set_limits(monkeypatch, SNR_DB=(10.0, 10.0), FLUTTER_NATS=0.0)  # no noise repeats another's flutter
        assert alike(inner(others()(clean, lengths)), inner(noisy)) > alike(inner(clean), inner(noisy)) + 0.05


def test_telephone_leaves_its_band_and_noise_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, SNR_DB=(20.0, 20.0), TELEPHONE_SHARE=1.0)
    given = features_of()
    changed = others()(given, LENGTHS)
    centres = mel_centres_hz(64)
    inside = (centres > 300) & (centres < 3400)
    assert 0 < inside.sum() < 64
    assert alike(changed[0, inside], given[0, inside]) > 0.8 and alike(changed[0, ~inside], given[0, ~inside]) < 0.5


def test_fading_is_a_slope_over_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, FADE_NATS=1.5)
    given = features_of()
    difference = (others()(given, LENGTHS) - given)[0].mean(0)
    slope = np.polyfit(np.linspace(-1, 1, 300), difference.numpy(), 1)
    assert abs(slope[0]) > 0.01 and np.abs(np.polyval(slope, np.linspace(-1, 1, 300)) - difference.numpy()).max() < 0.1


def test_shortest_clips_stay_finite() -> None:
    given, lengths = features_of(), torch.tensor([1, 0])
    assert others()(given, lengths).isfinite().all()
