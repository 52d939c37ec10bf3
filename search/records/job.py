"""Job: one training that is asked for; its TrialRecord is what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spaces.recipe import Recipe

KEY = "job"
"""The one parameter of a trial of Ray Tune."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, as a trial's process takes it."""

    id: str
    """The trial's name, and its folder's."""
    recipe: Recipe
    seed: int
    hand_recipe: str | None = None
    """The name of the hand recipe that it tries."""
    patience: int | None = None
    """Epochs without a better one after which it ends; None for never."""
    keep_last: int = 0
    """Latest epochs of which the weights are kept."""

    def parameters(self) -> dict[str, Any]:
        """As Ray Tune takes a trial's parameters, in plain values; what is left to its default is not among them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {KEY: own | {"recipe": self.recipe.flat()}}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Job":
        """Read what `parameters` made."""
        own: dict[str, Any] = parameters[KEY]
        return cls(**own | {"recipe": Recipe.from_flat(own["recipe"])})
