"""Optuna as Ray Tune's searcher, which reports stopped trials as pruned, with their values at each epoch."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from ray.tune.search import Searcher

from search.records.job import Job
from search.records.trial_record import read_failure
from search.tuning.optuna_private import reopen
from search.tuning.optuna_study import trial_id
from search.tuning.tpe import Draws
from spaces.recipe import Recipe

logger = logging.getLogger(__name__)


MAX_INFEASIBLE_IN_A_ROW = 50
"""After this many infeasible draws, the space counts as having no feasible recipe."""


class SearchError(RuntimeError):
    """A search space without a recipe that can be tried."""


@dataclass
class _Open:
    """A trial whose result has not been reported to Optuna yet."""

    trial: Trial
    values: dict[int, float] = field(default_factory=dict)
    """What it is ranked by, by epoch, as in Optuna; asking Optuna would copy every trial of the study."""


class OptunaSearcher(Searcher):
    """Proposes recipes from an Optuna study and reports their results to it.

    Trials that a killed study left running are proposed first, under their own number, and resume from their
    checkpoints. A recipe that `why_infeasible` refuses is pruned before it costs anything.
    """

    def __init__(self, study: optuna.Study, sample: Callable[[Trial], Recipe], *, metric: str, seed: int,
                 num_trials: int, folder: Path, why_infeasible: Callable[[Recipe], str | None],
                 is_interrupted: Callable[[], bool]) -> None:
        super().__init__(metric=metric, mode="min")
        self._folder = folder
        self._study, self._sample, self._seed = study, sample, seed
        self._why_infeasible, self._is_interrupted = why_infeasible, is_interrupted
        self._num_trials = num_trials
        running = study.get_trials(states=(TrialState.RUNNING,))
        self._left_running = [trial.number for trial in running if not _clean_up(study, trial)]
        self._open: dict[str, _Open] = {}
        known = study.get_trials(deepcopy=False)
        # A resumed study draws new recipes, not the first ones again.
        self._draws = Draws(known, seed + len(known))

    def suggest(self, trial_id_of_ray: str) -> dict[str, Any] | str | None:
        """The next job's parameters; FINISHED when the requested number of trials has been proposed."""
        if self._left_running:
            opened = _reopen(self._study, self._left_running.pop(0))
            recipe = Recipe.from_dict(opened.trial.user_attrs["recipe"])
        elif asked := self._ask():
            trial, recipe = asked
            opened = _Open(trial)
        else:
            return str(Searcher.FINISHED)
        self._open[trial_id_of_ray] = opened
        return Job(id=trial_id(opened.trial.number), recipe=recipe, seed=self._seed,
                   hand_recipe=opened.trial.user_attrs.get("hand_recipe")).parameters()

    def _ask(self) -> tuple[Trial, Recipe] | None:
        """A new trial that can be trained; None when the requested number has been proposed."""
        for _ in range(MAX_INFEASIBLE_IN_A_ROW):
            known = self._study.get_trials(deepcopy=False)
            if num_proposed(known) >= self._num_trials:
                return None
            waits = any(trial.state == TrialState.WAITING for trial in known)
            trial, recipe = self._take_waiting() if waits else self._draw()
            reason = trial.user_attrs.get("infeasible")
            if reason is None:
                return trial, recipe
            self._tell(trial, state=TrialState.PRUNED)
        raise SearchError(f"{MAX_INFEASIBLE_IN_A_ROW} recipes in a row cannot be trained; the last: {reason} "
                          "Choose another space, or more or longer clips.")

    def _take_waiting(self) -> tuple[Trial, Recipe]:
        """The next recipe in the queue: a hand recipe, or one from another study."""
        trial = self._study.ask()
        recipe = self._sample(trial)
        for name, value in self._attributes(recipe).items():
            trial.set_user_attr(name, value)
        self._draws.observe(self._study.get_trials(deepcopy=False)[trial.number])
        return trial, recipe

    def _draw(self) -> tuple[Trial, Recipe]:
        """A new recipe and its trial, written in one transaction."""
        drawn, recipe = self._draws.draw(self._sample)
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=drawn.params,
                                           distributions=drawn.distributions,
                                           user_attrs=self._attributes(recipe) | drawn.user_attrs))
        added = self._study.get_trials(deepcopy=False)[-1]
        self._draws.observe(added)
        return reopen(self._study, added), recipe

    def _attributes(self, recipe: Recipe) -> dict[str, Any]:
        reason = self._why_infeasible(recipe)
        return ({"infeasible": reason} if reason else {}) | {"recipe": asdict(recipe)}

    def _tell(self, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
        self._draws.observe(self._study.tell(trial, value, state))

    def on_trial_result(self, trial_id_of_ray: str, result: dict[str, Any]) -> None:
        """Record what one epoch is ranked by; a missing or non-finite value is left out."""
        value, epoch = result.get(self.metric), result.get("epoch")
        opened = self._open.get(trial_id_of_ray)
        if opened is None or epoch is None or epoch in opened.values:
            return
        if value is not None and math.isfinite(value):
            opened.trial.report(value, epoch)
            opened.values[epoch] = value

    def on_trial_complete(self, trial_id_of_ray: str, result: dict[str, Any] | None = None,
                          error: bool = False) -> None:
        """Report a trial's final state to Optuna; a trial that an interrupt cut off stays open for a resume."""
        if result:
            self.on_trial_result(trial_id_of_ray, result)  # Tune reports the result of a stop only here
        opened = self._open.pop(trial_id_of_ray, None)
        if opened is None:
            return
        trial, values = opened.trial, opened.values
        recipe = Recipe.from_dict(trial.user_attrs["recipe"])
        reason = read_failure(self._folder / trial_id(trial.number))
        if error or reason:
            reason = reason or "its process was lost and did not come back"
            print(f"trial {trial_id(trial.number)} failed: {reason}", flush=True)
            trial.set_user_attr("reason", reason)
            self._tell(trial, state=TrialState.FAIL)
        elif values and max(values) >= recipe.training.epochs:
            self._tell(trial, min(values.values()))
        elif self._is_interrupted():
            logger.info("trial %s is left to be resumed", trial_id(trial.number))
        elif values:
            self._tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", "it ended before its first validation")
            self._tell(trial, state=TrialState.FAIL)

    def close(self) -> None:
        """Report trials that a budget cut off to Optuna, because Tune does not; not after an interrupt."""
        self._open |= {trial_id(number): _reopen(self._study, number) for number in self._left_running}
        for name in list(self._open):
            self.on_trial_complete(name)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the state is the SQLite study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def num_proposed(trials: Sequence[FrozenTrial]) -> int:
    """Trials that count towards the requested number: all except infeasible and waiting ones."""
    return sum("infeasible" not in trial.user_attrs and trial.state != TrialState.WAITING for trial in trials)


def num_ended(trials: Sequence[FrozenTrial]) -> int:
    """How many of the requested trials have ended."""
    return sum(trial.state.is_finished() and "infeasible" not in trial.user_attrs for trial in trials)


def _clean_up(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Close a trial that a kill cut off before it became a job; a recipe from the queue returns to it."""
    if "infeasible" in trial.user_attrs:
        study.tell(trial.number, state=TrialState.PRUNED)
        return True
    if "recipe" in trial.user_attrs:
        return False
    origin = {name: value for name, value in trial.user_attrs.items() if name in ("hand_recipe", "warm_start")}
    waiting = [other.user_attrs for other in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))]
    if origin and origin not in waiting:  # a kill may have come between this and the next step
        study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=origin)
    _reopen(study, trial.number).trial.set_user_attr("infeasible", "the study was killed while it was proposed")
    study.tell(trial.number, state=TrialState.PRUNED)
    return True


def _reopen(study: optuna.Study, number: int) -> _Open:
    """A trial that a killed process left running."""
    trial = study.get_trials(deepcopy=False)[number]
    return _Open(reopen(study, trial), dict(trial.intermediate_values))
