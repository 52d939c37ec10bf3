"""Proposals near recipes that work: a good trial with some of its parameters changed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

CHANGED = 0.3
"""Chance of each parameter to be changed."""

STEP = 0.2
"""Standard deviation of a changed number, as a share of its range; on a logarithmic scale if its range is on one."""


class NearbySampler(BaseSampler):
    """Keeps most parameters of a trial and changes the others. Parameters that the trial lacks are drawn uniformly."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._uniform = optuna.samplers.RandomSampler(seed)
        self.near: Mapping[str, Any] = {}
        """The trial's parameters."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Empty, because each parameter is drawn by itself."""
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial,
                        search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Empty, likewise."""
        return {}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        """The trial's own value, or another one: near it if it is a number."""
        kept = self.near.get(param_name)
        if kept is not None and _holds(param_distribution, kept):
            if self._random.random() >= CHANGED:
                return kept
            if isinstance(param_distribution, FloatDistribution | IntDistribution):
                return _moved(param_distribution, kept, self._random.normal(0.0, STEP))
        return self._uniform.sample_independent(study, trial, param_name, param_distribution)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a parameter may have this value here: a range may depend on other parameters."""
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return bool(distribution.low <= value <= distribution.high)
    return isinstance(distribution, CategoricalDistribution) and value in distribution.choices


def _moved(distribution: FloatDistribution | IntDistribution, value: float, by: float) -> float | int:
    """A number moved by a share of its range, and kept inside it."""
    low, high = distribution.low, distribution.high
    moved = value * (high / low) ** by if distribution.log else value + by * (high - low)
    if isinstance(distribution, IntDistribution):
        moved = low + round((moved - low) / distribution.step) * distribution.step
        return int(min(max(moved, low), high))
    return float(min(max(moved, low), high))
