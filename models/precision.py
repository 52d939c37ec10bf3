"""Choose the precision: bfloat16 where the hardware supports it, float32 elsewhere."""

import functools
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bf16"]


def choose_precision(wanted: Precision, device: torch.device | str) -> torch.dtype:
    """float32 or bfloat16, as asked for, or for `auto` what suits the device.

    Raises:
        ValueError: `wanted` is something else.
    """
    if wanted not in ("auto", "float32", "bf16"):
        raise ValueError(f"precision is {wanted!r}; it must be auto, float32 or bf16.")
    if wanted == "auto":
        is_gpu = torch.device(device).type == "cuda"
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if is_gpu else cpu_has_bf16()
        return torch.bfloat16 if has_bf16 else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this CPU supports bfloat16 in hardware (AMX, or AVX-512 BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
