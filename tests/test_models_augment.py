"""SpecAugment drops what it should, and never more."""

import pytest
import torch

from models.augment import SpecAugment
from spaces.recipe import SpecAugmentKind

LENGTHS = torch.tensor([1600, 800])
FEATURES = torch.ones(2, 64, 1600)


@pytest.mark.parametrize("kind", ["cutout", "time_frequency"])
def test_same_seed_drops_the_same_and_another_does_not(kind: SpecAugmentKind) -> None:
    first, again, other = (SpecAugment(kind, 1.0, seed)(FEATURES, LENGTHS) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(FEATURES, torch.ones(2, 64, 1600))


def test_cutout_drops_rectangles_of_the_published_size() -> None:
    augment = SpecAugment("cutout", 1.0, 0)
    dropped = torch.stack([augment(FEATURES, LENGTHS)[0] == 0 for _ in range(200)])
    # Five rectangles of 25 mels by 60 frames on average, overlaps aside, of 64 by 1600.
    assert 0.055 < dropped.float().mean() < 0.0735
    assert dropped.any(1).sum(-1).max() <= 5 * 120
    assert dropped.any(2).sum(-1).max() > 50


def test_time_frequency_drops_whole_bands() -> None:
    augment = SpecAugment("time_frequency", 1.0, 0)
    for _ in range(20):
        kept = augment(FEATURES, LENGTHS)[0] == 1
        assert torch.equal(kept, kept.any(1)[:, None] & kept.any(0)[None])
        assert (~kept.any(0)).sum() <= 200
        assert (~kept.any(1)).sum() <= 2 * 27 * 64 // 80 + 1


@pytest.mark.parametrize("kind", ["cutout", "time_frequency"])
@pytest.mark.parametrize("num_frames", [1, 4, 30, 119])
def test_short_clips_keep_most_of_their_frames(kind: SpecAugmentKind, num_frames: int) -> None:
    features, lengths = torch.ones(8, 64, num_frames), torch.full((8,), num_frames)
    augment = SpecAugment(kind, 3.0, 0)
    for _ in range(20):
        kept = augment(features, lengths) == 1
        longest = 5 if kind == "cutout" else 2
        untouched = kept.float().mean(1).eq(1) if kind == "cutout" else kept.any(1)
        assert (untouched.sum(1) >= num_frames - longest * (num_frames // 5 + 1)).all()


@pytest.mark.parametrize("kind", ["none", "cutout", "time_frequency"])
def test_nothing_is_dropped_in_evaluation_or_at_strength_zero(kind: SpecAugmentKind) -> None:
    assert SpecAugment(kind, 1.0, 0).eval()(FEATURES, LENGTHS) is FEATURES
    assert SpecAugment(kind, 0.0, 0)(FEATURES, LENGTHS) is FEATURES


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="spec_augment is 'blur'"):
        SpecAugment("blur", 1.0, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strength is -1"):
        SpecAugment("cutout", -1.0, 0)
