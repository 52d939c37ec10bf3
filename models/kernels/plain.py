"""The kernels in PyTorch's own operations, for any device and precision: the reference for the others."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from models.padding import Padding

BF16_CHANNEL_MULTIPLE = 64
"""oneDNN's bfloat16 channels-last depthwise convolution hung at 8, 16 and 32 channels."""


def depthwise(frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor:
    """Convolve each channel with its own taps; the result is zero in its padding."""
    safe = frames.to(_safe_precision(frames))
    return padding.strided(stride).clear_(_convolve(safe, weight.to(safe.dtype), stride, dilation)).to(frames.dtype)


def depthwise_frames_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """The gradient of `frames` from that of `depthwise`'s result, whose padding is ignored and may be cleared."""
    safe = padding.strided(stride).clear_(gradient).to(_safe_precision(frames))
    taps = weight.to(safe.dtype)
    if stride == 1:
        result = _convolve(safe, taps.flip(-1), 1, dilation)
    else:
        image = conv2d_input(_image(frames).shape, taps.unsqueeze(2), _image(safe),  # type: ignore[no-untyped-call]
                             **_geometry(taps, stride, dilation))
        result = image.squeeze(2).transpose(1, 2).contiguous()
    return padding.clear_(result).to(frames.dtype)


def depthwise_weight_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """The gradient of `weight` from that of `depthwise`'s result; on a CPU summed over the utterances in float32.

    For each utterance it is a convolution of the frames with the output's gradient as kernel: 3 times faster than
    oneDNN's own, and it skips the padding.
    """
    precision = _safe_precision(frames)
    frames, gradient = frames.to(precision), padding.strided(stride).clear_(gradient).to(precision)
    if frames.device.type != "cpu":
        image: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            _image(frames), weight.unsqueeze(2).shape, _image(gradient), **_geometry(weight, stride, dilation))
        return image.squeeze(2).to(weight.dtype)
    channels, _, kernel = weight.shape
    total = torch.zeros_like(weight)
    reach = dilation * (kernel - 1) // 2
    for utterance, (end, end_after) in enumerate(zip(padding.ends, padding.strided(stride).ends, strict=True)):
        if end == 0:
            continue
        taps = _image(gradient[utterance:utterance + 1, :end_after]).transpose(0, 1)
        # Stride and dilation swap roles: a step of the output is a gap between the kernel's taps.
        correlated = F.conv2d(_image(frames[utterance:utterance + 1, :end]), taps, padding=(0, reach),
                              stride=(1, dilation), dilation=(1, stride), groups=channels)
        total += correlated[0, :, :, :kernel]
    return total


def statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (channels,) over batch and frames."""
    # In this layout torch's batch_norm sums thousands of frames one by one in float32, ten times less exactly than in
    # NeMo's; `mean` sums pairwise.
    flat = frames.flatten(0, 1).to(torch.promote_types(frames.dtype, torch.float32))
    mean = flat.mean(0)
    return mean, (flat - mean).square_().mean(0)


def normalise(frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, padding: Padding,
              activate: bool) -> Tensor:
    """`frames * scale + shift + residual`; with `activate`, through a ReLU and zero in the padding."""
    output = frames.clone() if scale is None or shift is None else torch.addcmul(shift, frames, scale)
    if residual is not None:
        output.add_(residual)
    return (padding.clear_(output.relu_()) if activate else output).to(frames.dtype)


def rectify_(frames: Tensor, residual: Tensor | None, padding: Padding) -> Tensor:
    """ReLU of `frames + residual`, zero in the padding, in the memory of `frames`."""
    if residual is not None:
        frames.add_(residual)
    return padding.clear_(frames.relu_())


def drop(frames: Tensor, share: float) -> Tensor:
    """Dropout at rate `share` by PyTorch's generator; the rest is divided by 1 - `share`. May reuse the memory."""
    return torch.native_dropout(frames, share, True)[0]


def batchnorm_backward(gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                       inverse_std: Tensor, needs_residual: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The gradients of frames, weight, bias and residual, from that of BatchNorm with the batch's statistics.

    `output` is the ReLU's output, or None without a ReLU.
    """
    if output is not None:
        gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
    flat, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
        gradient.flatten(0, 1), frames.flatten(0, 1), weight, None, None, mean, inverse_std, True, 0.0, [True] * 3)
    return flat.view(frames.shape), weight_gradient, bias_gradient, gradient if needs_residual else None


def _convolve(frames: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    # (batch, frames, channels) is a channels-last image, 15 times faster on a CPU than `conv1d`.
    image = F.conv2d(_image(frames), weight.unsqueeze(2), **_geometry(weight, stride, dilation))
    return image.squeeze(2).transpose(1, 2)


def _geometry(weight: Tensor, stride: int, dilation: int) -> dict[str, Any]:
    return {"stride": (1, stride), "padding": (0, dilation * (weight.shape[-1] - 1) // 2), "dilation": (1, dilation),
            "groups": weight.shape[0]}


def _image(frames: Tensor) -> Tensor:
    """View (batch, frames, channels) as a channels-last image (batch, channels, 1, frames)."""
    return frames.transpose(1, 2).unsqueeze(2)


def _safe_precision(frames: Tensor) -> torch.dtype:
    """The precision of `frames`, or float32 where bfloat16 can hang on a CPU."""
    is_risky = frames.dtype == torch.bfloat16 and frames.device.type == "cpu"
    return torch.float32 if is_risky and frames.shape[-1] % BF16_CHANNEL_MULTIPLE else frames.dtype
