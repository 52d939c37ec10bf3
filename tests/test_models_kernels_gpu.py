"""The Triton kernels against PyTorch's own operations.

Without a GPU they run in Triton's interpreter, in a process of their own: it must be chosen before Triton is imported.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models.batchnorm
import models.separable
from models.kernels import Kernels, gpu, plain
from models.padding import Padding
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig, ctc_loss

pytest.importorskip("triton", reason="no Triton: the GPU kernels were not tested")

ROOT = Path(__file__).resolve().parents[1]
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
torch.backends.cudnn.allow_tf32 = False  # what `plain` has to do with on a GPU would round float32 to ten bits

LENGTHS = torch.tensor([75, 40, 0, 1])
NUM_FRAMES = 75
SHAPES = [(8, 1, 1, 1), (40, 11, 1, 1), (8, 63, 1, 1), (64, 33, 2, 1), (96, 11, 3, 1), (40, 33, 1, 2), (8, 3, 5, 1)]
"""Channels, kernel, stride, dilation."""
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 2e-5}, torch.float16: {"rtol": 2e-3, "atol": 2e-3},
             torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2}}
SUMS = {"rtol": 1e-4, "atol": 2e-4}

if IS_INTERPRETED:
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_for_numpy_2_4(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    # Fixed after Triton 3.6: github.com/triton-lang/triton/issues/9171.
    interpreter._patch_lang_tensor = patch_tensor_for_numpy_2_4


@pytest.mark.parametrize("interpret", [
    pytest.param("1", id="interpreter"),
    pytest.param("0", id="gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no GPU: the kernels ran in Triton's interpreter alone")])])
def test_kernels_are_pytorchs_operations(interpret: str) -> None:
    """Runs every `checked_...` below."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if interpret == "1" else {}
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "python_functions=checked_*", __file__],
        cwd=ROOT, env={**os.environ, **hidden, "TRITON_INTERPRET": interpret}, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert " passed" in child.stdout and " skipped" not in child.stdout, child.stdout


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _on_device(value: Any) -> Any:
    if isinstance(value, Padding):
        return Padding(value.lengths.to(DEVICE), value.num_frames)
    return value.to(DEVICE) if isinstance(value, Tensor) else value


