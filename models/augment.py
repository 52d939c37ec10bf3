"""SpecAugment (arXiv 1904.08779): random parts of the features are masked in training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.recipe import SpecAugmentKind

LONGEST_SHARE = 0.2
"""No mask is longer than this share of its clip (the paper's p), so that a short clip is not lost."""
WIDEST_BAND_SHARE = 0.4
"""A band that spans the whole clip is no wider than this share of the mels, so that two of them leave enough."""
MOST_SHARE = 0.5
"""Bands of time cover at most this share of a clip together; two, of a fifth each, are below it."""
PAPER_MELS = 80
NEMO_MELS = 64
"""Numbers of mels that the published widths are for; the widths are scaled to the features at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """`count` rectangles of at most this many mels and frames; None means the whole side."""

    count: int
    mels: int | None
    frames: int | None

    def widest(self, strength: float, mels: int) -> float:
        """Most mels that one rectangle or band of limited width spans, out of `mels`; a rectangle may span them all."""
        assert self.mels is not None
        if self.frames is not None:
            return min(self.mels * strength * mels / NEMO_MELS, mels)
        return min(self.mels * strength * mels / PAPER_MELS, WIDEST_BAND_SHARE * mels)

    @property
    def longest_share(self) -> float:
        """The longest mask as a share of its clip."""
        return LONGEST_SHARE if self.mels is not None else min(LONGEST_SHARE, MOST_SHARE / self.count)


DROPS: dict[SpecAugmentKind, tuple[Drop, ...]] = {
    "none": (),
    # QuartzNet's recipe: NeMo's rect_masks, rect_freq, rect_time, for 64 mels.
    "cutout": (Drop(count=5, mels=50, frames=120),),
    # The paper's LibriSpeech double policy: F = 27, mF = 2, T = 100, mT = 2.
    "time_frequency": (Drop(count=2, mels=27, frames=None), Drop(count=2, mels=None, frames=100)),
}


VIEW_DROPS: dict[SpecAugmentKind, tuple[Drop, ...]] = {
    "none": (),
    "cutout": (*DROPS["cutout"], Drop(count=5, mels=None, frames=100)),
    "time_frequency": (Drop(count=2, mels=27, frames=None), Drop(count=5, mels=None, frames=100)),
}
"""For training on two views: 2.5 times as many bands of time, as in CR-CTC (arXiv 2410.05101)."""


class SpecAugment(nn.Module):
    """Set random rectangles (`cutout`) or bands (`time_frequency`) of the features to zero, their mean, in training.

    `strength` scales the largest size; 1 is the published one, 0 drops nothing. `for_views` drops more of the time.
    """

    def __init__(self, kind: SpecAugmentKind, strength: float, seed: int, *, for_views: bool = False) -> None:
        super().__init__()
        if kind not in DROPS:
            raise ValueError(f"spec_augment is {kind!r}; it must be one of {', '.join(DROPS)}.")
        if strength < 0:
            raise ValueError(f"spec_augment_strength is {strength}; it must be at least 0.")
        self.drops = (VIEW_DROPS if for_views else DROPS)[kind]
        self.strength = strength
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, mels, frames), (batch,) to the same shape; the input is not changed."""
        if not self.training or not self.drops or self.strength == 0:
            return features
        mels = features.shape[1]
        mel_counts = torch.full((features.shape[0],), mels)
        frame_counts = lengths.cpu()
        # Frames first, as they are laid out in memory: half the time.
        dropped = torch.zeros(features.transpose(1, 2).shape, dtype=torch.bool)
        for drop in self.drops:
            mel_limit = None if drop.mels is None else torch.tensor([drop.widest(self.strength, mels)])
            frame_limit = None if drop.frames is None else (drop.longest_share * frame_counts).clamp(
                max=drop.frames * self.strength)
            in_mels = self._spans(drop.count, mel_counts, mel_limit, mels)
            in_frames = self._spans(drop.count, frame_counts, frame_limit, features.shape[2])
            # A product of zeros and ones is positive where any rectangle has both.
            dropped |= (in_frames.transpose(1, 2) @ in_mels) > 0
        return features.transpose(1, 2).masked_fill(dropped.to(features.device), 0.0).transpose(1, 2)

    def _spans(self, count: int, totals: Tensor, limit: Tensor | None, size: int) -> Tensor:
        """(batch, count, size) of zeros and ones: spans of at most `limit` in the first `totals` (batch,) places."""
        if limit is None:
            return torch.ones(len(totals), count, size)
        draws = torch.rand(2, len(totals), count, generator=self.generator)
        lengths = (draws[0] * (limit[:, None] + 1)).floor()
        starts = (draws[1] * (totals[:, None] - lengths + 1).clamp(min=1)).floor()
        places = torch.arange(size)
        inside = (places >= starts[..., None]) & (places < (starts + lengths)[..., None])
        return inside.float()
