"""Recipes near another one keep most of it, stay inside the space, and are a study's own as far as that pays."""

from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.tuning import tpe
from search.tuning.nearby import NearbySampler
from search.tuning.tpe import Draws

pytestmark = pytest.mark.timeout(60)

MODEL: dict[str, Any] = {"name": "b", "lr": 1e-3, "share": 0.5, "layers": 4}
SPACE: dict[str, BaseDistribution] = {
    "name": CategoricalDistribution(["a", "b", "c"]), "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "share": FloatDistribution(0.0, 1.0), "layers": IntDistribution(1, 9)}


def sample(trial: Trial) -> dict[str, Any]:
    return {"name": trial.suggest_categorical("name", ["a", "b", "c"]),
            "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
            "share": trial.suggest_float("share", 0.0, 1.0), "layers": trial.suggest_int("layers", 1, 9)}


def drawn_near(model: dict[str, Any], count: int) -> list[dict[str, Any]]:
    sampler = NearbySampler(seed=0)
    sampler.near = model
    study = optuna.create_study(sampler=sampler)
    return [sample(study.ask()) for _ in range(count)]


def test_three_in_ten_parameters_are_changed_and_numbers_by_a_fifth_of_their_range() -> None:
    found = drawn_near(MODEL, 600)
    for name in ("lr", "share"):
        assert 0.25 < sum(recipe[name] != MODEL[name] for recipe in found) / len(found) < 0.35
    moved = [recipe["share"] - 0.5 for recipe in found if recipe["share"] != 0.5]
    assert 0.15 < (sum(by * by for by in moved) / len(moved)) ** 0.5 < 0.22
    assert 0.15 < sum(recipe["name"] != "b" for recipe in found) / len(found) < 0.25, "a choice may be drawn again"


def test_what_is_drawn_is_inside_the_space_also_near_its_edge() -> None:
    for recipe in drawn_near({"name": "c", "lr": 1e-1, "share": 0.0, "layers": 9}, 300):
        assert recipe["name"] in "abc" and 1e-5 <= recipe["lr"] <= 1e-1
        assert 0.0 <= recipe["share"] <= 1.0 and recipe["layers"] in range(1, 10)


def test_what_the_model_lacks_or_may_not_have_here_is_drawn_uniformly() -> None:
    shares = [recipe["share"] for recipe in drawn_near({"name": "z", "share": 7.0, "layers": 4}, 300)]
    assert min(shares) < 0.1 and max(shares) > 0.9


def ended(number: int, value: float, **attributes: Any) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, value=value, params=MODEL, distributions=SPACE,
                         user_attrs=attributes)
    trial.number = number
    return trial


def share_near(known: list[FrozenTrial]) -> float:
    draws = Draws(known, seed=0)
    return sum(tpe.NEAR in draws.draw(sample)[0].user_attrs for _ in range(300)) / 300


def test_hand_recipes_are_trusted_as_far_as_they_pay() -> None:
    hand = [ended(0, 0.3, hand_recipe="a"), ended(1, 0.5, hand_recipe="b")]
    worse, better = ([ended(2 + i, value) for i in range(tpe.FRESH)] for value in (0.6, 0.2))
    shares = [share_near(known) for known in ([], hand, hand + worse, hand + better, better)]
    assert shares == pytest.approx([0, tpe.NEAR_AT_FIRST, tpe.NEAR_IF_BEST, *2 * [tpe.NEAR_OTHERWISE]], abs=0.08)


def test_recipe_says_near_which_one_it_was_drawn() -> None:
    hand = [ended(i, 0.3 + i / 10, hand_recipe=str(i)) for i in range(4)]
    draws = Draws(hand, seed=0)
    near = {draws.draw(sample)[0].user_attrs.get(tpe.NEAR) for _ in range(100)}
    assert near == {None, 0, 1}, "the best two"
    assert "near" not in Draws([], seed=0).draw(sample)[0].user_attrs
