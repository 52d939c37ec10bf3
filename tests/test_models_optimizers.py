"""Optimizers against their papers' formulas and NeMo's losses."""

import copy
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nemo import read_nemo
from models.optimizers import build_optimizer
from models.quartznet import AcousticModel
from search.results.figures import COLOURS
from spaces import spanish
from spaces.recipe import OptimizerName, OptimizerRecipe, RecipeError

pytestmark = pytest.mark.timeout(60)

NAMES = get_args(OptimizerName)
LR, BETA1, BETA2, DECAY = 0.01, 0.8, 0.5, 0.1


def recipe(name: OptimizerName) -> OptimizerRecipe:
    return OptimizerRecipe(name=name, lr=LR, beta1=BETA1, beta2=BETA2, weight_decay=DECAY)


def parameters() -> list[nn.Parameter]:
    """A weight and a bias of an encoder, a weight and a bias of a decoder, in float64."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
            for shape in ((3, 4), (3,), (5, 3), (5,))]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters()]


def run(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(trained, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def expected_update(name: OptimizerName, p: Tensor, g: Tensor, state: dict[str, Tensor], step: int) -> Tensor:
    """The step that the paper's (for NovoGrad NeMo's) formula takes, as a difference from `p`."""
    decay = DECAY if name == "novograd" or p.ndim > 1 else 0.0
    m, v = state.get("m", torch.zeros_like(p)), state.get("v", torch.zeros_like(p))
    if name == "novograd":
        v = g.square().sum() if step == 0 else BETA2 * v + (1 - BETA2) * g.square().sum()
        m = BETA1 * m + g / (v.sqrt() + 1e-8) + decay * p
        update = m
    elif name == "adamw":
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g.square()
        update = m / (1 - BETA1 ** (step + 1)) / (torch.sqrt(v / (1 - BETA2 ** (step + 1))) + 1e-8) + decay * p
    elif name == "lion":
        update = torch.sign(BETA1 * m + (1 - BETA1) * g) + decay * p
        m = BETA2 * m + (1 - BETA2) * g
    else:
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g.square()
        update = m / (v.sqrt() + 1e-6) + decay * p
        update = update * (p.norm().clamp(max=10) / (update.norm() + 1e-6) if p.ndim > 1 else 1)
    state |= {"m": m, "v": v}
    return -LR * update


@pytest.mark.parametrize("name", NAMES)
def test_four_steps_follow_the_formula(name: OptimizerName) -> None:
    trained = parameters()
    optimizer = build_optimizer(recipe(name), [trained[:2]], trained[2:])
    by_hand = [p.detach().clone() for p in parameters()]
    states: list[dict[str, Tensor]] = [{} for _ in by_hand]
    for step in range(4):
        run(optimizer, trained, range(step, step + 1))
        for p, g, state in zip(by_hand, gradients(step), states, strict=True):
            p += expected_update(name, p, g, state, step)
    for p, q in zip(by_hand, trained, strict=True):
        torch.testing.assert_close(q.detach(), p, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_encoder_learns_at_its_share_of_the_decoders_rate(name: OptimizerName) -> None:
    trained = parameters()
    optimizer = build_optimizer(recipe(name), [trained[:2]], trained[2:], encoder_lr_ratio=0.1)
    rates = {group["name"].split("_")[0]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"encoder": pytest.approx(0.1 * LR), "decoder": LR}
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, trained))


@pytest.mark.parametrize("name", NAMES)
def test_encoder_is_one_part_unless_its_rates_fall(name: OptimizerName) -> None:
    """Without a decay the groups, and so the steps, are those of an encoder without blocks."""
    trained = parameters()
    optimizer = build_optimizer(recipe(name), [trained[:1], trained[1:2]], trained[2:])
    parts = ["encoder", "decoder"] if name == "novograd" else [
        "encoder", "encoder_undecayed", "decoder", "decoder_undecayed"]
    assert [group["name"] for group in optimizer.param_groups] == parts
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(p is q for p, q in zip(grouped, trained, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_block_moves_as_an_encoder_of_its_own_rate_does(name: OptimizerName) -> None:
    """The k-th block below the top one learns at lr x encoder_lr_ratio x layer_lr_decay ** k; halves are exact."""
    trained = parameters()
    blocks = [trained[:1], trained[1:2], trained[2:3]]
    optimizer = build_optimizer(recipe(name), blocks, trained[3:], encoder_lr_ratio=0.5, layer_lr_decay=0.25)
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    assert optimizer.param_groups[-1]["name"].startswith("decoder")
    run(optimizer, trained, range(3))
    for block, ratio in enumerate((0.5 * 0.25**2, 0.5 * 0.25, 0.5, 1.0)):
        alone = parameters()
        run(build_optimizer(recipe(name), [alone[:3]], alone[3:], encoder_lr_ratio=min(ratio, 1.0)), alone, range(3))
        assert torch.equal(trained[block], alone[block]) and not torch.equal(trained[block], parameters()[block])


@pytest.mark.parametrize("name", NAMES)
def test_resumed_optimizer_matches_uninterrupted_one(name: OptimizerName) -> None:
    trained = parameters()
    optimizer = build_optimizer(recipe(name), [trained[:2]], trained[2:])
    run(optimizer, trained, range(2))
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in trained]
    run(optimizer, trained, range(2, 5))
    resumed = [nn.Parameter(weight) for weight in weights]
    again = build_optimizer(recipe(name), [resumed[:2]], resumed[2:])
    again.load_state_dict(saved)
    run(again, resumed, range(2, 5))
    for p, q in zip(trained, resumed, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_gradient_do_not_move(name: OptimizerName) -> None:
    trained = parameters()
    optimizer = build_optimizer(recipe(name), [trained[:2]], trained[2:])
    for step in range(3):  # a frozen encoder, then a free one
        for parameter, gradient in zip(trained, gradients(step), strict=True):
            parameter.grad = None if step < 2 and parameter.shape[0] == 3 else gradient
        optimizer.step()
        has_moved = not torch.equal(trained[0].detach(), parameters()[0].detach())
        assert has_moved == (step == 2)
    assert all(bool(p.isfinite().all()) for p in trained)


def test_novograd_gives_nemos_losses_on_a_small_quartznet(shared_data: Path) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")
    source = read_nemo(shared_data / "reference" / "quartznet5x5_small_random.nemo")
    model = AcousticModel(source.network, source.vocabulary.size + 1)
    model.load_state_dict(source.state)
    # float64: rounding in float32 flips ReLUs of this random network, and three steps amplify it.
    model.double().train().encoder.set_dropout(0.0)
    novograd = OptimizerRecipe(name="novograd", lr=0.01, beta1=0.8, beta2=0.5, weight_decay=1e-3)
    optimizer = build_optimizer(novograd, [model.encoder.parameters()], model.decoder.parameters())
    inputs = [torch.from_numpy(reference[name]) for name in
              ("pad16_features", "pad16_feat_len", "train_targets", "train_target_len")]
    for nemo, tolerance in zip(reference["novograd_losses"], (1e-6, 1e-5, 1e-3, 1e-2), strict=True):
        loss = _loss(model, inputs)
        assert math.isclose(loss.item(), nemo, rel_tol=tolerance)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_optimizer_without_a_branch_is_refused_by_name() -> None:
    """Its name is in `OptimizerName`, and nobody has built it yet."""
    unbuilt = OptimizerRecipe()
    object.__setattr__(unbuilt, "name", "sgd")
    with pytest.raises(RecipeError, match=r"^optimizer\.name is 'sgd'; it must be one that models/optimizers\.py has"):
        build_optimizer(unbuilt, [parameters()[:2]], parameters()[2:])


def test_every_optimizer_has_its_ranges_and_its_colour() -> None:
    for table in (spanish.LR_RANGES, spanish.BETA1_RANGES, spanish.BETA2_RANGES, spanish.DECAY_RANGES, COLOURS):
        assert set(table) == set(NAMES)


def _loss(model: AcousticModel, inputs: list[Tensor]) -> Tensor:
    features, lengths, targets, target_lengths = inputs
    encoded, lengths = model.encoder(features.double(), lengths)
    logits = F.linear(encoded.transpose(1, 2), model.decoder.weight, model.decoder.bias)
    return F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, lengths, target_lengths,
                      blank=logits.shape[-1] - 1, reduction="none").mean()
