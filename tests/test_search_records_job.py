"""A job becomes plain values for Ray Tune, and is a job again in a trial's process."""

import json

import pytest

from search.records.job import Job
from spaces.recipe import OptimizerRecipe, Recipe

pytestmark = pytest.mark.timeout(20)

RECIPE = Recipe(optimizer=OptimizerRecipe(name="lion", lr=1e-3))


@pytest.mark.parametrize("job", [
    Job(id="0000", recipe=RECIPE, seed=3), Job(id="0001", recipe=Recipe(), seed=0, hand_recipe="published"),
    Job(id="training", recipe=RECIPE, seed=1, patience=2, keep_last=5)])
def test_job_comes_back_from_the_parameters_of_its_trial(job: Job) -> None:
    assert Job.of(json.loads(json.dumps(job.parameters()))) == job


def test_parameters_hold_what_is_set_alone() -> None:
    assert Job(id="0000", recipe=RECIPE, seed=3).parameters() == {
        "job": {"id": "0000", "recipe": RECIPE.flat(), "seed": 3}}
