"""Job: a request for one training; its TrialRecord holds the result."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spaces.recipe import Recipe

KEY = "job"
"""The one parameter of a trial of Ray Tune."""


PARTS = {"quarter": 0.25, "half": 0.5}
"""Shares of the speech that a winner's recipe is trained on to tell what more would give, by the ends of the trainings'
names; the first is given up last."""


def is_part(name: str) -> bool:
    """Whether a training is of a part of the speech: it is no trial of the search and cannot win."""
    return name.rpartition("-")[2] in PARTS


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, as passed to a trial's process."""

    id: str
    """The trial's name, and its folder's."""
    recipe: Recipe
    seed: int
    hand_recipe: str | None = None
    """Name of the hand recipe, if it is one."""
    patience: int | None = None
    """Stop after this many epochs without improvement; None for never."""
    keep_last: int = 0
    """Number of latest epochs whose weights are kept."""

    def parameters(self) -> dict[str, Any]:
        """The parameters of a Ray Tune trial, as plain values; fields at their default are left out."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {KEY: own | {"recipe": self.recipe.flat()}}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Job":
        """Rebuild a job from its `parameters`."""
        own: dict[str, Any] = parameters[KEY]
        return cls(**own | {"recipe": Recipe.from_flat(own["recipe"])})
