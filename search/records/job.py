"""Job: a request for one training; its TrialRecord holds the result."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spaces.recipe import Recipe

KEY = "job"
"""The one parameter of a trial of Ray Tune."""


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
