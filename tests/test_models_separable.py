"""The separable convolution against autograd's own, in every shape that a QuartzNet has."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels import Kernels, cpu, plain
from models.padding import Padding
from models.separable import separable_convolution

LENGTHS = torch.tensor([37, 20, 1])


def _plain(frames: Tensor, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None, stride: int,
           dilation: int) -> Tensor:
    """The same as `conv1d` and masks on (batch, channels, frames), as NeMo writes it."""
    padding = dilation * (depthwise.shape[-1] - 1) // 2
    hidden = F.conv1d(frames.transpose(1, 2), depthwise, stride=stride, padding=padding, dilation=dilation,
                      groups=depthwise.shape[0])
    lengths = (LENGTHS - 1) // stride + 1
    hidden = hidden * (torch.arange(hidden.shape[-1]) < lengths[:, None])[:, None]
    return F.conv1d(hidden, pointwise[:, :, None], bias).transpose(1, 2)


def _masked_noise(channels: int) -> Tensor:
    frames = torch.randn(3, 37, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Padding(LENGTHS, 37).clear_(frames)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (11, 1, 1), (33, 2, 1), (11, 3, 1), (29, 1, 2)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_values_and_gradients_are_autograds(kernel: int, stride: int, dilation: int, has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    frames = _masked_noise(8)
    weights = [torch.randn(8, 1, kernel, dtype=torch.float64, generator=generator),
               torch.randn(5, 8, dtype=torch.float64, generator=generator)]
    weights += [torch.randn(5, dtype=torch.float64, generator=generator)] if has_bias else []
    inputs = [tensor.requires_grad_() for tensor in (frames, *weights)]
    bias = inputs[3] if has_bias else None
    fast = separable_convolution(inputs[0], inputs[1], inputs[2], bias, Padding(LENGTHS, 37), stride, dilation)
    plain = _plain(inputs[0], inputs[1], inputs[2], bias, stride, dilation)
    torch.testing.assert_close(fast, plain)

    weighting = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad((fast * weighting).sum(), inputs)
    expected = list(torch.autograd.grad((plain * weighting).sum(), inputs))
    expected[0] = Padding(LENGTHS, 37).clear_(expected[0].clone())  # padding gets no gradient: it is zero for good
    for gradient, plain_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, plain_gradient, rtol=1e-6, atol=1e-6)


def test_no_gradient_gives_the_same_values() -> None:
    frames, depthwise, pointwise = _masked_noise(8), torch.ones(8, 1, 5).double(), torch.ones(3, 8).double()
    trained = separable_convolution(frames, depthwise.requires_grad_(), pointwise, None, Padding(LENGTHS, 37))
    with torch.inference_mode():
        inferred = separable_convolution(frames, depthwise, pointwise, None, Padding(LENGTHS, 37))
    torch.testing.assert_close(inferred, trained.detach())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kernels", [cpu, plain])
@pytest.mark.parametrize("channels", [8, 16, 32, 80])
def test_narrow_channels_finish_under_bfloat16(channels: int, kernels: Kernels,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.separable.kernels_for", lambda frames: kernels if cpu.is_available() else plain)
    frames = Padding(LENGTHS, 37).clear_(torch.randn(3, 37, channels))
    depthwise = torch.randn(channels, 1, 11, requires_grad=True)
    pointwise = torch.randn(64, channels, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = separable_convolution(frames, depthwise, pointwise, None, Padding(LENGTHS, 37))
    torch.autograd.backward(output.float().sum())
    assert output.dtype == torch.bfloat16
    assert depthwise.grad is not None and depthwise.grad.dtype == torch.float32
    assert torch.isfinite(depthwise.grad).all()
