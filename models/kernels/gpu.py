"""The kernels for GPUs: how the work is divided, and the launches of the Triton kernels in `triton_kernels`.

Frames are (batch, frames, channels) in any of `PRECISIONS`; sums are float32. No kernel waits for the host and none
adds with atomics, so results repeat.
"""

import os
from typing import Any

import torch
from torch import Tensor

from models.kernels import plain
from models.kernels.triton_kernels import (
    batchnorm_apply_kernel,
    batchnorm_sums_kernel,
    depthwise_kernel,
    depthwise_weight_gradient_kernel,
    join_kernel,
    normalise_kernel,
    statistics_kernel,
)
from models.padding import Padding

try:
    import triton
except ImportError:
    triton = None

SWITCH = "CUARZO_GPU_KERNELS"
"""Set this environment variable to 0 to turn these kernels off."""
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels read and write."""

COLUMNS = 64
"""Channels per program: in the convolutions, a warp reads a cache line of bfloat16, two channels per thread."""
ROWS = 128
"""Frames per program without taps; with 8 warps a thread has four loads of 16 bytes per tensor in flight."""
JOINED = 256, 8
"""Chunks and channels that a program joins at once."""
SEGMENTS = 4
"""Warps per convolution program, each with outputs of its own."""
SPANS = range(8, 22)
"""Sums per thread and channel; with more, fewer than four programs fit on a multiprocessor."""
MAX_SUMS = 22
"""The same in the gradient of the weight, so that four warps hold the 87 taps of the widest convolution."""
OVERHEAD = 6
"""Instructions per row and tap in addition to a thread's products, in units of its two channels."""
ITEM_SPANS = 6
"""Spans of frames of one utterance that a program of the weight's gradient processes at a time."""
WARPS = 2048
"""Warps of the weight's gradient: 16 per multiprocessor of an H100 or H200."""


def is_available() -> bool:
    """Whether Triton is installed and not turned off."""
    return triton is not None and os.environ.get(SWITCH) != "0"


