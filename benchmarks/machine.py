"""The operations and bytes of a QuartzNet, and how many of them this machine does per second."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.quartznet import QuartzNetConfig

NUM_LABELS = 29
FRAMES_PER_S = 100
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def seconds(job: Callable[[], Any], device: str) -> float:
    """Seconds of one turn, including what it started on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def multiplications(config: QuartzNetConfig, audio_s: float) -> float:
    """Floating-point operations of a forward pass: two for each weight and frame."""
    frames, channels, total = audio_s * FRAMES_PER_S, config.num_mels, 0.0
    for block in config.blocks:
        frames /= block.stride
        for index in range(block.repeat):
            width = channels if index == 0 else block.filters
            total += frames * width * (block.filters + (block.kernel if block.separable else 0))
        total += frames * channels * block.filters if block.residual else 0.0
        channels = block.filters
    return 2 * (total + frames * channels * NUM_LABELS)


def product_peak(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """GFLOP/s of the best matrix product that PyTorch offers here, by either library."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    image, taps = left.view(1, 1, size, size).permute(0, 3, 1, 2), right[:, :, None, None]
    best = min(seconds(product, device) for product in (lambda: left @ right, lambda: nn.functional.conv2d(image, taps))
               for _ in range(8))
    return 2 * size**3 / best / 1e9


def copy_bandwidth(device: str) -> float:
    """GB/s read and written by a copy far larger than the caches."""
    source, target = torch.ones(2, 64 * 2**20, device=device)
    best = min(seconds(lambda: target.copy_(source), device) for _ in range(6))
    return 2 * source.nbytes / best / 1e9


def floor_bytes(config: QuartzNetConfig, audio_s: float, item_bytes: int) -> float:
    """Bytes of activations that a training step must move to and from memory if every possible operation is fused.

    A layer's forward pass reads its input, writes the result of the depthwise convolution (kept for the gradient of the
    pointwise weight), writes the pointwise result (kept for BatchNorm), reads it again once the statistics are known,
    and writes its output. The backward pass reads gradient, output and pointwise result twice, on both sides of a
    sum over the batch, writes the gradient of the pointwise result, reads it with the kept hidden frames for two
    products, writes the hidden gradient, and reads it with the input for the last two, one of which is written.
    """
    frames, channels, items = audio_s * FRAMES_PER_S, config.num_mels, 0.0
    for block in config.blocks:
        before, frames = frames, frames / block.stride
        widths = [channels] + [block.filters] * (block.repeat - 1)
        for index, width in enumerate(widths):
            source = (before if index == 0 else frames) * width
            hidden, result = frames * width, frames * block.filters
            items += source + hidden + 3 * result  # forward
            items += 2 * 3 * result + result + result + 3 * hidden + 2 * source  # backward
        if block.residual:
            items += frames * channels + 3 * frames * block.filters
            items += 5 * frames * block.filters + 2 * frames * channels
        channels = block.filters
    return items * item_bytes


def machine(device: str) -> dict[str, Any]:
    """What the times were measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {"machine": name, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "copy_gb_per_s": round(copy_bandwidth(device), 1),
            "peak_gflops": {name: round(product_peak(dtype, device)) for name, dtype in PRECISIONS.items()}}


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    abilities = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "")]
    return f"{fields.get('model name', 'CPU')} ({', '.join(abilities)})"
