"""Consistency-regularised CTC (CR-CTC, arXiv 2410.05101): two views of a clip should be heard alike."""

from dataclasses import replace

import torch
from torch import Tensor

from corpora.batches import Batch
from models.padding import Padding

WARMUP_SHARE = 0.1
"""Share of a trial's steps in which the weight rises linearly from 0: until then outputs say little."""


def consistency_weight(weight: float, step: int, total_steps: int) -> float:
    """The weight of `consistency_loss` at a step, from 0."""
    return weight * min(1.0, step / max(1.0, WARMUP_SHARE * total_steps))


def two_views(batch: Batch) -> Batch:
    """The batch twice, one after the other, each clip at half its weight; augmentation then draws for each view.

    The CTC loss of it is the mean over the views.
    """
    return replace(batch, **{name: torch.cat([getattr(batch, name)] * 2) for name in
                             ("features", "feature_lengths", "targets", "target_lengths", "rows")},
                   weights=torch.cat([batch.weights / 2] * 2))


def consistency_loss(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """The difference between the views of each clip, (batch,): the paper's L_CR.

    `log_probs` (2 batch, frames, labels) and `lengths` (2 batch,) are of `two_views`. Half the sum over the clip's
    frames of KL(b, a) + KL(a, b); in each, the first distribution is a constant, and only the second learns.
    """
    first, second = log_probs.chunk(2)
    frames = _divergence(second.detach(), first) + _divergence(first.detach(), second)
    padding = Padding(lengths.chunk(2)[0], log_probs.shape[1])
    return 0.5 * frames.masked_fill(padding.mask[:, :, 0], 0.0).sum(1)


def _divergence(target: Tensor, log_probs: Tensor) -> Tensor:
    """KL(target, log_probs) of each frame: (batch, frames, labels) twice to (batch, frames)."""
    return (target.exp() * (target - log_probs)).sum(-1)
