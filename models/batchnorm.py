"""BatchNorm of (batch, frames, channels), joined with the residual sum, ReLU and mask that follow it."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.depthwise import Padding

BATCHNORM_EPS = 1e-3
BATCHNORM_MOMENTUM = 0.1

BatchNormMode = Literal["adapt", "keep"]


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of (batch, frames, channels) whose statistics can be kept in training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BATCHNORM_EPS, momentum=BATCHNORM_MOMENTUM)
        self.mode: BatchNormMode = "adapt"

    @property
    def is_affine(self) -> bool:
        """Whether this is a fixed scale and shift, which the convolution before it can absorb."""
        return not self.training or self.mode == "keep"

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(channels,) each: what the running statistics and the weights amount to."""
        scale = self.weight * torch.rsqrt(cast(Tensor, self.running_var) + self.eps)
        return scale, self.bias - cast(Tensor, self.running_mean) * scale

    def forward(self, frames: Tensor, skipped: Tensor | None,  # type: ignore[override]
                padding: Padding, activate: bool) -> Tensor:
        """Normalise with the batch, add `skipped`, and rectify and silence the padding where `activate`."""
        cast(Tensor, self.num_batches_tracked).add_(1)
        return cast(Tensor, _BatchNormRelu.apply(  # type: ignore[no-untyped-call]
            frames, self.weight, self.bias, self.running_mean, self.running_var, skipped, padding, activate))


class _BatchNormRelu(torch.autograd.Function):
    """BatchNorm over batch and frames, residual sum, ReLU and mask in one buffer, which is all that is kept."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
                skipped: Tensor | None, padding: Padding, activate: bool) -> Tensor:
        flat, mean, inverse_std = _normalise(frames.flatten(0, 1), weight, bias, running_mean, running_var)
        output = flat.view(frames.shape)
        if skipped is not None:
            output.add_(skipped)
        if activate:
            padding.clear_(output.relu_())
        ctx.save_for_backward(frames, weight, mean, inverse_std, output if activate else None)
        ctx.has_skipped = skipped is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, weight, mean, inverse_std, output = ctx.saved_tensors
        if output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        flat, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient.flatten(0, 1), frames.flatten(0, 1), weight, None, None, mean, inverse_std, True,
            BATCHNORM_EPS, [True, True, True])
        skipped_gradient = gradient if ctx.has_skipped else None
        return flat.view(frames.shape), weight_gradient, bias_gradient, None, None, skipped_gradient, None, None


def _normalise(flat: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor,
               running_var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(frames, channels) normalised, with the mean and inverse deviation (channels,); moves the running statistics."""
    if flat.device.type != "cpu" or flat.dtype != torch.float32:
        normalised, mean, inverse_std = torch.native_batch_norm(
            flat, weight, bias, running_mean, running_var, True, BATCHNORM_MOMENTUM, BATCHNORM_EPS)
        return normalised, mean, inverse_std
    # In this layout torch adds thousands of frames up one by one in float32, ten times less exactly than in NeMo's;
    # its `mean` adds in a tree.
    mean = flat.mean(0)
    variance = (flat - mean).square_().mean(0)
    running_mean.lerp_(mean, BATCHNORM_MOMENTUM)
    running_var.lerp_(variance * (len(flat) / max(len(flat) - 1, 1)), BATCHNORM_MOMENTUM)
    normalised, _, _ = torch.native_batch_norm(flat, weight, bias, mean, variance, False, 0.0, BATCHNORM_EPS)
    return normalised, mean, torch.rsqrt(variance + BATCHNORM_EPS)


def relu_and_mask(frames: Tensor, padding: Padding) -> Tensor:
    """ReLU, and zero in the padding, in the memory of `frames` (batch, frames, channels)."""
    if not torch.is_grad_enabled():
        return padding.clear_(frames.relu_())
    return cast(Tensor, _MaskedRelu.apply(frames, padding))  # type: ignore[no-untyped-call]


class _MaskedRelu(torch.autograd.Function):
    """`relu_and_mask`; zeros of the output are where the gradient stops, in the padding too."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, padding: Padding) -> Tensor:
        activated = padding.clear_(frames.relu_())
        ctx.mark_dirty(activated)
        ctx.save_for_backward(activated)
        return activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (activated,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, activated, 0), None
