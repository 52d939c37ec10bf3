"""The separable convolution of QuartzNet on (batch, frames, channels), with a backward pass of its own.

Memory is laid out as (batch, frames, channels): the pointwise half is then a plain matrix product, and the depthwise
half runs as a channels-last `conv2d`, which is 15 times faster on a CPU than the same `conv1d`.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

BF16_CHANNEL_MULTIPLE = 64
"""oneDNN's bfloat16 channels-last depthwise convolution was seen to hang at 8, 16 and 32 channels."""


class Padding:
    """Which frames of a padded batch are sound, and how to silence the others.

    `lengths` is (batch,) on the device of the frames; `num_frames` is the padded length.
    """

    def __init__(self, lengths: Tensor, num_frames: int) -> None:
        self.lengths = lengths
        self.num_frames = num_frames
        self._mask: Tensor | None = None
        self._ends: list[int] | None = None
        if lengths.device.type == "cpu" and not _is_traced():
            self._ends = [min(int(end), num_frames) for end in lengths.tolist()]

    @property
    def ends(self) -> Sequence[int]:
        """Valid frames of each utterance, as numbers; on a GPU the padded length, as reading them would wait."""
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
        """The padding after a convolution of this stride that keeps the length otherwise."""
        if stride == 1:
            return self
        lengths = torch.div(self.lengths - 1, stride, rounding_mode="floor") + 1
        return Padding(lengths, (self.num_frames - 1) // stride + 1)


def _is_traced() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]


