"""Which frames of a padded batch are valid, and how to zero the others."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Padding:
    """The padding of (batch, frames, channels), given by `lengths` (batch,) on the device of the frames."""

    def __init__(self, lengths: Tensor, num_frames: int) -> None:
        self.lengths = lengths
        self.num_frames = num_frames
        self._mask: Tensor | None = None
        self._ends: list[int] | None = None
        if not is_traced():
            self.lengths = lengths.long().clamp(0, num_frames).contiguous()
            self._ends = self.lengths.tolist() if lengths.device.type == "cpu" else None

    @property
    def ends(self) -> Sequence[int]:
        """Valid frames of each utterance, as ints; on a GPU the padded length, because reading them would wait."""
        return self._ends if self._ends is not None else [self.num_frames] * len(self.lengths)

    @property
    def mask(self) -> Tensor:
        """(batch, frames, 1), true in the padding."""
        if self._mask is None:
            positions = torch.arange(self.num_frames, device=self.lengths.device)
            self._mask = (positions >= self.lengths[:, None])[:, :, None]
        return self._mask

    def clear_(self, frames: Tensor) -> Tensor:
        """Set the padding of (batch, frames, channels) to zero in place; only the padding is touched on a CPU."""
        if self._ends is None:
            return frames.masked_fill_(self.mask, 0.0)
        for utterance, end in enumerate(self._ends):
            if end < self.num_frames:
                frames[utterance, end:].zero_()
        return frames

    def strided(self, stride: int) -> "Padding":
        """The padding after a convolution of this stride that otherwise keeps the length."""
        if stride == 1:
            return self
        lengths = torch.div(self.lengths - 1, stride, rounding_mode="floor") + 1
        return Padding(lengths, (self.num_frames - 1) // stride + 1)


def is_traced() -> bool:
    """Whether the network is being exported or compiled; then nothing may depend on the values in a tensor."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
