"""What a training would show: a model of recorded learning curves, from a recipe's parameters to the whole curve."""

import json
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from curves import CurvesError, load_recording
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from search.config import ConfigError
from search.speech.search_space import load_space

VALUES = ("raw", "averaged", "annealed")
"""What may be looked at after an epoch: WER of the weights, of their average, and after a short annealing."""

LEAST_TRIALS = 20
"""Fewer curves say nothing of a space."""

JUDGED = 2
"""The first so many are weights that a trial can hand over; the short annealing is only a look."""

DIVERGED_WER = 1.0
"""Word error rate of the epochs that a failed trial did not reach."""

NUM_SAMPLES = 4000
"""Recipes drawn to find the best one known, before the neighbourhoods of the best of them are searched."""

NUM_KEPT, NUM_NEAR, NUM_ROUNDS = 20, 25, 8
"""Recipes whose neighbourhoods are searched, neighbours of each, and times."""

LENGTHS = (0.2, 50.0)
"""Limits of the lengths of the kernel, in ranges of a parameter."""

Params = dict[str, Any]
Floats = NDArray[np.float64]


# --- the file -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Recorded trials of one corpus and one space."""

    sample: Callable[[Any], Any]
    """Makes a recipe of an Optuna trial."""
    hand_recipes: list[Params]
    max_epochs: int
    grace_epochs: int
    reduction_factor: int
    params: list[Params]
    """Each trial's, by Optuna's names."""
    wers: Floats
    """(trials, VALUES, epochs); a value that was not looked at is that of the weights' average."""
    seconds: Floats
    """(trials, epochs), from the start of the trial; in it are two looks at dev after each epoch."""
    look_s: float
    """Of one look, with one set of weights; the median."""

    @classmethod
    def load(cls, path: Path) -> "Curves":
        """Read a file of benchmarks/record.py.

        Raises:
            CurvesError: no such file, not a readable one, another version, a field is missing, or too few trials.
        """
        found = load_recording(path)
        epochs, whole = found.max_epochs, [trial for trial in found.trials if trial.get("epochs")]
        try:
            space = load_space(found.space)
            wers = np.array([_wers(trial, epochs) for trial in whole])
            seconds = np.array([_seconds(trial, epochs) for trial in whole])
            params = [trial["params"] for trial in whole]
            looks = [epoch["look_s"] for trial in whole for epoch in trial["epochs"] if "look_s" in epoch]
        except (KeyError, TypeError) as reason:
            raise CurvesError(f"{path}: a trial lacks something ({type(reason).__name__}: {reason}); record it again "
                              "with benchmarks/record.py.") from reason
        except (CurvesError, ConfigError) as reason:
            raise CurvesError(f"{path}: {reason}") from reason
        if len(whole) < LEAST_TRIALS:
            raise CurvesError(f"{path}: it holds {len(whole)} trials with an epoch; at least {LEAST_TRIALS} are "
                              "needed. Record more with benchmarks/record.py.")
        given: dict[str, Any] = {"max_epochs": epochs, "has_source": found.has_source}
        return cls(sample=partial(space.sample, **given), hand_recipes=list(space.baseline(**given).values()),
                   max_epochs=epochs, params=params, wers=wers, seconds=seconds,
                   look_s=float(np.median(looks)) if looks else 0.0, grace_epochs=found.grace_epochs,
                   reduction_factor=found.reduction_factor)


def _wers(trial: dict[str, Any], num_epochs: int) -> list[list[float]]:
    """(VALUES, epochs) of one trial, positive: a trial without an error has half a word in a thousand."""
    rows = trial["epochs"]
    if len(rows) != num_epochs and "reason" not in trial:
        raise CurvesError(f"a trial has {len(rows)} epochs of {num_epochs} and no reason; every trial must be "
                          "recorded to its end.")
    missing = [DIVERGED_WER] * (num_epochs - len(rows))
    return [[max(5e-4, row["averaged"] if row[value] is None else row[value]) for row in rows] + missing
            for value in VALUES]


def _seconds(trial: dict[str, Any], num_epochs: int) -> list[float]:
    """(epochs), going on at the last epoch's pace where a trial failed."""
    found = [row["train_s"] for row in trial["epochs"]]
    pace_s = found[-1] / len(found)
    return [*found, *(found[-1] + pace_s * more for more in range(1, num_epochs - len(found) + 1))]


