# mypy: allow-untyped-defs, allow-incomplete-defs
"""The kernels for GPUs in Triton, compiled on first use and kept in Triton's cache.

Frames are (batch, frames, channels) in any of `PRECISIONS`; sums are float32. No kernel waits for the host, none adds
with atomics, so results repeat.

A depthwise convolution has few products for each number that it loads, and a load costs as much as a product. So each
thread keeps `SPAN` sums and as many rows in registers, and each row that is loaded serves all the sums.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.kernels import plain
from models.padding import Padding

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

SWITCH = "CUARZO_GPU_KERNELS"
"""Set this environment variable to 0 to do without these kernels."""
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels read and write."""

COLUMNS = 64
"""Channels of a program: in bfloat16 a warp reads a cache line, two channels a thread, in the convolutions."""
ROWS = 128
"""Frames of a program without taps; with 8 warps a thread has four loads of 16 bytes of each tensor under way."""
JOINED = 256, 8
"""Chunks and channels that a program joins at a time."""
SEGMENTS = 4
"""Warps of a convolution's program, each with outputs of its own."""
SPANS = range(8, 22)
"""Sums of a thread, for each of its channels; with more, fewer than four programs fit on a multiprocessor."""
MAX_SUMS = 22
"""The same in the gradient of the weight, so that four warps have the 87 taps of the widest convolution."""
OVERHEAD = 6
"""Instructions for each row and tap beside a thread's products, in units of its two channels."""
ITEM_SPANS = 6
"""Spans of frames of one utterance that a program of the weight's gradient takes at a time."""
WARPS = 2048
"""Warps of the weight's gradient: 16 for each multiprocessor of an H100 or H200."""


def is_available() -> bool:
    """Whether Triton is installed, and not switched off."""
    return triton is not None and os.environ.get(SWITCH) != "0"


def depthwise(frames: Tensor, weight: Tensor, padding: Padding, stride: int, dilation: int) -> Tensor:
    """As `plain.depthwise`, but the weight is never rounded to the precision of the frames."""
    return _depthwise(frames, weight, padding, stride, dilation, is_reversed=False)


