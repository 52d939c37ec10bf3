"""A task on speech counts clips where it counts hours, and views where it counts memory."""

from dataclasses import replace
from pathlib import Path

import pytest
from noise_study import RECIPE, make_context

from search.trials.context import Link

pytestmark = pytest.mark.timeout(60)


def test_two_views_take_twice_the_passes_and_are_heard_once(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    twice = replace(RECIPE, training=replace(RECIPE.training, consistency=0.2))
    one, two = (context.task.build(recipe, 3, context.worker(Link()))[0] for recipe in (RECIPE, twice))
    assert (one.passes, two.passes) == (2, 4), "a pass holds at most two seconds, in views"
    assert one.epoch_work == two.epoch_work and one.steps_in_epoch(0) == two.steps_in_epoch(0)
    one.setup("fit")
    for data in (one, two):
        batches = list(data.train_dataloader())
        assert sum(map(data.work, batches)) == 16.0
    assert context.task.probe_recipe(twice).training == context.task.probe_recipe(RECIPE).training