# --- recipes --------------------------------------------------------------------------------------------------------


class Draw:
    """As much of an Optuna trial as a space asks for: draws uniformly, or near the parameters of another recipe."""

    def __init__(self, random: np.random.Generator, near: Params | None = None) -> None:
        self._random, self._near = random, near or {}
        self.params: Params = {}
        self.options: dict[str, list[Any] | tuple[float, float]] = {}
        """Choices, or the lowest and the highest number (its logarithm) of each parameter."""
        self.logs: set[str] = set()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices; near another recipe mostly its own."""
        self.options[name] = list(choices)
        stays = name in self._near and self._random.random() < 0.8
        self.params[name] = self._near[name] if stays else choices[self._random.integers(len(choices))]
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number; near another recipe about its own."""
        if log:
            self.logs.add(name)
            low, high = np.log(low), np.log(high)
        self.options[name] = (low, high)
        at = self._random.uniform(low, high)
        if name in self._near:
            own = np.log(self._near[name]) if log else self._near[name]
            at = np.clip(self._random.normal(own, 0.1 * (high - low)), low, high)
        self.params[name] = float(np.exp(at) if log else at)
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number."""
        self.params[name] = round(self.suggest_float(name, low, high))
        return int(self.params[name])


class Encoding:
    """Parameters as numbers from 0 to 1: choices one-hot, what a recipe does not have in the middle."""

    def __init__(self, sample: Callable[[Any], Any]) -> None:
        self._options: dict[str, list[Any] | tuple[float, float]] = {}
        self._logs: set[str] = set()
        random = np.random.default_rng(0)
        for _ in range(300):
            draw = Draw(random)
            sample(draw)
            self._options |= draw.options
            self._logs |= draw.logs

    def __call__(self, recipes: Sequence[Params]) -> Floats:
        """(recipes, columns)."""
        return np.array([[number for name in self._options for number in self._numbers(name, params)]
                         for params in recipes])

    def _numbers(self, name: str, params: Params) -> list[float]:
        options = self._options[name]
        if isinstance(options, list):
            return [float(params.get(name) == choice) for choice in options]
        if name not in params:
            return [0.5]
        low, high = options
        value = np.log(params[name]) if name in self._logs else params[name]
        return [(value - low) / max(high - low, 1e-9)]


# --- the model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training shows after each epoch."""

    wers: Floats
    """(VALUES, epochs), with the noise of its seed."""
    seconds: Floats
    """(epochs), since its start."""
    true_wer: float
    """The lowest word error rate of the recipe's curves without noise, raw or averaged: what is judged."""


