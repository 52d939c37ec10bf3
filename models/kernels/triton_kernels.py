# mypy: allow-untyped-defs, allow-incomplete-defs
"""The GPU kernels in Triton, compiled on first use and kept in Triton's cache; `gpu` launches them.

A depthwise convolution has few products per load, and a load costs as much as a product. So each thread keeps `SPAN`
sums and as many rows in registers, and each loaded row serves all the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None


def _kernel(*variable: str) -> Callable[[Any], Any]:
    """`triton.jit`, if Triton is installed; it compiles once for all values of the named arguments."""
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
            # The next row replaces the one that no sum needs any more.
            fresh = _load_row(at + i * ROW_STEP * CHANNELS, row + i * ROW_STEP, end, column, CHANNELS)
            window = window[:i] + (fresh,) + window[i + 1:]
        factor_at += SPAN * FACTOR_STEP * CHANNELS
    return sums


# In both kernels `stride` or `dilation` is 1. A stride divides the frames into as many phases, each with its own taps;
# a dilation into as many, each with its own outputs. Within a phase the convolution is ordinary.


@_kernel("num_frames", "num_after")
def depthwise_kernel(frames, weight, lengths, output, num_frames, num_after, CHANNELS: tl.constexpr,
                     KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, IS_REVERSED: tl.constexpr,
                     SPAN: tl.constexpr, SEGMENTS: tl.constexpr, COLUMNS: tl.constexpr):
    """`weight` is (kernel, channels), float32; each program computes `SEGMENTS` times `SPAN` outputs."""
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
def depthwise_weight_gradient_kernel(frames, gradient, lengths, partial, num_frames, num_after, items,
                                     CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
                                     DILATION: tl.constexpr, SPAN: tl.constexpr, SEGMENTS: tl.constexpr,
                                     ITEM: tl.constexpr, COLUMNS: tl.constexpr):
    """`partial` is (chunks, kernel, channels), float32; taps and outputs swap roles in the sums."""
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
def statistics_kernel(frames, means, squares, count, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
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
def join_kernel(means, squares, mean, variance, count, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
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
def normalise_kernel(frames, scale, shift, residual, lengths, output, num_frames, CHANNELS: tl.constexpr,
                     ACTIVATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`frames * scale + shift + residual`, leaving out what is None; the padding is not read."""
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
    """The gradient before the ReLU: zero where `output` is not positive; `output` is None without a ReLU."""
    value = tl.load(gradient + at, mask=is_valid, other=0.0).to(tl.float32)
    if output is not None:
        value = tl.where(tl.load(output + at, mask=is_valid, other=0.0).to(tl.float32) > 0.0, value, 0.0)
    return value


@_kernel("count")
def batchnorm_sums_kernel(gradient, output, frames, mean, inverse_std, partial, masked, count,
                          CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of the gradient, and of it times the normalised frames, (chunks, 2, channels); `masked` holds it."""
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
def batchnorm_apply_kernel(gradient, output, frames, weight, mean, inverse_std, sums, frames_gradient, count,
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