def _run(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """The kernel's result, brought back to where `plain` computes in float32."""
    result = kernel(*map(_on_device, arguments))
    if isinstance(result, Tensor):
        return result.cpu()
    return tuple(None if part is None else part.cpu() for part in result)


def _assert_same(actual: Tensor, expected: Tensor, limits: dict[str, float]) -> None:
    torch.testing.assert_close(actual.float(), expected.float(), **limits)


@pytest.mark.parametrize(("precision", "channels", "kernel", "stride", "dilation"), [
    *((torch.float32, *shape) for shape in SHAPES), *((torch.bfloat16, *shape) for shape in SHAPES[1::2]),
    (torch.float16, *SHAPES[1])])
def checked_depthwise_convolution_and_its_gradients(precision: torch.dtype, channels: int, kernel: int, stride: int,
                                                    dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "WARPS", 6)  # so that a program has more than one item, as in a large batch
    before = Padding(LENGTHS, NUM_FRAMES)
    after = before.strided(stride)
    frames = before.clear_(_noise(4, NUM_FRAMES, channels).to(precision))
    gradient = after.clear_(_noise(4, after.num_frames, channels, seed=1).to(precision))
    weight = _noise(channels, 1, kernel, seed=2) / kernel**0.5
    shape = before, stride, dilation
    exact = frames.float(), gradient.float()
    output = _run(gpu.depthwise, frames, weight, *shape)
    assert output.dtype == precision and output.is_contiguous()
    _assert_same(output, plain.depthwise(exact[0], weight, *shape), TOLERANCE[precision])
    frames_gradient = _run(gpu.depthwise_frames_gradient, gradient, frames, weight, *shape)
    _assert_same(frames_gradient, plain.depthwise_frames_gradient(exact[1], exact[0], weight, *shape),
                 TOLERANCE[precision])
    weight_gradient = _run(gpu.depthwise_weight_gradient, gradient, frames, weight, *shape)
    assert weight_gradient.dtype == weight.dtype and weight_gradient.shape == weight.shape
    _assert_same(weight_gradient, plain.depthwise_weight_gradient(exact[1], exact[0], weight, *shape), SUMS)


def checked_what_lies_in_the_padding_is_not_read() -> None:
    padding, weight = Padding(LENGTHS, NUM_FRAMES), _noise(8, 1, 11)
    clean = padding.clear_(_noise(4, NUM_FRAMES, 8))
    dirty = clean.masked_fill(padding.mask, float("nan"))
    for kernel, arguments in ((gpu.depthwise, [(clean, weight), (dirty, weight)]),
                              (gpu.depthwise_weight_gradient, [(clean,) * 2 + (weight,), (dirty,) * 2 + (weight,)])):
        results = [_run(kernel, *given, padding, 1, 1) for given in arguments]
        assert torch.equal(*results)


@pytest.mark.parametrize("precision", gpu.PRECISIONS)
@pytest.mark.parametrize("channels", [40, 96])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("activate", [False, True])
def checked_batchnorm_relu_and_mask(precision: torch.dtype, channels: int, has_residual: bool, activate: bool) -> None:
    padding = Padding(LENGTHS, NUM_FRAMES)
    frames = (_noise(4, NUM_FRAMES, channels) * 3 + 2).to(precision)
    residual = _noise(4, NUM_FRAMES, channels, seed=1).to(precision) if has_residual else None
    exact = None if residual is None else residual.float()
    mean, variance = _run(gpu.statistics, frames)
    torch.testing.assert_close((mean, variance), plain.statistics(frames), rtol=1e-5, atol=1e-5)

    weight, inverse_std = _noise(channels, seed=3).exp(), torch.rsqrt(variance + 1e-3)
    scale, shift = weight * inverse_std, _noise(channels, seed=4)
    output = _run(gpu.normalise, frames, scale, shift, residual, padding, activate)
    assert output.dtype == precision
    _assert_same(output, plain.normalise(frames.float(), scale, shift, exact, padding, activate), TOLERANCE[precision])
    unscaled = _run(gpu.normalise, frames, None, None, residual, padding, activate)
    _assert_same(unscaled, plain.normalise(frames.float(), None, None, exact, padding, activate), TOLERANCE[precision])

    gradient = _noise(4, NUM_FRAMES, channels, seed=2).to(precision)
    rectified = output if activate else None
    for needs_residual in (False, True):
        gradients = _run(gpu.batchnorm_backward, gradient, rectified, frames, weight, mean, inverse_std, needs_residual)
        expected = plain.batchnorm_backward(gradient.float(), None if rectified is None else rectified.float(),
                                            frames.float(), weight, mean, inverse_std, needs_residual)
        _assert_same(gradients[0], expected[0], TOLERANCE[precision])
        for actual, plain_gradient in zip(gradients[1:3], expected[1:3], strict=True):
            _assert_same(actual, plain_gradient, SUMS)
        assert (gradients[3] is None) == (expected[3] is None) == (not needs_residual)
        if expected[3] is not None:
            assert torch.equal(gradients[3].float(), expected[3])


@pytest.mark.parametrize("has_residual", [False, True])
def checked_rectify_reuses_the_memory_and_passes_what_is_not_a_number(has_residual: bool) -> None:
    padding = Padding(LENGTHS, NUM_FRAMES)
    frames = _noise(4, NUM_FRAMES, 40)
    frames[0, 0, 0] = float("nan")
    residual = _noise(4, NUM_FRAMES, 40, seed=1) if has_residual else None
    given = _on_device(frames.clone())
    result = gpu.rectify_(given, _on_device(residual), _on_device(padding))
    assert result is given and result[0, 0, 0].isnan()
    torch.testing.assert_close(result.cpu(), plain.rectify_(frames, residual, padding), equal_nan=True)


def checked_statistics_of_many_frames_are_exact() -> None:
    frames = _noise(3, 11_500, 8) + 30
    mean, variance = _run(gpu.statistics, frames)
    exact = frames.double().flatten(0, 1)
    torch.testing.assert_close(mean.double(), exact.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var(0, correction=0), rtol=2e-6, atol=0)


def _gradients(kernels: Kernels, device: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    for module in (models.separable, models.batchnorm):
        monkeypatch.setattr(module, "kernels_for", lambda frames: kernels)
    blocks = (BlockConfig(filters=8, kernel=5, stride=2, residual=False), BlockConfig(filters=16, kernel=7, repeat=2),
              BlockConfig(filters=16, kernel=5, dilation=2, residual=False))
    torch.manual_seed(0)
    model = AcousticModel(QuartzNetConfig(num_mels=6, blocks=blocks), num_labels=5).to(device)
    features = _noise(3, 6, 60).to(device).requires_grad_()
    log_probs, lengths = model(features, torch.tensor([60, 37, 21], device=device))
    targets = torch.tensor([[0, 1, 2, 3], [2, 2, 0, 0], [3, 1, 0, 0]], device=device)
    losses = ctc_loss(log_probs, lengths, targets, torch.tensor([4, 2, 2], device=device))
    torch.autograd.backward(losses.sum())
    assert features.grad is not None
    weights = {name: weight.grad.cpu() for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": losses.detach().cpu(), "features": features.grad.cpu(), **weights}


def checked_network_trains_as_with_pytorchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    actual, expected = _gradients(gpu, DEVICE, monkeypatch), _gradients(plain, "cpu", monkeypatch)
    assert len(expected) > 20
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)


def test_switch_turns_the_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpu.SWITCH, raising=False)
    assert gpu.is_available()
    monkeypatch.setenv(gpu.SWITCH, "0")
    assert not gpu.is_available()


def test_module_is_imported_without_triton() -> None:
    code = ("import sys; sys.modules['triton'] = None\n"
            "from models.kernels import gpu; assert not gpu.is_available()")
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
