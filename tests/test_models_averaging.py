"""The average of the weights: its width, what it does with BatchNorm, and what it is there for."""

import pytest
import torch
from torch import nn

from models.averaging import POWER, averaged


def test_average_weighs_the_latest_tenth_of_the_training() -> None:
    network = nn.Linear(1, 1, bias=False)
    follower = averaged(network)
    steps = 500
    for step in range(1, steps + 1):
        with torch.no_grad():
            network.weight.fill_(step / steps)  # so that the average is the mean of the weighed time
        follower.update_parameters(network)
    assert float(follower.module.weight) == pytest.approx((POWER + 1) / (POWER + 2), abs=2e-3)


def test_first_step_is_taken_whole() -> None:
    network = nn.Linear(3, 2)
    follower = averaged(network)
    with torch.no_grad():
        network.weight.add_(1.0)
    follower.update_parameters(network)
    assert torch.equal(follower.module.weight, network.weight)
    assert not any(parameter.requires_grad for parameter in follower.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_statistics_of_batchnorm_are_averaged_and_its_count_is_not() -> None:
    network = nn.BatchNorm1d(2)
    follower = averaged(network)
    for number in range(4):
        network(torch.randn(8, 2, generator=torch.Generator().manual_seed(number)) + 5)
        follower.update_parameters(network)
    assert int(follower.module.num_batches_tracked) == 4
    latest, average = network.running_mean, follower.module.running_mean
    assert latest is not None and isinstance(average, torch.Tensor)
    assert bool((average < latest).all()) and bool((average > 0.5).all())


def test_average_is_nearer_to_the_minimum_where_the_rate_is_still_high() -> None:
    """A quadratic with noisy gradients: the latest weights go round the minimum, their average does not."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(64, 1, bias=False)
    follower = averaged(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(300):
        network.weight.grad = network.weight.detach() + torch.randn(1, 64, generator=generator)
        optimizer.step()
        follower.update_parameters(network)
    assert float(follower.module.weight.norm()) < 0.5 * float(network.weight.norm())
