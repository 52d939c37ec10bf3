"""The operations that take most of a QuartzNet's time, three times: in PyTorch, in C++ for CPUs, in Triton for GPUs.

All take and return contiguous (batch, frames, channels). `plain` is the reference; the others are faster and equal it
up to rounding.
"""

import functools
import logging
from typing import Protocol

import torch
from torch import Tensor

from models.kernels import cpu, gpu, plain
from models.padding import Padding, is_traced

log = logging.getLogger(__name__)


class Kernels(Protocol):
    """The functions of each module; `plain` documents them."""

    def depthwise(self, frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor: ...

    def depthwise_frames_gradient(self, gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding,
                                  stride: int, dilation: int) -> Tensor: ...

    def depthwise_weight_gradient(self, gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding,
                                  stride: int, dilation: int) -> Tensor: ...

    def statistics(self, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def normalise(self, frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None,
                  padding: Padding, activate: bool) -> Tensor: ...

    def rectify_(self, frames: Tensor, residual: Tensor | None, padding: Padding) -> Tensor: ...

    def drop(self, frames: Tensor, share: float) -> Tensor: ...

    def batchnorm_backward(self, gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                           inverse_std: Tensor, needs_residual: bool
                           ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]: ...


def kernels_for(frames: Tensor) -> Kernels:
    """The fastest kernels for the device and the precision of `frames`; PyTorch's own while the network is traced."""
    if is_traced():
        return plain
    device, precision = frames.device, frames.dtype
    if device.type == "cpu" and precision in cpu.PRECISIONS and cpu.is_available():
        return cpu
    if device.type == "cuda" and precision in gpu.PRECISIONS and gpu.is_available() and _agrees(device):
        return gpu
    return plain


@functools.cache
def _agrees(device: torch.device) -> bool:
    """Whether the Triton kernels compile for this GPU and agree with `plain`; checked once per process."""
    generator = torch.Generator().manual_seed(0)
    lengths, weight = torch.tensor([75, 40]), torch.randn(64, 1, 11, generator=generator)
    frames = Padding(lengths, 75).clear_(torch.randn(2, 75, 64, generator=generator))

    def results(kernels: Kernels, frames: Tensor, weight: Tensor, padding: Padding) -> list[Tensor]:
        mean, variance = kernels.statistics(frames)
        output = kernels.normalise(frames, variance, mean, frames, padding, True)
        backward = kernels.batchnorm_backward(frames, output, frames, variance, mean, torch.rsqrt(variance), True)
        shape = padding, 1, 1
        return [mean, variance, output, *(part for part in backward if part is not None),
                kernels.depthwise(frames, weight, *shape),
                kernels.depthwise_frames_gradient(frames, frames, weight, *shape),
                kernels.depthwise_weight_gradient(frames, frames, weight, *shape)]

    try:
        ours = results(gpu, frames.to(device), weight.to(device), Padding(lengths.to(device), 75))
        for tensor, expected in zip(ours, results(plain, frames, weight, Padding(lengths, 75)), strict=True):
            torch.testing.assert_close(tensor.cpu(), expected, rtol=1e-3, atol=1e-3)
    except Exception as error:
        log.warning("the GPU kernels do not work on %s, so training is slower: %s. %s=0 silences this.",
                    device, str(error).strip()[:500], gpu.SWITCH)
        return False
    return True
