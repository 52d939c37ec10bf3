"""Searchers that are compared, driven by direct calls as Ray Tune drives them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from surrogate import Params, Surrogate

from search.records.job import Job
from search.tuning.asha import ResumableASHA
from search.tuning.searcher import OptunaSearcher
from search.tuning.tpe import tpe

UNLIMITED = 10**6
"""Trials that a searcher is asked for at most: the cost ends a search."""


class Contender(Protocol):
    """A searcher with its scheduler."""

    def begin(self, name: str) -> Params:
        """The parameters of the next trial."""

    def report(self, name: str, epoch: int, wer: float) -> bool:
        """Process an epoch, and return whether the trial continues. After the last epoch it does not."""


# --- the searchers --------------------------------------------------------------------------------------------------


class RandomSearch:
    """Every choice with equal probability, every trial to the full budget."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self._surrogate, self._random = surrogate, np.random.default_rng(seed)

    def begin(self, name: str) -> Params:
        """A random recipe."""
        return self._surrogate.draw(self._random, 1)[0]

    def report(self, name: str, epoch: int, wer: float) -> bool:
        """Train on."""
        return epoch < self._surrogate.curves.max_epochs


class FullTPE:
    """Optuna's TPE with its defaults, every trial to the full budget; told the lowest word error rate of each."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self._curves = surrogate.curves
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._open: dict[str, optuna.Trial] = {}
        self._lowest: dict[str, float] = {}

    def begin(self, name: str) -> Params:
        """What TPE proposes."""
        trial = self._open[name] = self._study.ask()
        self._lowest[name] = float("inf")
        self._curves.sample(trial)
        return trial.params

    def report(self, name: str, epoch: int, wer: float) -> bool:
        """Train on, and tell at the end."""
        self._lowest[name] = min(wer, self._lowest[name])
        if epoch < self._curves.max_epochs:
            return True
        self._study.tell(self._open.pop(name), self._lowest[name])
        return False


class Tuned:
    """A searcher and a scheduler of Ray Tune, called in the order in which Tune calls them."""

    def __init__(self, searcher: Searcher, scheduler: TrialScheduler,
                 params_of: Callable[[dict[str, Any]], Params]) -> None:
        self.searcher, self.scheduler, self._params_of = searcher, scheduler, params_of
        self._open: dict[str, Any] = {}

    def begin(self, name: str) -> Params:
        """What the searcher suggests."""
        config = self.searcher.suggest(name)
        assert isinstance(config, dict)
        self._open[name] = SimpleNamespace(trial_id=name, config=config)
        self.scheduler.on_trial_add(None, self._open[name])
        return self._params_of(config)

    def report(self, name: str, epoch: int, wer: float) -> bool:
        """The scheduler's decision; the searcher gets the last result of a trial only with the trial's end."""
        result = {"training_iteration": epoch, "epoch": epoch, "wer": wer}
        if self.scheduler.on_trial_result(None, self._open[name], result) != TrialScheduler.STOP:
            self.searcher.on_trial_result(name, result)
            return True
        self.scheduler.on_trial_remove(None, self._open.pop(name))
        self.searcher.on_trial_complete(name, result)
        return False


def shipped_asha(surrogate: Surrogate, seed: int) -> Contender:
    """The same with Ray's own defaults: the first rung after one epoch, one in four continues."""
    return stock_asha(surrogate, seed, grace_epochs=1, reduction_factor=4)


def stock_asha(surrogate: Surrogate, seed: int, *, grace_epochs: int | None = None,
               reduction_factor: int | None = None) -> Contender:
    """Ray's ASHA and Ray's Optuna searcher, which tells a stopped trial as complete with the value of its rung."""
    curves = surrogate.curves

    def space(trial: Any) -> None:
        curves.sample(trial)

    return Tuned(
        OptunaSearch(space=space, metric="wer", mode="min", seed=seed),
        ASHAScheduler(metric="wer", mode="min", max_t=curves.max_epochs,
                      grace_period=grace_epochs or curves.grace_epochs,
                      reduction_factor=reduction_factor or curves.reduction_factor),
        params_of=dict)


def cuarzo(surrogate: Surrogate, seed: int) -> Contender:
    """A study's own searcher and scheduler, the hand recipes first."""
    curves = surrogate.curves
    study = optuna.create_study(sampler=tpe(seed))
    for number, params in enumerate(curves.hand_recipes):
        study.enqueue_trial(params, user_attrs={"hand_recipe": str(number)})
    searcher = OptunaSearcher(study, curves.sample, metric="wer", seed=seed, num_trials=UNLIMITED,
                                folder=Path(tempfile.gettempdir()) / "no-trial-fails-here",
                                why_infeasible=lambda _: None, is_interrupted=lambda: False)
    scheduler = ResumableASHA(metric="wer", max_epochs=curves.max_epochs, grace_epochs=curves.grace_epochs,
                          reduction_factor=curves.reduction_factor)
    return Tuned(searcher, scheduler,
                 params_of=lambda config: study.get_trials(deepcopy=False)[int(Job.of(config).id)].params)


CONTENDERS: dict[str, Callable[[Surrogate, int], Contender]] = {
    "random, full budget": RandomSearch, "TPE, full budget": FullTPE,
    "ASHA, Ray's OptunaSearch, Ray's defaults": shipped_asha, "ASHA, Ray's OptunaSearch, our rungs": stock_asha,
    "Cuarzo": cuarzo}

PLAIN = (RandomSearch, FullTPE, shipped_asha, stock_asha)
"""Those in common use, which know only the latest weights."""
