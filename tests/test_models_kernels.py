"""The C++ kernels against PyTorch's own operations, and what happens where they cannot be compiled."""

import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import kernels
from models.kernels import compiled, cpu, gpu, kernels_for, plain
from models.padding import Padding

LENGTHS = torch.tensor([137, 60, 0, 1])
NUM_FRAMES = 137
SHAPES = [(1, 1, 1), (11, 1, 1), (63, 1, 1), (33, 2, 1), (11, 3, 1), (29, 1, 2)]
PRECISIONS = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 2e-5}, torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2}}

needs_compiler = pytest.mark.skipif(not cpu.is_available(), reason="no C++ compiler: the CPU kernels were not tested")


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _frames(channels: int, precision: torch.dtype, padding: Padding, seed: int = 0) -> Tensor:
    frames = _noise(len(padding.lengths), padding.num_frames, channels, seed=seed)
    return padding.clear_(frames.to(precision))


def _assert_same(actual: Tensor, expected: Tensor, precision: torch.dtype) -> None:
    torch.testing.assert_close(actual.float(), expected.float(), **TOLERANCE[precision])


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [8, 40, 64])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), SHAPES)
def test_depthwise_convolution_and_its_gradients(precision: torch.dtype, channels: int, kernel: int, stride: int,
                                                 dilation: int) -> None:
    before = Padding(LENGTHS, NUM_FRAMES)
    after = before.strided(stride)
    frames, gradient = _frames(channels, precision, before), _frames(channels, precision, after, seed=1)
    weight = _noise(channels, 1, kernel, seed=2) / kernel**0.5
    shape = before, stride, dilation
    exact = frames.float(), gradient.float()
    _assert_same(cpu.depthwise(frames, weight, *shape), plain.depthwise(exact[0], weight, *shape), precision)
    _assert_same(cpu.depthwise_frames_gradient(gradient, frames, weight, *shape),
                 plain.depthwise_frames_gradient(exact[1], exact[0], weight, *shape), precision)
    torch.testing.assert_close(cpu.depthwise_weight_gradient(gradient, frames, weight, *shape),
                               plain.depthwise_weight_gradient(exact[1], exact[0], weight, *shape),
                               rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [6, 64])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("activate", [False, True])
def test_batchnorm_relu_and_mask(precision: torch.dtype, channels: int, has_residual: bool, activate: bool) -> None:
    padding = Padding(LENGTHS, NUM_FRAMES)
    frames = (_noise(4, NUM_FRAMES, channels) * 3 + 2).to(precision)
    residual = _noise(4, NUM_FRAMES, channels, seed=1).to(precision) if has_residual else None
    gradient = _noise(4, NUM_FRAMES, channels, seed=2).to(precision)
    mean, variance = cpu.statistics(frames)
    torch.testing.assert_close((mean, variance), plain.statistics(frames), rtol=1e-5, atol=1e-5)

    weight, inverse_std = _noise(channels, seed=3).exp(), torch.rsqrt(variance + 1e-3)
    scale, shift = weight * inverse_std, _noise(channels, seed=4)
    exact = None if residual is None else residual.float()
    output = cpu.normalise(frames, scale, shift, residual, padding, activate)
    _assert_same(output, plain.normalise(frames.float(), scale, shift, exact, padding, activate), precision)
    _assert_same(cpu.rectify_(frames.clone(), residual, padding), plain.rectify_(frames.float(), exact, padding),
                 precision)

    rectified = output if activate else None
    gradients = cpu.batchnorm_backward(gradient, rectified, frames, weight, mean, inverse_std, has_residual)
    expected = plain.batchnorm_backward(gradient.float(), None if rectified is None else rectified.float(),
                                        frames.float(), weight, mean, inverse_std, has_residual)
    assert (gradients[3] is None) == (expected[3] is None) == (not has_residual)
    for actual, plain_gradient in zip(gradients, expected, strict=True):
        if actual is not None and plain_gradient is not None:
            limits = TOLERANCE[precision] if actual.ndim == 3 else {"rtol": 1e-4, "atol": 1e-3}
            torch.testing.assert_close(actual.float(), plain_gradient, **limits)