class Surrogate:
    """A Gaussian process from parameters to log WER and log seconds by epoch, and the noise of seeds.

    One kernel, a length for each parameter, fitted to the lowest WER of each trial: smooth, as recipes are. Trees give
    plateaus, and on stand-in worlds of 150 trials they explained 0.86 of the variance where this explains 0.98.

    The noise is Gaussian with the covariance, over epochs and values, of the recordings of one recipe with other seeds
    about their mean; where no recipe was recorded twice, of the errors of recipes left out, which also hold the model's
    own.
    """

    def __init__(self, curves: Curves, seed: int = 0) -> None:
        self.curves = curves
        self._encode = Encoding(curves.sample)
        self._shape = curves.wers.shape[1:]
        targets = np.concatenate([np.log(curves.wers).reshape(len(curves.params), -1), np.log(curves.seconds)], axis=1)
        known = self._encode(curves.params)
        self._kernel = _fit_kernel(known, np.log(curves.wers[:, :JUDGED].min(axis=(1, 2))))
        self._known, self._mean = known / self._kernel.lengths, targets.mean(axis=0)
        inverse = np.linalg.inv(self._covariance(self._known) + self._kernel.noise * np.eye(len(known)))
        self._weights: Floats = inverse @ (targets - self._mean)
        left_out: Floats = np.concatenate([np.linalg.solve(inverse[np.ix_(group, group)], self._weights[group])
                                           for group in _by_recipe(curves.params)])  # with all its seeds
        self.score = float(1 - left_out.var(axis=0).sum() / targets.var(axis=0).sum())
        repeated = _about_their_means(curves.params, targets)
        self.has_repeats = len(repeated) > 0
        self._noise = repeated if self.has_repeats else left_out / np.sqrt(len(left_out))
        self.best_wer, self.best = self._find_best(np.random.default_rng(seed))

    def with_curves(self, curves: Curves) -> "Surrogate":
        """The same model with other rungs or other hand recipes."""
        other = copy(self)
        other.curves = curves
        return other

    def train(self, params: Params, random: np.random.Generator) -> Training:
        """One training of a recipe, of a new seed."""
        mean = self._predict([params])[0]
        seen = np.exp(mean + random.standard_normal(len(self._noise)) @ self._noise)
        num_wers = self._shape[0] * self._shape[1]
        return Training(wers=seen[:num_wers].reshape(self._shape), seconds=np.maximum.accumulate(seen[num_wers:]),
                        true_wer=float(self._true_wers(mean[None])[0]))

    def true_wers(self, recipes: Sequence[Params]) -> Floats:
        """(recipes), the lowest word error rate of each without noise, raw or averaged."""
        return self._true_wers(self._predict(recipes))

    def _true_wers(self, means: Floats) -> Floats:
        wers = means[:, : self._shape[0] * self._shape[1]].reshape(len(means), *self._shape)
        lowest: Floats = np.exp(wers[:, :JUDGED].min(axis=(1, 2)))
        return lowest

    def _predict(self, recipes: Sequence[Params]) -> Floats:
        """(recipes, targets)."""
        means: Floats = self._mean + self._covariance(self._encode(recipes) / self._kernel.lengths) @ self._weights
        return means

    def _covariance(self, scaled: Floats) -> Floats:
        """(recipes, known recipes)."""
        return np.exp(-0.5 * cdist(scaled, self._known, "sqeuclidean"))

    def _find_best(self, random: np.random.Generator) -> tuple[float, Params]:
        """The best of many recipes, and of the neighbourhoods of the best of them, again and again."""
        found = self.draw(random, NUM_SAMPLES)
        wers = self.true_wers(found)
        for _ in range(NUM_ROUNDS):
            kept = [found[i] for i in np.argsort(wers)[:NUM_KEPT]]
            near = [self._draw(random, recipe) for recipe in kept for _ in range(NUM_NEAR)]
            found = kept + near
            wers = self.true_wers(found)
        return float(wers.min()), found[int(wers.argmin())]

    def draw(self, random: np.random.Generator, count: int) -> list[Params]:
        """Recipes, each choice and each number with equal chances."""
        return [self._draw(random) for _ in range(count)]

    def _draw(self, random: np.random.Generator, near: Params | None = None) -> Params:
        draw = Draw(random, near)
        self.curves.sample(draw)
        return draw.params


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Covariance of log WERs: 1 for the same recipe, and noise beside it."""

    lengths: Floats
    """(columns), over which a number counts as another one."""
    noise: float
    """Variance of the noise as a ratio of that over recipes."""


def _fit_kernel(known: Floats, log_wers: Floats) -> Kernel:
    """By marginal likelihood."""
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(np.ones(known.shape[1]), LENGTHS) + WhiteKernel(1e-2, (1e-5, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its limit is a parameter without effect
        found = GaussianProcessRegressor(kernel, normalize_y=True).fit(known, log_wers).kernel_
    return Kernel(lengths=found.k1.k2.length_scale, noise=found.k2.noise_level / found.k1.k1.constant_value)


def _by_recipe(params: list[Params]) -> list[list[int]]:
    """The recordings of each recipe."""
    groups: dict[str, list[int]] = {}
    for i, recipe in enumerate(params):
        groups.setdefault(json.dumps(recipe, sort_keys=True), []).append(i)
    return list(groups.values())


def _about_their_means(params: list[Params], targets: Floats) -> Floats:
    """(recordings, targets) of recipes recorded more than once, about their means, so scaled that `rows.T @ rows` is
    the covariance of one recording."""
    rows = [targets[group] - targets[group].mean(axis=0) for group in _by_recipe(params) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in rows)
    return np.concatenate(rows) / np.sqrt(freedom) if rows else np.empty((0, targets.shape[1]))
