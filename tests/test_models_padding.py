"""Which frames are sound, before and after a stride."""

import pytest
import torch
import torch.nn.functional as F

from models.padding import Padding

LENGTHS = torch.tensor([37, 20, 1, 0])


@pytest.mark.parametrize(("num_frames", "stride"), [(37, 1), (37, 2), (36, 2), (37, 3)])
def test_strided_padding_has_the_length_of_the_convolution(num_frames: int, stride: int) -> None:
    lengths = LENGTHS.clamp(max=num_frames)
    after = Padding(lengths, num_frames).strided(stride)
    assert after.num_frames == F.conv1d(torch.zeros(1, 1, num_frames), torch.zeros(1, 1, 5), stride=stride,
                                        padding=2).shape[-1]
    assert after.lengths.tolist() == [-(-int(length) // stride) for length in lengths]


def test_padding_is_cleared_and_nothing_else() -> None:
    padding = Padding(torch.tensor([5, 2, 0]), 5)
    cleared = padding.clear_(torch.ones(3, 5, 2))
    assert cleared.sum((1, 2)).tolist() == [10, 4, 0] and cleared[1, :2].eq(1).all()
    assert padding.mask[..., 0].sum(1).tolist() == [0, 3, 5]


def test_lengths_stay_inside_the_frames() -> None:
    assert list(Padding(torch.tensor([9, 3]), 5).ends) == [5, 3]