def depthwise_frames_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_frames_gradient`."""
    if stride > 1:  # a first layer alone has one, and no one asks for the gradient of the features
        return plain.depthwise_frames_gradient(gradient, frames, weight, padding, stride, dilation)
    return _depthwise(gradient, weight, padding, 1, dilation, is_reversed=True)


def depthwise_weight_gradient(gradient: Tensor, frames: Tensor, weight: Tensor, padding: Padding, stride: int,
                              dilation: int) -> Tensor:
    """As `plain.depthwise_weight_gradient`; partial sums of as many utterances as a program takes, then their sum."""
    batch, num_frames, channels = frames.shape
    kernel, num_after = weight.shape[-1], padding.strided(stride).num_frames
    segments, span = weight_gradient_shape(kernel, stride)
    item, tiles = ITEM_SPANS * span, _divided_up(channels, COLUMNS)
    items = batch * dilation * _divided_up(num_after, item * dilation)
    chunks = min(items, _divided_up(WARPS, segments * tiles))
    partial = torch.empty(chunks, kernel, channels, device=frames.device)
    _launch(_depthwise_weight_gradient_kernel, (tiles, chunks), frames, gradient, padding.lengths, partial, num_frames,
            num_after, items, CHANNELS=channels, KERNEL=kernel, STRIDE=stride, DILATION=dilation, SPAN=span,
            SEGMENTS=segments, ITEM=item, COLUMNS=COLUMNS, num_warps=segments)
    return partial.sum(0).T.unsqueeze(1).to(weight.dtype)


def statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """As `plain.statistics`: each chunk of frames about its own mean, the chunks joined in float64."""
    count, channels = frames.shape[0] * frames.shape[1], frames.shape[2]
    chunks, tiles = _divided_up(count, ROWS), _divided_up(channels, COLUMNS)
    means, squares = torch.empty(2, chunks, channels, device=frames.device)
    mean, variance = torch.empty(2, channels, device=frames.device)
    _launch(_statistics_kernel, (tiles, chunks), frames, means, squares, count, CHANNELS=channels, ROWS=ROWS,
            COLUMNS=COLUMNS, num_warps=8)
    _launch(_join_kernel, (_divided_up(channels, JOINED[1]),), means, squares, mean, variance, count,
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
    """As `plain.drop`, which is one kernel of PyTorch's."""
    return plain.drop(frames, share)


def batchnorm_backward(gradient: Tensor, output: Tensor | None, frames: Tensor, weight: Tensor, mean: Tensor,
                       inverse_std: Tensor, needs_residual: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `plain.batchnorm_backward`, in two passes over the frames."""
    count, channels = frames.shape[0] * frames.shape[1], frames.shape[2]
    gradient, frames_gradient = gradient.contiguous(), torch.empty_like(frames)
    masked = torch.empty_like(gradient) if needs_residual and output is not None else None
    chunks, tiles = _divided_up(count, ROWS), _divided_up(channels, COLUMNS)
    partial = torch.empty(chunks, 2, channels, device=frames.device)
    _launch(_batchnorm_sums_kernel, (tiles, chunks), gradient, output, frames, mean, inverse_std, partial, masked,
            count, CHANNELS=channels, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8)
    if masked is not None:
        gradient, output = masked, None
    sums = partial.sum(0)
    _launch(_batchnorm_apply_kernel, (tiles, chunks), gradient, output, frames, weight, mean, inverse_std, sums,
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
    _launch(_depthwise_kernel, grid, frames, weight[:, 0].T.float().contiguous(), padding.lengths, output,
            num_frames, num_after, CHANNELS=channels, KERNEL=kernel, STRIDE=stride, DILATION=dilation,
            IS_REVERSED=is_reversed, SPAN=span, SEGMENTS=SEGMENTS, COLUMNS=COLUMNS, num_warps=SEGMENTS)
    return output


def depthwise_span(taps: int) -> int:
    """The number of sums of a thread with which `taps`, made up to a multiple of it, cost the fewest instructions."""
    return min(SPANS, key=lambda span: _divided_up(taps, span) * (span + OVERHEAD))


def weight_gradient_shape(kernel: int, stride: int) -> tuple[int, int]:
    """Warps of a program, and the sums of a thread with which they have all taps between them."""
    taps = _divided_up(kernel, stride)
    segments = triton.next_power_of_2(stride * _divided_up(taps, MAX_SUMS))
    return segments, _divided_up(taps, segments // stride)


def _normalise(frames: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, padding: Padding,
               activate: bool, output: Tensor) -> Tensor:
    batch, num_frames, channels = frames.shape
    grid = (_divided_up(channels, COLUMNS), _divided_up(num_frames, ROWS), batch)
    _launch(_normalise_kernel, grid, frames, scale, shift, residual, padding.lengths, output, num_frames,
            CHANNELS=channels, ACTIVATE=activate, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8)
    return output


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int | None, **constants: int) -> None:
    """Start a kernel for contiguous tensors on the device of the first; integers may change without a compilation."""
    for argument in arguments:
        assert not isinstance(argument, Tensor) or argument.is_contiguous(), f"a tensor of strides {argument.stride()}"
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*arguments, **constants)


def _divided_up(value: int, by: int) -> int:
    return -(-value // by)


def _kernel(*variable: str) -> Callable[[Any], Any]:
    """`triton.jit`, where there is Triton, which compiles once for all values of the arguments named."""
    if triton is None:
        return lambda function: function
    return triton.jit(do_not_specialize=list(variable))  # type: ignore[no-any-return]


# --- depthwise convolution -------------------------------------------------------------------------------------------


@_kernel()
def _load_row(at, row, end, column, CHANNELS: tl.constexpr):
    """Row `row` of an utterance in float32, zero outside of [0, `end`)."""
    is_valid = (row.to(tl.uint32, bitcast=True) < end.to(tl.uint32)) & (column < CHANNELS)
    return tl.load(at, mask=is_valid, other=0.0).to(tl.float32)


@_kernel()
def _correlate(rows, row, end, factors, count, column, sums, SPAN: tl.constexpr, ROW_STEP: tl.constexpr,
               FACTOR_STEP: tl.constexpr, CHANNELS: tl.constexpr):
    """sums[r] + the sum over i < `count` of row `row + (r + i) * ROW_STEP` times `factors[i * FACTOR_STEP]`."""
    at = rows + row.to(tl.int64) * CHANNELS + column
    factor_at = factors + column
    window = sums[:0]
    for r in tl.static_range(SPAN):
        window = window + (_load_row(at + r * ROW_STEP * CHANNELS, row + r * ROW_STEP, end, column, CHANNELS),)
    for start in tl.range(0, count, SPAN):
        at += SPAN * ROW_STEP * CHANNELS
        row += SPAN * ROW_STEP
        left = count - start
        for i in tl.static_range(SPAN):
            factor = tl.load(factor_at + i * FACTOR_STEP * CHANNELS, mask=(i < left) & (column < CHANNELS), other=0.0)
            factor = factor.to(tl.float32)
            added = sums[:0]
            for r in tl.static_range(SPAN):
                added = added + (sums[r] + window[(r + i) % SPAN] * factor,)
            sums = added
            # The row that comes next takes the place of the one that no sum needs any more.
            fresh = _load_row(at + i * ROW_STEP * CHANNELS, row + i * ROW_STEP, end, column, CHANNELS)
            window = window[:i] + (fresh,) + window[i + 1:]
        factor_at += SPAN * FACTOR_STEP * CHANNELS
    return sums


# In both kernels `stride` or `dilation` is 1. A stride deals the frames out to as many phases, each with its own taps;
# a dilation to as many, each with its own outputs. Within a phase the convolution is plain.


@_kernel("num_frames", "num_after")
def _depthwise_kernel(frames, weight, lengths, output, num_frames, num_after, CHANNELS: tl.constexpr,
                      KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, IS_REVERSED: tl.constexpr,
                      SPAN: tl.constexpr, SEGMENTS: tl.constexpr, COLUMNS: tl.constexpr):
    """`weight` is (kernel, channels), float32; each program has `SEGMENTS` times `SPAN` outputs."""
    utterance = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :] + tl.zeros([SEGMENTS, 1], tl.int32)
    segment = tl.program_id(1) * SEGMENTS + tl.arange(0, SEGMENTS)[:, None]
    first = segment // DILATION * (DILATION * SPAN) + segment % DILATION
    begin = tl.program_id(1) * SEGMENTS // DILATION * (DILATION * SPAN)
    end = tl.load(lengths + utterance).to(tl.int32)
    end_after = (end + STRIDE - 1) // STRIDE

    sums = (tl.zeros([SEGMENTS, COLUMNS], tl.float32),) * SPAN
    for phase in tl.range(STRIDE):
        count = tl.where(begin < end_after, (KERNEL - phase + STRIDE - 1) // STRIDE, 0)
        row = first * STRIDE + phase - DILATION * (KERNEL - 1) // 2
        tap = KERNEL - 1 if IS_REVERSED else phase
        sums = _correlate(frames + utterance * num_frames * CHANNELS, row, end, weight + tap * CHANNELS, count, column,
                          sums, SPAN, STRIDE * DILATION, -1 if IS_REVERSED else STRIDE, CHANNELS)
    for r in tl.static_range(SPAN):
        frame = first + r * DILATION
        tl.store(output + (utterance * num_after + frame) * CHANNELS + column,
                 tl.where(frame < end_after, sums[r], 0.0), mask=(frame < num_after) & (column < CHANNELS))


@_kernel("num_frames", "num_after", "items")
def _depthwise_weight_gradient_kernel(frames, gradient, lengths, partial, num_frames, num_after, items,
                                      CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
                                      DILATION: tl.constexpr, SPAN: tl.constexpr, SEGMENTS: tl.constexpr,
                                      ITEM: tl.constexpr, COLUMNS: tl.constexpr):
    """`partial` is (chunks, kernel, channels), float32; taps and outputs change places in the sums."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :] + tl.zeros([SEGMENTS, 1], tl.int32)
    segment = tl.arange(0, SEGMENTS)[:, None]
    tap = segment // STRIDE * (STRIDE * SPAN) + segment % STRIDE
    tiles = tl.cdiv(num_after, ITEM * DILATION) * DILATION

    sums = (tl.zeros([SEGMENTS, COLUMNS], tl.float32),) * SPAN
    for item in tl.range(tl.program_id(1), items, tl.num_programs(1)):
        utterance = (item // tiles).to(tl.int64)
        end = tl.load(lengths + utterance).to(tl.int32)
        end_after = (end + STRIDE - 1) // STRIDE
        tile = item % tiles
        first = tile // DILATION * (ITEM * DILATION) + tile % DILATION
        count = tl.minimum((end_after - first + DILATION - 1) // DILATION, ITEM)
        row = first * STRIDE + tap * DILATION - DILATION * (KERNEL - 1) // 2
        sums = _correlate(frames + utterance * num_frames * CHANNELS, row, end,
                          gradient + (utterance * num_after + first) * CHANNELS, count, column, sums, SPAN,
                          STRIDE * DILATION, DILATION, CHANNELS)
    for r in tl.static_range(SPAN):
        tap_r = tap + r * STRIDE
        tl.store(partial + (tl.program_id(1) * KERNEL + tap_r) * CHANNELS + column, sums[r],
                 mask=(tap_r < KERNEL) & (column < CHANNELS))


# --- BatchNorm, residual sum, ReLU and mask --------------------------------------------------------------------------


@_kernel("count")
def _statistics_kernel(frames, means, squares, count, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
                       COLUMNS: tl.constexpr):
    """Mean and sum of squares about it, (chunks, channels) each, of every chunk of `ROWS` frames."""
    chunk = tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_valid = (row < count)[:, None] & (column < CHANNELS)[None, :]
    values = tl.load(frames + row[:, None].to(tl.int64) * CHANNELS + column[None, :], mask=is_valid, other=0.0)
    values = values.to(tl.float32)
    mean = tl.sum(values, 0) / tl.minimum(count - chunk * ROWS, ROWS)
    deviation = tl.where(is_valid, values - mean[None, :], 0.0)
    tl.store(means + chunk * CHANNELS + column, mean, mask=column < CHANNELS)
    tl.store(squares + chunk * CHANNELS + column, tl.sum(deviation * deviation, 0), mask=column < CHANNELS)


@_kernel("count")
def _join_kernel(means, squares, mean, variance, count, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
                 CHUNKS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and biased variance (channels,) from those of the chunks, in float64: squares of means may then cancel."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float64)
    total_square = tl.zeros([COLUMNS], tl.float64)
    for first in tl.range(0, tl.cdiv(count, ROWS), CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        rows = tl.maximum(tl.minimum(count - chunk * ROWS, ROWS), 0)[:, None]
        is_valid = (rows > 0) & (column < CHANNELS)[None, :]
        at = chunk[:, None] * CHANNELS + column[None, :]
        centre = tl.load(means + at, mask=is_valid, other=0.0).to(tl.float64)
        total += tl.sum(centre * rows, 0)
        total_square += tl.sum(centre * centre * rows + tl.load(squares + at, mask=is_valid, other=0.0), 0)
    joined = total / count
    tl.store(mean + column, joined.to(tl.float32), mask=column < CHANNELS)
    tl.store(variance + column, (total_square / count - joined * joined).to(tl.float32), mask=column < CHANNELS)


@_kernel("num_frames")
def _normalise_kernel(frames, scale, shift, residual, lengths, output, num_frames, CHANNELS: tl.constexpr,
                      ACTIVATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`frames * scale + shift + residual`, each but `frames` where it is not None; the padding is not read."""
    utterance = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_inside = (row < num_frames)[:, None] & (column < CHANNELS)[None, :]
    is_read = is_inside
    if ACTIVATE:
        is_read = is_inside & (row < tl.load(lengths + utterance))[:, None]
    at = utterance * num_frames * CHANNELS + row[:, None].to(tl.int64) * CHANNELS + column[None, :]
    value = tl.load(frames + at, mask=is_read, other=0.0).to(tl.float32)
    if scale is not None:
        factor = tl.load(scale + column, mask=column < CHANNELS, other=0.0)
        value = value * factor[None, :] + tl.load(shift + column, mask=column < CHANNELS, other=0.0)[None, :]
    if residual is not None:
        value += tl.load(residual + at, mask=is_read, other=0.0).to(tl.float32)
    if ACTIVATE:
        value = tl.where(is_read & ~(value < 0.0), value, 0.0)  # a NaN passes
    tl.store(output + at, value, mask=is_inside)


@_kernel()
def _load_rectified(gradient, output, at, is_valid):
    """The gradient before the ReLU: nothing where `output` is not positive; without a ReLU it is None."""
    value = tl.load(gradient + at, mask=is_valid, other=0.0).to(tl.float32)
    if output is not None:
        value = tl.where(tl.load(output + at, mask=is_valid, other=0.0).to(tl.float32) > 0.0, value, 0.0)
    return value


@_kernel("count")
def _batchnorm_sums_kernel(gradient, output, frames, mean, inverse_std, partial, masked, count,
                           CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of the gradient, alone and times the normalised frames, (chunks, 2, channels); `masked` takes the former."""
    chunk = tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_valid = (row < count)[:, None] & (column < CHANNELS)[None, :]
    at = row[:, None].to(tl.int64) * CHANNELS + column[None, :]
    value = _load_rectified(gradient, output, at, is_valid)
    if masked is not None:
        tl.store(masked + at, value, mask=is_valid)
    centre = tl.load(mean + column, mask=column < CHANNELS, other=0.0)
    centred = tl.load(frames + at, mask=is_valid, other=0.0).to(tl.float32) - centre[None, :]
    product = tl.sum(value * centred, 0) * tl.load(inverse_std + column, mask=column < CHANNELS, other=0.0)
    tl.store(partial + chunk * 2 * CHANNELS + column, tl.sum(value, 0), mask=column < CHANNELS)
    tl.store(partial + (chunk * 2 + 1) * CHANNELS + column, product, mask=column < CHANNELS)


@_kernel("count")
def _batchnorm_apply_kernel(gradient, output, frames, weight, mean, inverse_std, sums, frames_gradient, count,
                            CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The gradient of the frames, from `sums` (2, channels), which are the gradients of bias and weight."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_valid = (row < count)[:, None] & (column < CHANNELS)[None, :]
    at = row[:, None].to(tl.int64) * CHANNELS + column[None, :]
    is_channel = column < CHANNELS
    inverse = tl.load(inverse_std + column, mask=is_channel, other=0.0)
    scale = tl.load(weight + column, mask=is_channel, other=0.0) * inverse
    slope = scale * inverse * tl.load(sums + CHANNELS + column, mask=is_channel, other=0.0) / count
    constant = scale * tl.load(sums + column, mask=is_channel, other=0.0) / count
    centre = tl.load(mean + column, mask=is_channel, other=0.0)
    centred = tl.load(frames + at, mask=is_valid, other=0.0).to(tl.float32) - centre[None, :]
    value = _load_rectified(gradient, output, at, is_valid) * scale[None, :]
    tl.store(frames_gradient + at, value - centred * slope[None, :] - constant[None, :], mask=is_valid)
