"""L2 distance from the source's weights, as a decay of the distance that is decoupled from the gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class SourceL2:
    """Takes the weights of a network back towards those that it has now, with L2-SP's penalty.

    The penalty strength / 2 x |w - w0|^2 has the gradient strength x (w - w0). It is not added to the loss's gradient:
    there Adam and Lion would normalise it away, and clipping would scale it. Instead `w -= lr x strength x (w - w0)`
    follows each step, as in AdamW's weight decay, which has w0 = 0. For plain SGD the two are equal.

    The source's weights are no parameters and no buffers: checkpoints do not hold them and DDP does not broadcast them.
    A resumed trial starts from the source again before it reads its checkpoint. They are float32, as the weights that
    the optimizer steps on are in bf16-mixed too.

    Source: Li, Grandvalet and Davoine, Explicit inductive bias for transfer learning with convolutional networks,
    arXiv 1802.01483; Loshchilov and Hutter, Decoupled weight decay regularization, arXiv 1711.05101.
    """

    def __init__(self, network: nn.Module, strength: float) -> None:
        self._network, self._strength = network, strength
        self._source = [weight.detach().clone() for weight in network.parameters()]

    @torch.no_grad()
    def pull(self, groups: Iterable[dict[str, Any]]) -> None:
        """Follow a step of an optimizer that has these groups; a weight goes at most all of the way.

        It is PyTorch's moving average, from the weights towards the source's: in place, one call for each group.
        """
        weights = list(self._network.parameters())  # listed anew: moving a network may replace them
        self._source = [source.to(weight.device) for source, weight in zip(self._source, weights, strict=True)]
        source_of = dict(zip(weights, self._source, strict=True))
        for group in groups:
            pulled = [weight for weight in group["params"] if weight in source_of]
            if pulled:
                share = min(group["lr"] * self._strength, 1.0)
                move = get_ema_multi_avg_fn(1 - share)  # type: ignore[no-untyped-call]
                move(pulled, [source_of[weight] for weight in pulled], 0)
