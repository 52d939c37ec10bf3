"""The separable convolution of QuartzNet on (batch, frames, channels), with a backward pass of its own."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import kernels_for
from models.padding import Padding, is_traced
from models.pointwise import pointwise, pointwise_frames_gradient, pointwise_weight_gradient


def compute_dtype(frames: Tensor) -> torch.dtype:
    """Autocast's precision on the device of `frames`, or their own."""
    device = frames.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frames.dtype


def separable_convolution(frames: Tensor, depthwise: Tensor | None, mixing: Tensor, bias: Tensor | None,
                          padding: Padding, stride: int = 1, dilation: int = 1) -> Tensor:
    """Depthwise, then pointwise convolution, with the padding zeroed between the two as in NeMo.

    `frames` (batch, frames, channels) must be zero in the padding; `depthwise` is (channels, 1, kernel), or None for
    only a pointwise convolution, `mixing` (filters, channels), `bias` (filters,) or None. Returns (batch, frames after
    the stride, filters), whose padding holds `bias` or zero.
    """
    dtype = compute_dtype(frames)
    frames, mixing, bias = frames.to(dtype), mixing.to(dtype), None if bias is None else bias.to(dtype)
    if torch.is_grad_enabled() and not is_traced():
        return cast(Tensor, _SeparableConvolution.apply(
            frames, depthwise, mixing, bias, padding, stride, dilation))
    return pointwise(_convolved(frames, depthwise, padding, stride, dilation), mixing, bias)


def _convolved(frames: Tensor, depthwise: Tensor | None, padding: Padding, stride: int, dilation: int) -> Tensor:
    """The frames after the depthwise half, if there is one."""
    if depthwise is None:
        return frames
    return kernels_for(frames).depthwise(frames, depthwise, padding, stride, dilation)


class _SeparableConvolution(torch.autograd.Function):
    """`separable_convolution` with the kernels' gradients instead of autograd's."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, depthwise: Tensor | None, mixing: Tensor, bias: Tensor | None,
                padding: Padding, stride: int, dilation: int) -> Tensor:
        ctx.padding, ctx.stride, ctx.dilation = padding, stride, dilation
        with torch.autocast(frames.device.type, enabled=False):
            hidden = _convolved(frames, depthwise, padding, stride, dilation)
            ctx.save_for_backward(frames, depthwise, mixing, hidden)
            return pointwise(hidden, mixing, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, depthwise, mixing, hidden = ctx.saved_tensors
        needs_frames, needs_depthwise, needs_mixing, needs_bias = ctx.needs_input_grad[:4]
        frames_gradient = depthwise_gradient = mixing_gradient = bias_gradient = None
        gradient = gradient.contiguous()
        with torch.autocast(frames.device.type, enabled=False):
            if needs_mixing:
                mixing_gradient = pointwise_weight_gradient(gradient, hidden, mixing)
            if needs_bias:
                bias_gradient = gradient.sum((0, 1))
            if needs_frames or needs_depthwise:
                inner = pointwise_frames_gradient(gradient, mixing)
                if depthwise is None:
                    frames_gradient = ctx.padding.clear_(inner)
                else:
                    kernels, shape = kernels_for(frames), (ctx.padding, ctx.stride, ctx.dilation)
                    if needs_frames:
                        frames_gradient = kernels.depthwise_frames_gradient(inner, frames, depthwise, *shape)
                    if needs_depthwise:
                        depthwise_gradient = kernels.depthwise_weight_gradient(inner, frames, depthwise, *shape)
        return frames_gradient, depthwise_gradient, mixing_gradient, bias_gradient, None, None, None