def depthwise_convolution(frames: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel of (batch, frames, channels) with its own row of `weight` (channels, 1, kernel)."""
    padding = dilation * (weight.shape[-1] - 1) // 2
    convolved = F.conv2d(_as_image(frames), weight.unsqueeze(2), stride=(1, stride), padding=(0, padding),
                         dilation=(1, dilation), groups=weight.shape[0])
    return convolved.squeeze(2).transpose(1, 2)


def separable_convolution(frames: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None,
                          padding: Padding, stride: int = 1, dilation: int = 1) -> Tensor:
    """Depthwise, then pointwise convolution, the padding silent between the two as in NeMo.

    `frames` (batch, frames, channels) must be zero in the padding; `depthwise` is (channels, 1, kernel), `pointwise`
    (filters, channels), `bias` (filters,) or None. Returns (batch, frames after the stride, filters), in which the
    padding holds `bias` or zero.
    """
    dtype = depthwise_dtype(frames, depthwise.shape[0])
    frames, depthwise = frames.to(dtype), depthwise.to(dtype)
    if torch.is_grad_enabled() and frames.device.type == "cpu" and not _is_traced():
        pointwise = pointwise.to(compute_dtype(frames))
        bias = None if bias is None else bias.to(pointwise.dtype)
        return cast(Tensor, _SeparableConvolution.apply(  # type: ignore[no-untyped-call]
            frames, depthwise, pointwise, bias, padding, stride, dilation))
    convolved = depthwise_convolution(frames, depthwise, stride, dilation)
    after = padding.strided(stride)
    if torch.is_grad_enabled():
        return F.linear(convolved.masked_fill(after.mask, 0.0), pointwise, bias)
    return F.linear(after.clear_(convolved), pointwise, bias)


def compute_dtype(frames: Tensor) -> torch.dtype:
    """The precision that autocast asks for on the device of `frames`, or their own."""
    device = frames.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frames.dtype


def depthwise_dtype(frames: Tensor, channels: int) -> torch.dtype:
    """As `compute_dtype`, but float32 where bfloat16 is known to hang on a CPU."""
    dtype = compute_dtype(frames)
    if dtype == torch.bfloat16 and frames.device.type == "cpu" and channels % BF16_CHANNEL_MULTIPLE:
        return torch.float32
    return dtype


def _as_image(frames: Tensor) -> Tensor:
    """(batch, frames, channels) seen as a channels-last image (batch, channels, 1, frames)."""
    return frames.transpose(1, 2).unsqueeze(2)


class _SeparableConvolution(torch.autograd.Function):
    """`separable_convolution` with a faster backward pass than autograd's on a CPU.

    The gradient of the frames is the same convolution with the kernel reversed. The gradient of the depthwise weight
    is, for each utterance, a convolution of its frames whose kernel is the gradient of the output: 3 times faster
    than oneDNN's own, and frames in the padding are skipped.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None,
                padding: Padding, stride: int, dilation: int) -> Tensor:
        ctx.padding, ctx.stride, ctx.dilation, ctx.has_bias = padding, stride, dilation, bias is not None
        with torch.autocast(frames.device.type, enabled=False):
            convolved = depthwise_convolution(frames, depthwise, stride, dilation)
            convolved = padding.strided(stride).clear_(convolved).to(pointwise.dtype)
            ctx.save_for_backward(frames, depthwise, pointwise, convolved)
            return _linear(convolved, pointwise, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, depthwise, pointwise, convolved = ctx.saved_tensors
        needs_frames, needs_depthwise, needs_pointwise, needs_bias = ctx.needs_input_grad[:4]
        frames_gradient = depthwise_gradient = pointwise_gradient = bias_gradient = None
        with torch.autocast(frames.device.type, enabled=False):
            if needs_pointwise:
                pointwise_gradient = gradient.flatten(0, 1).T @ convolved.flatten(0, 1)
            if ctx.has_bias and needs_bias:
                bias_gradient = gradient.sum((0, 1))
            if needs_frames or needs_depthwise:
                after = ctx.padding.strided(ctx.stride)
                inner = after.clear_(gradient @ pointwise).to(frames.dtype)
                if needs_frames:
                    frames_gradient = ctx.padding.clear_(
                        _frames_gradient(inner, frames, depthwise, ctx.stride, ctx.dilation))
                if needs_depthwise:
                    depthwise_gradient = _weight_gradient(
                        inner, frames, depthwise.shape[-1], ctx.padding, ctx.stride, ctx.dilation)
        return frames_gradient, depthwise_gradient, pointwise_gradient, bias_gradient, None, None, None


def _linear(frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `F.linear`, whose result is a view, and a view from inside a Function may not be changed in place later."""
    output = frames.new_empty(*frames.shape[:-1], weight.shape[0])
    if bias is None:
        torch.mm(frames.flatten(0, 1), weight.T, out=output.flatten(0, 1))
    else:
        torch.addmm(bias, frames.flatten(0, 1), weight.T, out=output.flatten(0, 1))
    return output


def _frames_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    if stride == 1:
        return depthwise_convolution(gradient, weight.flip(-1), 1, dilation)
    padding = dilation * (weight.shape[-1] - 1) // 2
    image: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        _as_image(frames).shape, weight.unsqueeze(2), _as_image(gradient), stride=(1, stride), padding=(0, padding),
        dilation=(1, dilation), groups=weight.shape[0])
    return image.squeeze(2).transpose(1, 2).contiguous()


def _weight_gradient(gradient: Tensor, frames: Tensor, kernel: int, padding: Padding, stride: int,
                     dilation: int) -> Tensor:
    """(channels, 1, kernel), summed in float32 over the utterances."""
    channels = frames.shape[-1]
    total = torch.zeros(channels, 1, kernel)
    reach = dilation * (kernel - 1) // 2
    for utterance, (end, end_after) in enumerate(zip(padding.ends, padding.strided(stride).ends, strict=True)):
        if end == 0:
            continue
        image = _as_image(frames[utterance:utterance + 1, :end])
        taps = _as_image(gradient[utterance:utterance + 1, :end_after]).transpose(0, 1)
        # Stride and dilation change places: a step of the output is a gap between the kernel's taps.
        correlated = F.conv2d(image, taps, padding=(0, reach), stride=(1, dilation), dilation=(1, stride),
                              groups=channels)
        total += correlated[0, :, :, :kernel]
    return total.to(frames.dtype)
