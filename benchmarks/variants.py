"""Cuarzo with one thing changed: what was tried to find the best recipe for less (`search.py --variants`).

The word error rate that a rung is judged by is `search.py --value`.
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from contenders import Contender, Tuned, cuarzo
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from surrogate import Surrogate

from search.config import rungs
from search.tuning import tpe as tpe_module
from search.tuning.tpe import Draws

LEAST_AT_RUNG = 8
"""Trials that a rung needs before TPE tells good from bad by it."""

LATEST_AT_RUNG = 12
"""Values of a rung that a trial has to stand beside, where it forgets."""

Make = Callable[[Surrogate, int], Contender]


class DrawsByRung(Draws):
    """Good and bad as in BOHB (arXiv 1807.01774): by the values at the highest rung that enough trials reached."""

    def __init__(self, known: Sequence[FrozenTrial], seed: int, *, rungs: Sequence[int]) -> None:
        self._rungs, self._rung = rungs, rungs[0]
        super().__init__(known, seed)

    def observe(self, trial: FrozenTrial) -> None:
        """Take note, and begin again where the trial makes another rung the judge."""
        super().observe(trial)
        reached = [max(ended.intermediate_values, default=0) for ended in self._ended]
        rung = max((rung for rung in self._rungs if sum(epoch >= rung for epoch in reached) >= LEAST_AT_RUNG),
                   default=self._rungs[0])
        if rung != self._rung:
            self._rung = rung
            self._begin()

    def _copy(self, trial: FrozenTrial) -> None:
        values = trial.intermediate_values
        if trial.state != TrialState.RUNNING and values:
            of_all = {"params": trial.params, "distributions": trial.distributions}
            trial = (create_trial(state=TrialState.COMPLETE, value=values[self._rung], **of_all)
                     if self._rung in values else
                     create_trial(state=TrialState.PRUNED, intermediate_values=values, **of_all))
        super()._copy(trial)


class LatestASHA(FIFOScheduler):
    """ASHA that compares with a rung's latest values alone: proposals get better, and old ones let all of them pass."""

    def __init__(self, max_epochs: int, grace_epochs: int, reduction_factor: int) -> None:
        super().__init__()
        self._max_epochs, self._behind = max_epochs, 100 / reduction_factor
        self._latest = {epoch: deque[float](maxlen=LATEST_AT_RUNG)
                        for epoch in rungs(max_epochs, grace_epochs, reduction_factor)}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """As Ray's ASHA decides, over a part of the rung."""
        latest = self._latest.get(result["epoch"])
        if result["epoch"] >= self._max_epochs:
            return str(self.STOP)
        if latest is None:
            return str(self.CONTINUE)
        is_behind = bool(latest) and result["wer"] > np.nanpercentile(latest, self._behind)
        latest.append(result["wer"])
        return str(self.STOP if is_behind else self.CONTINUE)


class CheaperOfTwo(Draws):
    """Of two proposals the one whose training takes fewer seconds, as the surrogate knows: more than a study could."""

    def __init__(self, known: Sequence[FrozenTrial], seed: int, *, surrogate: Surrogate) -> None:
        super().__init__(known, seed)
        self._surrogate = surrogate

    def draw(self, sample: Callable[[Trial], Any]) -> tuple[Trial, Any]:
        """Draw twice."""
        return min((super(CheaperOfTwo, self).draw(sample) for _ in range(2)),
                   key=lambda drawn: self._surrogate.train(drawn[0].params, np.random.default_rng(0)).seconds[-1])


def with_curves(surrogate: Surrogate, seed: int, **changes: Any) -> Contender:
    """Other rungs, or no hand recipes."""
    return cuarzo(surrogate.with_curves(replace(surrogate.curves, **changes)), seed)


def with_tpe(surrogate: Surrogate, seed: int, **options: Any) -> Contender:
    """Other options of TPE."""
    def sampler(seed: int) -> optuna.samplers.TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # group is experimental, and gamma has been deprecated
            return optuna.samplers.TPESampler(
                **{"multivariate": True, "group": True, "constant_liar": True, "seed": seed} | options)

    with patch.object(tpe_module, "tpe", sampler):
        return cuarzo(surrogate, seed)


def by_rung(surrogate: Surrogate, seed: int) -> Contender:
    """Densities by rung."""
    curves = surrogate.curves
    found = rungs(curves.max_epochs, curves.grace_epochs, curves.reduction_factor)
    with patch("search.tuning.searcher.Draws", partial(DrawsByRung, rungs=found)):
        return cuarzo(surrogate, seed)


def cheaper_of_two(surrogate: Surrogate, seed: int) -> Contender:
    """Proposals that weigh cost."""
    with patch("search.tuning.searcher.Draws", partial(CheaperOfTwo, surrogate=surrogate)):
        return cuarzo(surrogate, seed)


def with_two_brackets(surrogate: Surrogate, seed: int) -> Contender:
    """As in Ray's ASHA, which draws a trial's bracket from NumPy's global generator."""
    np.random.seed(seed)
    curves = surrogate.curves
    return scheduled(surrogate, seed, ASHAScheduler(
        time_attr="epoch", metric="wer", mode="min", max_t=curves.max_epochs, grace_period=curves.grace_epochs,
        reduction_factor=curves.reduction_factor, brackets=2))


def with_latest_rungs(surrogate: Surrogate, seed: int) -> Contender:
    """Rungs that forget."""
    curves = surrogate.curves
    return scheduled(surrogate, seed, LatestASHA(curves.max_epochs, curves.grace_epochs, curves.reduction_factor))


def scheduled(surrogate: Surrogate, seed: int, scheduler: TrialScheduler) -> Contender:
    """Another scheduler."""
    contender = cuarzo(surrogate, seed)
    assert isinstance(contender, Tuned)
    contender.scheduler = scheduler
    return contender


def _gamma(share: float, trials: int) -> int:
    return min(ceil(share * trials), tpe_module.BEST)


VARIANTS: dict[str, Make] = {
    "no hand recipes": partial(with_curves, hand_recipes=[]),
    "grace of 3 epochs": partial(with_curves, grace_epochs=3),
    "grace of 9 epochs": partial(with_curves, grace_epochs=9),
    "reduction by 4": partial(with_curves, reduction_factor=4),
    "two brackets": with_two_brackets,
    "rungs of the latest 12": with_latest_rungs,
    "densities by rung": by_rung,
    "the cheaper of two proposals": cheaper_of_two,
    "TPE: 20 random trials first": partial(with_tpe, n_startup_trials=20),
    "TPE: a fifth are good": partial(with_tpe, gamma=partial(_gamma, 0.2)),
    "TPE: 96 candidates": partial(with_tpe, n_ei_candidates=96),
    "TPE: each parameter for itself": partial(with_tpe, multivariate=False, group=False),
}
