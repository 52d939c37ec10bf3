"""The pointwise convolution by oneDNN and by PyTorch, against float64."""

import pytest
import torch
from torch import Tensor

from models.pointwise import pointwise, pointwise_frames_gradient, pointwise_weight_gradient

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(3, 37, 64, 29), (1, 1, 8, 5), (2, 1, 1, 3), (1, 500, 512, 256)])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_values_and_gradients(precision: torch.dtype, shape: tuple[int, int, int, int], num_threads: int) -> None:
    batch, num_frames, channels, filters = shape
    generator = torch.Generator().manual_seed(0)

    def noise(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(precision)

    frames, weight = noise(batch, num_frames, channels), noise(filters, channels) / channels**0.5
    bias, gradient = noise(filters), noise(batch, num_frames, filters)
    exact = [tensor.double() for tensor in (frames, weight, bias, gradient)]
    expected = {"values": exact[0] @ exact[1].T + exact[2], "frames": exact[3] @ exact[1],
                "weight": exact[3].flatten(0, 1).T @ exact[0].flatten(0, 1)}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        actual = {"values": pointwise(frames, weight, bias), "frames": pointwise_frames_gradient(gradient, weight),
                  "weight": pointwise_weight_gradient(gradient, frames, weight)}
    finally:
        torch.set_num_threads(threads)
    for name, value in expected.items():
        scale = value.abs().max()
        assert actual[name].dtype == precision
        torch.testing.assert_close(actual[name].double() / scale, value / scale, rtol=0, atol=TOLERANCE[precision])
    assert actual["values"].is_contiguous() and actual["frames"].is_contiguous()
