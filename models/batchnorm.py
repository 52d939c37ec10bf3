"""BatchNorm of (batch, frames, channels), fused with the residual sum, ReLU, mask and dropout that follow it.

The gradient passes where the output is positive; what dropout or the ReLU removed is zero there. So dropout stores no
mask.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.kernels import kernels_for
from models.padding import Padding
from spaces.recipe import BatchNormMode

BATCHNORM_EPS = 1e-3
BATCHNORM_MOMENTUM = 0.1


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of (batch, frames, channels) whose statistics can be frozen in training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BATCHNORM_EPS, momentum=BATCHNORM_MOMENTUM)
        self.mode: BatchNormMode = "adapt"

    @property
    def is_affine(self) -> bool:
        """Whether this is a fixed scale and shift, which can be folded into the convolution before it."""
        return not self.training or self.mode == "keep"

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, (channels,) each, from the running statistics and the weights."""
        scale = self.weight * torch.rsqrt(cast(Tensor, self.running_var) + self.eps)
        return scale, self.bias - cast(Tensor, self.running_mean) * scale

    def forward(self, frames: Tensor, residual: Tensor | None,  # type: ignore[override]
                padding: Padding, activate: bool, dropout: float = 0.0) -> Tensor:
        """Normalise with the batch, add `residual`; with `activate`, also ReLU, zero the padding and apply dropout."""
        cast(Tensor, self.num_batches_tracked).add_(1)
        return cast(Tensor, _BatchNormRelu.apply(
            frames, self.weight, self.bias, self.running_mean, self.running_var, residual, padding, activate, dropout))


class _BatchNormRelu(torch.autograd.Function):
    """BatchNorm over batch and frames and what follows it, in one buffer, the only one kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
                residual: Tensor | None, padding: Padding, activate: bool, dropout: float) -> Tensor:
        kernels, num_frames = kernels_for(frames), frames.shape[0] * frames.shape[1]
        mean, variance = kernels.statistics(frames)
        running_mean.lerp_(mean, BATCHNORM_MOMENTUM)
        running_var.lerp_(variance * (num_frames / max(num_frames - 1, 1)), BATCHNORM_MOMENTUM)
        inverse_std = torch.rsqrt(variance + BATCHNORM_EPS)
        scale = weight * inverse_std
        output = kernels.normalise(frames, scale, bias - mean * scale, residual, padding, activate)
        ctx.dropout = dropout if activate else 0.0
        if ctx.dropout:
            output = kernels.drop(output, dropout)
        ctx.save_for_backward(frames, weight, mean, inverse_std, output if activate else None)
        ctx.has_residual = residual is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, weight, mean, inverse_std, output = ctx.saved_tensors
        if ctx.dropout:
            gradient = gradient / (1 - ctx.dropout)
        frames_gradient, weight_gradient, bias_gradient, residual_gradient = kernels_for(frames).batchnorm_backward(
            gradient, output, frames, weight, mean, inverse_std, ctx.has_residual)
        return frames_gradient, weight_gradient, bias_gradient, None, None, residual_gradient, None, None, None


def relu_and_mask(frames: Tensor, residual: Tensor | None, padding: Padding, dropout: float = 0.0) -> Tensor:
    """ReLU of `frames + residual`, (batch, frames, channels), zero in the padding, with dropout.

    May reuse the memory of `frames`.
    """
    if torch.is_grad_enabled():
        return cast(Tensor, _MaskedRelu.apply(frames, residual, padding, dropout))
    kernels = kernels_for(frames)
    activated = kernels.rectify_(frames, residual, padding)
    return kernels.drop(activated, dropout) if dropout else activated


class _MaskedRelu(torch.autograd.Function):
    """`relu_and_mask`; the gradient stops where the output is zero, in the padding too."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, residual: Tensor | None, padding: Padding, dropout: float) -> Tensor:
        kernels = kernels_for(frames)
        activated = kernels.normalise(frames, None, None, residual, padding, True)
        if dropout:
            activated = kernels.drop(activated, dropout)
        ctx.save_for_backward(activated)
        ctx.has_residual, ctx.dropout = residual is not None, dropout
        return activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (activated,) = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, activated, 0)
        if ctx.dropout:
            gradient.div_(1 - ctx.dropout)
        return gradient, gradient if ctx.has_residual else None, None, None
