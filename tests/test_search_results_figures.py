"""Figures can be read: trials are told apart, and ticks are where a person looks for them."""

from dataclasses import replace

import pytest
from told_study import RECIPE

from search.results import figures
from spaces.recipe import OptimizerRecipe, TransferRecipe

pytestmark = pytest.mark.timeout(60)


def test_recipe_that_babbles_leaves_the_others_to_be_told_apart() -> None:
    wers = {"0000": {1: 0.5, 2: 0.3}, "0001": {1: 9.85, 2: 9.85}, "0002": {1: 0.9, 2: 0.8}}
    trials = [figures.Shown(name=name, recipe=RECIPE, wers=found, state="complete") for name, found in wers.items()]
    curves = figures.learning_curves(trials)
    assert [list(line.y) for line in curves.data] == [[0.5, 0.3], [1.1, 1.1], [0.9, 0.8]]
    (rates,) = (figures.learning_rates(trials, 2) or curves).data
    assert list(rates.y) == [0.3, 1.1, 0.8]


def test_ticks_of_a_narrow_axis_differ() -> None:
    recipes = [replace(RECIPE, optimizer=OptimizerRecipe(lr=lr)) for lr in (1.0e-3, 1.005e-3, 1.01e-3)]
    trials = [figures.Shown(name=f"{i:04d}", recipe=recipe, wers={1: 1.0 + i / 200}, state="complete")
              for i, recipe in enumerate(recipes)]
    axes = figures.parallel_coordinates(trials, 1)
    assert axes is not None
    rates, wers = axes.data[0].dimensions
    assert len(set(rates.ticktext)) == 5 and wers.tickformat == "~%"
    drawn = [figures.learning_curves(trials), figures.learning_rates(trials, 1)]
    assert {figure.layout.yaxis.tickformat for figure in drawn if figure} == {"~%"}
    assert drawn[0] is not None and drawn[0].layout.xaxis.dtick == 1, "no epoch 1.5"


@pytest.mark.parametrize(("strengths", "is_logarithmic"), [((0.1, 10.0, 100.0), True), ((0.0, 10.0, 100.0), False)])
def test_axis_of_a_choice_that_may_be_off_has_its_zero(strengths: tuple[float, ...], is_logarithmic: bool) -> None:
    recipes = [replace(RECIPE, transfer=TransferRecipe(source_l2=strength)) for strength in strengths]
    trials = [figures.Shown(name=f"{i:04d}", recipe=recipe, wers={1: 0.5 + i / 10}, state="complete")
              for i, recipe in enumerate(recipes)]
    axes = figures.parallel_coordinates(trials, 1)
    assert axes is not None
    (drawn,) = (axis for axis in axes.data[0].dimensions if axis.label == "L2 from source")
    assert list(drawn["values"]) == pytest.approx([-1, 1, 2] if is_logarithmic else list(strengths))