def depthwise(frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor:
    """As `plain.depthwise`, but the weight is never rounded to the precision of the frames."""
    return _depthwise(frames, weight, padding, stride, dilation, is_reversed=False)


def depthwise_frames_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_frames_gradient`."""
    if stride > 1:  # only the first layer has one, and the gradient of the features is not needed
        return plain.depthwise_frames_gradient(gradient, frames, weight, padding, stride, dilation)
    return _depthwise(gradient, weight, padding, 1, dilation, is_reversed=True)


def depthwise_weight_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_weight_gradient`: a partial sum per program, then their sum."""
    batch, num_frames, channels = frames.shape
    kernel, num_after = weight.shape[-1], padding.strided(stride).num_frames
    segments, span = weight_gradient_shape(kernel, stride)
    item, tiles = ITEM_SPANS * span, _divided_up(channels, COLUMNS)
    items = batch * dilation * _divided_up(num_after, item * dilation)
    chunks = min(items, _divided_up(WARPS, segments * tiles))
    partial = torch.empty(chunks, kernel, channels, device=frames.device)
    _launch(depthwise_weight_gradient_kernel, (tiles, chunks), frames, gradient, padding.lengths, partial, num_frames,
            num_after, items, CHANNELS=channels, KERNEL=kernel, STRIDE=stride, DILATION=dilation, SPAN=span,
            SEGMENTS=segments, ITEM=item, COLUMNS=COLUMNS, num_warps=segments)
    return partial.sum(0).T.unsqueeze(1).to(weight.dtype)


def statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """As `plain.statistics`: each chunk of frames about its own mean, the chunks joined in float64."""
    count, channels = frames.shape[0] * frames.shape[1], frames.shape[2]
    chunks, tiles = _divided_up(count, ROWS), _divided_up(channels, COLUMNS)
    means, squares = torch.empty(2, chunks, channels, device=frames.device)
    mean, variance = torch.empty(2, channels, device=frames.device)
    _launch(statistics_kernel, (tiles, chunks), frames, means, squares, count, CHANNELS=channels, ROWS=ROWS,
            COLUMNS=COLUMNS, num_warps=8)
    _launch(join_kernel, (_divided_up(channels, JOINED[1]),), means, squares, mean, variance, count,
            CHANNELS=channels, ROWS=ROWS, CHUNKS=JOINED[0], COLUMNS=JOINED[1])
    return mean, variance


def normalise(frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, padding: Padding,
              activate: bool) -> Tensor:
    """As `plain.normalise`, in one pass over the frames."""
    return _normalise(frames, scale, shift, residual, padding, activate, torch.empty_like(frames))


def rectify_(frames: Tensor, residual: Tensor | None, padding: Padding) -> Tensor:
    """As `plain.rectify_`, in one pass over the frames."""
    return _normalise(frames, None, None, residual, padding, True, frames)


def drop(frames: Tensor, share: float) -> Tensor:
    """As `plain.drop`, which is a single PyTorch kernel."""
    return plain.drop(frames, share)


def batchnorm_backward(gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                       inverse_std: Tensor, needs_residual: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `plain.batchnorm_backward`, in two passes over the frames."""
    count, channels = frames.shape[0] * frames.shape[1], frames.shape[2]
    gradient, frames_gradient = gradient.contiguous(), torch.empty_like(frames)
    masked = torch.empty_like(gradient) if needs_residual and output is not None else None
    chunks, tiles = _divided_up(count, ROWS), _divided_up(channels, COLUMNS)
    partial = torch.empty(chunks, 2, channels, device=frames.device)
    _launch(batchnorm_sums_kernel, (tiles, chunks), gradient, output, frames, mean, inverse_std, partial, masked,
            count, CHANNELS=channels, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8)
    if masked is not None:
        gradient, output = masked, None
    sums = partial.sum(0)
    _launch(batchnorm_apply_kernel, (tiles, chunks), gradient, output, frames, weight, mean, inverse_std, sums,
            frames_gradient, count, CHANNELS=channels, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8)
    bias_gradient, weight_gradient = sums
    return frames_gradient, weight_gradient, bias_gradient, gradient if needs_residual else None


def _depthwise(frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int, *,
               is_reversed: bool) -> Tensor:
    batch, num_frames, channels = frames.shape
    num_after, kernel = padding.strided(stride).num_frames, weight.shape[-1]
    output = frames.new_empty(batch, num_after, channels)
    span = depthwise_span(_divided_up(kernel, stride))
    grid = (_divided_up(channels, COLUMNS), _divided_up(num_after, SEGMENTS * span), batch)
    _launch(depthwise_kernel, grid, frames, weight[:, 0].T.float().contiguous(), padding.lengths, output,
            num_frames, num_after, CHANNELS=channels, KERNEL=kernel, STRIDE=stride, DILATION=dilation,
            IS_REVERSED=is_reversed, SPAN=span, SEGMENTS=SEGMENTS, COLUMNS=COLUMNS, num_warps=SEGMENTS)
    return output


def depthwise_span(taps: int) -> int:
    """The number of sums per thread for which `taps`, rounded up to a multiple of it, cost the fewest instructions."""
    return min(SPANS, key=lambda span: _divided_up(taps, span) * (span + OVERHEAD))


def weight_gradient_shape(kernel: int, stride: int) -> tuple[int, int]:
    """Warps per program, and the sums per thread with which they cover all taps."""
    taps = _divided_up(kernel, stride)
    segments = triton.next_power_of_2(stride * _divided_up(taps, MAX_SUMS))
    return segments, _divided_up(taps, segments // stride)


def _normalise(frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, padding: Padding,
               activate: bool, output: Tensor) -> Tensor:
    batch, num_frames, channels = frames.shape
    grid = (_divided_up(channels, COLUMNS), _divided_up(num_frames, ROWS), batch)
    _launch(normalise_kernel, grid, frames, scale, shift, residual, padding.lengths, output, num_frames,
            CHANNELS=channels, ACTIVATE=activate, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8)
    return output


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int | None, **constants: int) -> None:
    """Start a kernel for contiguous tensors on the device of the first; changed integers need no recompilation."""
    for argument in arguments:
        assert not isinstance(argument, Tensor) or argument.is_contiguous(), f"a tensor of strides {argument.stride()}"
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*arguments, **constants)


def _divided_up(value: int, by: int) -> int:
    return -(-value // by)
