"""What the compiler makes of the Triton kernels; a machine without a GPU can ask it too."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.kernels import gpu
from models.padding import Padding

triton = pytest.importorskip("triton", reason="no Triton: the GPU kernels were not compiled")

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class _Compiled:
    """What the compiler made of every kernel that was to be launched; on tensors without memory."""

    def __init__(self, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capability = capability
        self.registers: dict[str, int] = {}
        self.warps: dict[str, int] = {}
        self.shared: dict[str, int] = {}
        monkeypatch.setattr(gpu, "_launch", self)

    def __call__(self, kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int | None, **constants: int) -> None:
        options = {"num_warps": constants.pop("num_warps", 4)}
        types = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
        signature, fixed = {}, dict(constants)
        for name, argument in zip(kernel.arg_names, arguments, strict=False):
            if argument is None:
                fixed[name] = argument  # type: ignore[assignment]
            signature[name] = types[argument.dtype] if isinstance(argument, Tensor) else "i32"
        signature.update(dict.fromkeys(fixed, "constexpr"))
        aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(kernel.arg_names)
                   if signature[name].startswith("*")}
        source = triton.compiler.ASTSource(kernel, signature, fixed, aligned)
        target = triton.backends.compiler.GPUTarget("cuda", self.capability, 32)
        compiled = triton.compile(source, target=target, options=options)
        self._read(kernel.__name__, compiled)
        self.warps[kernel.__name__] = options["num_warps"]

    def _read(self, name: str, compiled: Any) -> None:
        path = Path(os.environ["TRITON_CACHE_DIR"]) / f"{name}.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", path], check=True, capture_output=True,
                               text=True).stdout
        counts = {unit: int(count) for unit, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
        assert counts["STACK"] == counts["LOCAL"] == 0, f"{name} spills: {usage}"
        self.registers[name], self.shared[name] = counts["REG"], compiled.metadata.shared


REGISTERS = 65536
"""Of a multiprocessor."""


@pytest.fixture
def triton_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own; skips aloud without what it needs."""
    if not all((TOOLS / tool).exists() for tool in ("ptxas", "cuobjdump")):
        pytest.skip(f"no ptxas and cuobjdump in {TOOLS}: it was not seen whether the kernels compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def _frames(channels: int, precision: torch.dtype = torch.bfloat16, num_frames: int = 800) -> Tensor:
    return torch.empty(32, num_frames, channels, dtype=precision, device="meta")


@pytest.mark.usefixtures("triton_cache")
@pytest.mark.parametrize(("capability", "channels", "kernel", "stride", "dilation"), [
    (90, 64, 33, 2, 1), (90, 512, 63, 1, 1), (80, 512, 87, 1, 2)])
def test_convolutions_fit_the_registers(capability: int, channels: int, kernel: int, stride: int, dilation: int,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = _Compiled(capability, monkeypatch)
    frames, weight = _frames(channels), torch.empty(channels, 1, kernel, device="meta")
    padding = Padding(torch.full((32,), 800), 800)
    output = gpu.depthwise(frames, weight, padding, stride, dilation)
    gpu.depthwise_weight_gradient(output, frames, weight, padding, stride, dilation)
    assert len(compiled.registers) == 2
    for name, registers in compiled.registers.items():
        assert compiled.shared[name] == 0, f"{name} moves numbers between threads"
        assert registers * 32 * 16 <= REGISTERS, f"{registers} registers leave {name} fewer than 16 warps"


@pytest.mark.usefixtures("triton_cache")
@pytest.mark.parametrize("capability", [80, 90])
def test_batchnorm_fits_the_registers(capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = _Compiled(capability, monkeypatch)
    frames, padding = _frames(512), Padding(torch.full((32,), 800), 800)
    mean, variance = gpu.statistics(frames)
    output = gpu.normalise(frames, mean, variance, frames, padding, True)
    gpu.batchnorm_backward(frames, output, frames, mean, mean, variance, True)
    gpu.batchnorm_backward(frames, output, frames, mean, mean, variance, False)
    assert len(compiled.registers) == 5
    assert all(registers * 32 * 16 <= REGISTERS for registers in compiled.registers.values())
