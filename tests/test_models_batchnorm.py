"""BatchNorm, residual sum, ReLU and mask against torch's own, one after the other."""

import pytest
import torch
import torch.nn.functional as F

from models.batchnorm import BATCHNORM_EPS, BATCHNORM_MOMENTUM, BatchNorm, relu_and_mask
from models.padding import Padding

LENGTHS = torch.tensor([50, 31])


def noise(precision: torch.dtype) -> list[torch.Tensor]:
    """Frames, what was skipped, and the weights of a sum over the output, (2, 50, 6) each."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 50, 6, generator=generator, dtype=precision) for _ in range(3)]


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("has_residual", [False, True])
def test_values_gradients_and_statistics_are_torchs(precision: torch.dtype, activate: bool, has_residual: bool) -> None:
    frames, residual, weighting = noise(precision)
    norm, plain = BatchNorm(6).to(precision), torch.nn.BatchNorm1d(6, BATCHNORM_EPS, BATCHNORM_MOMENTUM).to(precision)
    inputs = [frames.requires_grad_(), residual.requires_grad_()]
    fast = norm(frames * 3 + 2, residual if has_residual else None, Padding(LENGTHS, 50), activate)
    slow = plain((frames * 3 + 2).flatten(0, 1)).view(2, 50, 6) + (residual if has_residual else 0)
    if activate:
        slow = F.relu(slow) * (torch.arange(50) < LENGTHS[:, None])[:, :, None]
    torch.testing.assert_close(fast, slow)
    gradients, expected = (
        torch.autograd.grad((output * weighting).sum(), [*inputs[:1 + has_residual], module.weight, module.bias])
        for output, module in ((fast, norm), (slow, plain)))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


def test_float32_statistics_of_many_frames_are_exact() -> None:
    frames = torch.randn(16, 500, 8, generator=torch.Generator().manual_seed(0)) * 2 + 3
    norm = BatchNorm(8)
    norm(frames, None, Padding(torch.full((16,), 500), 500), True)
    exact = frames.double().flatten(0, 1)
    expected = {"running_mean": 0.1 * exact.mean(0), "running_var": 0.9 + 0.1 * exact.var(0)}
    for name, value in expected.items():
        torch.testing.assert_close(norm.state_dict()[name].double(), value, rtol=1e-6, atol=1e-7)


def test_relu_stops_the_gradient_below_zero_and_in_the_padding() -> None:
    frames = torch.tensor([[[-1.0], [2.0], [3.0]]], requires_grad=True)
    activated = relu_and_mask(frames * 1, None, Padding(torch.tensor([2]), 3))
    torch.autograd.backward(activated.sum())
    assert activated.flatten().tolist() == [0.0, 2.0, 0.0]
    assert frames.grad is not None and frames.grad.flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("adapts", [False, True])
def test_dropout_passes_the_gradient_of_what_it_kept(precision: torch.dtype, has_residual: bool, adapts: bool) -> None:
    frames, residual, weighting = noise(precision)
    frames.requires_grad_()
    residual.requires_grad_()
    norm, padding, inputs = BatchNorm(6).to(precision), Padding(LENGTHS, 50), [frames, residual][:1 + has_residual]

    def output(dropout: float) -> torch.Tensor:
        rest = residual if has_residual else None
        if adapts:
            return norm(frames, rest, padding, True, dropout)  # type: ignore[no-any-return]
        return relu_and_mask(frames * 1, rest, padding, dropout)

    torch.manual_seed(0)
    whole, dropped = output(0.0), output(0.25)
    kept = (dropped > 0).to(precision)
    assert 0.6 < kept[whole > 0].mean() < 0.9 and (dropped >= 0).all()
    torch.testing.assert_close(dropped, whole * kept / 0.75)
    gradients = torch.autograd.grad((dropped * weighting).sum(), inputs)
    expected = torch.autograd.grad((whole * kept / 0.75 * weighting).sum(), inputs)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert adapts or 0.6 < (output(0.25)[whole > 0] > 0).double().mean() < 0.9
