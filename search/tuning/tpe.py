"""Draw recipes in memory: by Optuna's TPE over the trials that matter to it, and near recipes that work.

In SQLite, each parameter of a recipe is a transaction, and TPE reads all trials a dozen times: a quarter of a second at
2,000 trials. Drawn here, a recipe is written once, when it is complete.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.tuning.nearby import NearbySampler

T = TypeVar("T")

BEST = 25
"""Most trials that TPE counts as the better ones, a tenth of all (Optuna's `default_gamma`)."""

LATEST = 500
"""Trials to compare them with; a draw's time grows with them. With 250, 2,000 trials found worse recipes than with all.
"""

ELITE = 2
"""Best trials that recipes are drawn near to."""

FRESH = 6
"""Ended trials of TPE, at first random ones, that hand recipes are measured by."""

NEAR_AT_FIRST, NEAR_IF_BEST, NEAR_OTHERWISE = 0.3, 0.9, 0.2
"""Shares of recipes that are drawn near others: before so many have ended, while a hand recipe is better than all of
them, and afterwards."""

GIVEN = {"hand_recipe", "warm_start"}
"""Attributes of trials whose recipes were given."""

NEAR = "near"
"""Attribute of trials that were drawn near another one: its number."""

SLACK = 250
"""Trials that may accumulate before older ones are dropped, which copies all the others."""

GIVE_VALUES = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that TPE learns from."""


def tpe(seed: int) -> optuna.samplers.TPESampler:
    """TPE as arXiv 2304.11127 recommends it; open trials count as bad ones, so that none is drawn twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


class Draws:
    """Draws from the best, the latest and the open trials of a study."""

    def __init__(self, known: Sequence[FrozenTrial], seed: int) -> None:
        self._tpe, self._nearby, self._random = tpe(seed), NearbySampler(seed), np.random.default_rng(seed)
        self._ended = [trial for trial in known if trial.state in GIVE_VALUES]
        self._running = {trial.number: trial for trial in known if trial.state == TrialState.RUNNING}
        self._begin()

    def draw(self, sample: Callable[[Trial], T]) -> tuple[Trial, T]:
        """The result of `sample` on a new trial, and that trial, for its parameters; the study does not have it yet."""
        near = self._near()
        if near:
            self._nearby.near = near.params
        self._memory.sampler = self._nearby if near else self._tpe
        trial = self._memory.ask()
        drawn = sample(trial)
        if near:
            trial.set_user_attr(NEAR, near.number)
        self._memory.tell(trial, state=TrialState.FAIL)  # `observe` adds the study's trial like any other
        return trial, drawn

    def _near(self) -> FrozenTrial | None:
        """The trial near which the next recipe is drawn; None for TPE.

        Hand recipes, and those of a warm start, are a prior that is trusted as far as it has paid in this study, as in
        PriorBand (arXiv 2306.12370): much while no recipe that TPE drew is better, little otherwise.
        """
        best = sorted(self._ended, key=goodness)
        given = [trial for trial in best if GIVEN & trial.user_attrs.keys()]
        fresh = [trial for trial in best if not (GIVEN | {NEAR}) & trial.user_attrs.keys()]
        if len(fresh) < FRESH:
            models, share = given, NEAR_AT_FIRST
        else:
            is_given_best = bool(given) and goodness(given[0]) < goodness(fresh[0])
            models, share = best, NEAR_IF_BEST if is_given_best else NEAR_OTHERWISE
        if not models or self._random.random() >= share:
            return None
        return models[int(self._random.integers(min(ELITE, len(models))))]

    def observe(self, trial: FrozenTrial) -> None:
        """Record a trial of the study that has started or ended."""
        if self._running.pop(trial.number, None):
            self._memory.tell(self._copies.pop(trial.number), state=TrialState.FAIL)  # the ended one replaces it
        if trial.state == TrialState.RUNNING:
            self._running[trial.number] = trial
            self._copy(trial)
        elif trial.state in GIVE_VALUES:
            self._ended.append(trial)
            self._copy(trial)
            if len(self._ended) > BEST + LATEST + SLACK:
                self._begin()

    def _begin(self) -> None:
        """Start an in-memory study with the trials that matter, and drop the others."""
        self._ended = deciding(self._ended)
        self._memory = optuna.create_study(sampler=self._tpe, direction="minimize")
        self._copies: dict[int, int] = {}
        for trial in (*self._ended, *self._running.values()):
            self._copy(trial)

    def _copy(self, trial: FrozenTrial) -> None:
        self._memory.add_trial(trial)
        if trial.state == TrialState.RUNNING:
            self._copies[trial.number] = self._memory.get_trials(deepcopy=False)[-1].number


def deciding(ended: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best and the latest of the ended trials, in their order."""
    best = {trial.number for trial in sorted(ended, key=goodness)[:BEST]}
    return [trial for trial in ended[:-LATEST] if trial.number in best] + list(ended[-LATEST:])


def goodness(trial: FrozenTrial) -> tuple[int, int, float]:
    """TPE's order: complete trials by value, then pruned ones by how far they got, then by their last value."""
    if trial.state == TrialState.COMPLETE:
        return 0, 0, float(trial.value or 0.0)
    last = max(trial.intermediate_values, default=0)
    return 1, -last, trial.intermediate_values.get(last, 0.0)
