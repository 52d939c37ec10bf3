"""The front end against NeMo's, on real and synthetic sound."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.frontend import FrontendConfig, FrontendError, LogMel


@pytest.mark.parametrize("pad_to", [0, 16])
def test_features_of_real_clips_are_nemos(shared_data: Path, pad_to: int) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    frontend = LogMel(FrontendConfig(pad_to=pad_to)).eval()
    features, lengths = frontend(torch.from_numpy(reference["waveforms"]),
                                 torch.from_numpy(reference["waveform_lengths"]))
    assert lengths.tolist() == reference[f"pad{pad_to}_feature_lengths"].tolist()
    np.testing.assert_allclose(features.numpy(), reference[f"pad{pad_to}_features"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("pad_to", [0, 16])
@pytest.mark.parametrize(("padding", "prefix"), [("zeros", ""), ("reflect", "legacy_")])
def test_features_before_and_since_nemo_2_5(shared_data: Path, pad_to: int, padding: str, prefix: str) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")
    frontend = LogMel(FrontendConfig(padding=padding, pad_to=pad_to)).eval()  # type: ignore[arg-type]
    features, lengths = frontend(torch.from_numpy(reference["wav"]), torch.from_numpy(reference["wav_len"]))
    assert lengths.tolist() == reference[f"{prefix}pad{pad_to}_feat_len"].tolist()
    np.testing.assert_allclose(features.numpy(), reference[f"{prefix}pad{pad_to}_features"], rtol=0, atol=1e-3)


def test_a_clip_alone_has_the_features_it_has_in_a_batch() -> None:
    waveforms = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    waveforms[0, 9_000:] = 0
    frontend = LogMel(FrontendConfig()).eval()
    batched, _ = frontend(waveforms, torch.tensor([9_000, 16_000]))
    alone, (length,) = frontend(waveforms[:1, :9_000], torch.tensor([9_000]))
    torch.testing.assert_close(batched[0, :, :length], alone[0, :, :length], rtol=0, atol=1e-5)


def test_dither_is_seeded_and_in_training_only() -> None:
    waveforms, lengths = torch.zeros(1, 16_000), torch.tensor([16_000])
    config = FrontendConfig(dither=1e-3)
    features = [LogMel(config, torch.Generator().manual_seed(seed))(waveforms, lengths)[0] for seed in (0, 0, 1)]
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2])
    evaluated = [LogMel(config, torch.Generator().manual_seed(seed)).eval()(waveforms, lengths)[0] for seed in (0, 1)]
    assert torch.equal(*evaluated)


@pytest.mark.parametrize("num_samples", [160, 319, 320])
def test_the_shortest_sound_has_finite_features(num_samples: int) -> None:
    waveforms = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(0))
    features, lengths = LogMel(FrontendConfig()).eval()(waveforms, torch.tensor([num_samples]))
    assert torch.isfinite(features).all()
    assert lengths.tolist() == [num_samples // 160]


@pytest.mark.parametrize(("padding", "num_samples", "limit"), [("zeros", 159, "160"), ("reflect", 256, "257")])
def test_sound_that_is_too_short_is_named(padding: str, num_samples: int, limit: str) -> None:
    frontend = LogMel(FrontendConfig(padding=padding))  # type: ignore[arg-type]
    with pytest.raises(FrontendError, match=f"{num_samples} samples.*at least {limit}"):
        frontend(torch.zeros(1, num_samples), torch.tensor([num_samples]))


@pytest.mark.parametrize(("field", "value"), [("num_mels", 0), ("padding", "circular"), ("dither", -1.0),
                                              ("pad_to", -1)])
def test_config_names_the_field_outside_its_limits(field: str, value: object) -> None:
    with pytest.raises(FrontendError, match=field):
        FrontendConfig(**{field: value})  # type: ignore[arg-type]