@needs_compiler
def test_results_are_the_same_for_any_number_of_threads() -> None:
    padding = Padding(LENGTHS, NUM_FRAMES)
    frames, weight = _frames(64, torch.float32, padding), _noise(64, 1, 33)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((cpu.depthwise(frames, weight, padding, 1, 1), *cpu.statistics(frames),
                            cpu.depthwise_weight_gradient(frames, frames, weight, padding, 1, 1)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [6, 64])
def test_dropout_keeps_its_share_and_the_mean(precision: torch.dtype, channels: int) -> None:
    torch.manual_seed(0)
    ones = torch.ones(40, 5000, channels, dtype=precision)
    for share in (0.03, 0.2, 0.5):
        dropped = cpu.drop(ones.clone(), share)
        kept = torch.tensor(1 / (1 - share)).to(precision)
        assert set(dropped.unique().tolist()) == {0.0, kept.item()}
        deviation = (share * (1 - share) / ones.numel()) ** 0.5
        assert abs((dropped == 0).double().mean() - share) < 4 * deviation


@needs_compiler
def test_dropout_of_one_place_says_nothing_of_another() -> None:
    torch.manual_seed(0)
    first, second = (cpu.drop(torch.ones(8, 4000, 64), 0.3) == 0 for _ in range(2))
    zeros = first.double() - 0.3
    pairs = {"draws": second.double() - 0.3, "channels": zeros.roll(1, 2), "vectors": zeros.roll(16, 2),
             "frames": zeros.roll(1, 1), "utterances": zeros.roll(1, 0)}
    for name, other in pairs.items():
        assert abs((zeros * other).mean() / 0.21) < 4 / zeros.numel() ** 0.5, name
    # Neither are some channels dropped more often, nor some frames.
    for sums, count in ((zeros.sum((0, 1)), 32_000), (zeros.sum(2).flatten(), 64)):
        assert (sums.square().mean() / (count * 0.21)).item() == pytest.approx(1, abs=0.6 if len(sums) == 64 else 0.05)


@needs_compiler
def test_dropout_is_the_seeds_for_any_number_of_threads() -> None:
    threads, results = torch.get_num_threads(), []
    try:
        for count, seed in ((1, 0), (2, 0), (2, 1)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            results.append(cpu.drop(torch.ones(3, 70, 40), 0.4))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[1], results[2])


@needs_compiler
def test_what_is_not_a_number_stays_so() -> None:
    frames = torch.tensor([float("nan"), float("inf"), -1.0, 1.0] * 16).view(1, 1, 64)
    for precision in PRECISIONS:
        output = cpu.rectify_(frames.to(precision), None, Padding(torch.tensor([1]), 1))
        assert output.isnan().sum() == 16 and output.isinf().sum() == 16 and (output == 0).sum() == 16
        assert cpu.drop(output.clone(), 0.1).isnan().any()


def test_other_precisions_are_pytorchs() -> None:
    assert kernels_for(torch.zeros(1, 1, 1, dtype=torch.float64)) is plain


@pytest.fixture
def fresh_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache without compiled kernels, for this test alone."""
    monkeypatch.setenv("CUARZO_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv(cpu.SWITCH, raising=False)
    cpu._library.cache_clear()
    yield tmp_path
    cpu._library.cache_clear()


@needs_compiler
def test_several_processes_may_compile_at_once(fresh_library: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        libraries = {future.result()._name for future in [pool.submit(compiled.load, cpu._SOURCE, cpu._FLAGS)
                                                          for _ in range(3)]}
    assert {str(path) for path in (fresh_library / "kernels").iterdir()} == libraries
    assert cpu.is_available()


@needs_compiler
def test_where_nothing_can_be_kept_the_cache_is_named(fresh_library: Path, monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiled, "_places", lambda: iter([Path("/proc/kernels"), Path("/dev/null/kernels")]))
    with caplog.at_level(logging.WARNING):
        assert kernels_for(torch.zeros(1, 1, 1)) is plain
    assert "Set CUARZO_CACHE to a folder" in caplog.text and "g++" not in caplog.text


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("CXX", "/no/such/compiler", "No such file"), ("CXX", "false", "cannot be compiled or loaded"),
    ("CUARZO_CPU_KERNELS", "0", None)])
def test_without_a_compiler_pytorch_serves(fresh_library: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture, name: str, value: str,
                                           reason: str | None) -> None:
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert kernels_for(torch.zeros(1, 1, 1)) is plain
        assert kernels_for(torch.zeros(1, 1, 1)) is plain
    assert len(caplog.records) == (reason is not None)
    assert reason is None or reason in caplog.text


def test_gpu_kernels_serve_only_where_they_agree(monkeypatch: pytest.MonkeyPatch,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    for name in ("statistics", "normalise", "batchnorm_backward", "depthwise", "depthwise_frames_gradient",
                 "depthwise_weight_gradient"):
        monkeypatch.setattr(gpu, name, getattr(plain, name))
    check = kernels._agrees.__wrapped__
    with caplog.at_level(logging.WARNING):
        assert check(torch.device("cpu")) and not caplog.text
        monkeypatch.setattr(gpu, "depthwise", lambda frames, *_: frames)
        assert not check(torch.device("cpu"))
    assert "the GPU kernels do not work on cpu" in caplog.text and "CUARZO_GPU_KERNELS=0" in caplog.text
