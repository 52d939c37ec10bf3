"""The operations where a QuartzNet's time goes, each three times: in PyTorch, in C++ for CPUs, in Triton for GPUs.

All take and give contiguous (batch, frames, channels). `plain` defines what each one means; the others are faster and
equal it to rounding.
"""

from typing import Protocol

from torch import Tensor

from models.kernels import cpu, plain
from models.padding import Padding, is_traced


class Kernels(Protocol):
    """What each of the modules holds; see `plain` for what it does."""

    def depthwise(self, frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor: ...

    def depthwise_frames_gradient(self, gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding,
                                  stride: int, dilation: int) -> Tensor: ...

    def depthwise_weight_gradient(self, gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding,
                                  stride: int, dilation: int) -> Tensor: ...

    def statistics(self, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def normalise(self, frames: Tensor, scale: Tensor | None, shift: Tensor | None, skipped: Tensor | None,
                  padding: Padding, activate: bool) -> Tensor: ...

    def rectify_(self, frames: Tensor, skipped: Tensor | None, padding: Padding) -> Tensor: ...

    def batchnorm_backward(self, gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                           inverse_std: Tensor, needs_skipped: bool
                           ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]: ...


def kernels_for(frames: Tensor) -> Kernels:
    """The fastest kernels for the device and the precision of `frames`; PyTorch's own while the network is traced."""
    if not is_traced() and frames.device.type == "cpu" and frames.dtype in cpu.PRECISIONS and cpu.is_available():
        return cpu
    return plain
