"""The pointwise convolution, a matrix product over the channels, with both of its gradients.

On a CPU in float32 it uses oneDNN's convolution with kernel 1: oneDNN uses AVX-512 on every CPU that has it, while the
library behind PyTorch's float32 matrix product ran at half the speed on AMD.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.padding import is_traced

_NO_STRIDE, _NO_PADDING, _NO_DILATION = [1, 1], [0, 0], [1, 1]
_ONEDNN_PLEASE = [2, 1]
"""A dilation, which has no effect on a kernel of 1, but makes PyTorch choose oneDNN on a single thread too."""


def pointwise(frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, frames, channels) times `weight` (filters, channels), plus `bias` (filters,)."""
    if _is_for_onednn(frames):
        image = torch.ops.aten.mkldnn_convolution(_image(frames), weight[:, :, None, None], bias, _NO_PADDING,
                                                  _NO_STRIDE, _NO_DILATION, 1)
        return _frames(image, frames)
    return F.linear(frames, weight, bias)


def pointwise_frames_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the frames, from that of the result."""
    return pointwise(gradient, weight.T, None)


def pointwise_weight_gradient(gradient: Tensor, frames: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `weight`, from that of the result."""
    if _is_for_onednn(frames):
        _, image, _ = torch.ops.aten.convolution_backward(
            _image(gradient), _image(frames), weight[:, :, None, None], None, _NO_STRIDE, _NO_PADDING, _ONEDNN_PLEASE,
            False, [0, 0], 1, [False, True, False])
        return image[:, :, 0, 0]  # type: ignore[no-any-return]
    return gradient.flatten(0, 1).T @ frames.flatten(0, 1)


def _is_for_onednn(frames: Tensor) -> bool:
    return (frames.device.type == "cpu" and frames.dtype == torch.float32 and not is_traced()
            and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _image(frames: Tensor) -> Tensor:
    """All frames of the batch in a row, as a channels-last image (1, channels, 1, frames)."""
    return frames.reshape(1, 1, -1, frames.shape[-1]).permute(0, 3, 1, 2)


def _frames(image: Tensor, like: Tensor) -> Tensor:
    return image[0, :, 0].T.reshape(*like.shape[:-1], -1).contiguous()
