"""The L2 distance from the source's weights: exactly its definition, at each weight's own rate."""

import pytest
import torch
from torch import Tensor, nn

from models.optimizers import build_optimizer
from models.source_l2 import SourceL2
from spaces.recipe import OptimizerRecipe

pytestmark = pytest.mark.timeout(60)

LR, STRENGTH = 0.05, 3.0


def network() -> nn.Sequential:
    """An encoder and a decoder, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()


def weights_of(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def step(model: nn.Sequential, optimizer: torch.optim.Optimizer, number: int) -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_each_step_is_followed_by_the_gradient_of_the_penalty_at_the_rate_of_the_weight(name: str) -> None:
    model, by_hand = network(), network()
    source, l2 = weights_of(model[0]), SourceL2(model[0], STRENGTH)

    def optimizer_of(part: nn.Sequential) -> torch.optim.Optimizer:
        if name == "sgd":
            return torch.optim.SGD([{"params": part[0].parameters(), "lr": LR / 2},
                                    {"params": part[1].parameters()}], lr=LR)
        return build_optimizer(OptimizerRecipe(lr=LR), [part[0].parameters()], part[1].parameters(), 0.5)

    optimizer, plain = optimizer_of(model), optimizer_of(by_hand)
    for number in range(4):
        step(model, optimizer, number)
        l2.pull(optimizer.param_groups)
        step(by_hand, plain, number)
        with torch.no_grad():
            for weight, start in zip(by_hand[0].parameters(), source, strict=True):
                weight -= LR / 2 * STRENGTH * (weight - start)
        for weight, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)


def test_no_weight_goes_past_the_source_and_one_that_did_not_move_stays() -> None:
    model = network()
    source, l2 = weights_of(model[0]), SourceL2(model[0], 1000.0)
    groups = [{"params": list(model.parameters()), "lr": LR}]
    l2.pull(groups)
    assert all(torch.equal(weight, start) for weight, start in zip(model[0].parameters(), source, strict=True))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    moved = weights_of(model[1])
    l2.pull(groups)
    assert all(torch.equal(weight, start) for weight, start in zip(model[0].parameters(), source, strict=True))
    assert all(torch.equal(weight, start) for weight, start in zip(model[1].parameters(), moved, strict=True))


def test_weights_that_were_moved_to_another_place_are_still_pulled() -> None:
    """As `to(device)` may do: new parameters in place of the old."""
    model = network()
    source, l2 = weights_of(model[0]), SourceL2(model[0], 1.0)
    for name, weight in list(model[0].named_parameters()):
        setattr(model[0], name, nn.Parameter(weight.detach() + 1.0))
    l2.pull([{"params": list(model.parameters()), "lr": 0.25}])
    for weight, start in zip(model[0].parameters(), source, strict=True):
        torch.testing.assert_close(weight.detach(), start + 0.75)
