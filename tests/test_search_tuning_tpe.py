"""What is drawn from: the trials that decide, as Optuna itself would see them."""

from random import Random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.tuning.tpe import BEST, LATEST, SLACK, Draws, deciding

NUM_MANY = BEST + LATEST + SLACK + 40
"""Trials of which some have been dropped."""

DROPPED_AT = BEST + LATEST + SLACK + 1


def sample(trial: Trial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["plain", "curved"])
    trial.suggest_float("x", 0.0, 1.0)
    if kind == "curved":
        trial.suggest_float("curve", 0.0, 1.0)
    return trial.params


SPACE = {"kind": CategoricalDistribution(["plain", "curved"]), "x": FloatDistribution(0.0, 1.0),
         "curve": FloatDistribution(0.0, 1.0)}


def trial_of(number: int, state: TrialState, x: float, values: dict[int, float] | None = None) -> FrozenTrial:
    """Every second trial is a curved one."""
    wers, params = values or {}, {"kind": "plain", "x": x} | ({"kind": "curved", "curve": 1 - x} if number % 2 else {})
    trial = create_trial(state=state, value=min(wers.values()) if state == TrialState.COMPLETE else None, params=params,
                         distributions={name: SPACE[name] for name in params}, intermediate_values=wers)
    trial.number = number
    return trial


def trials_of(count: int) -> list[FrozenTrial]:
    """Trained to the end, stopped at one of two rungs, or refused; the lower x, the better."""
    chance, trials = Random(0), []
    for number in range(count):
        x, epochs = chance.random(), chance.choice([0, 1, 1, 3, 9])
        values = {epoch: x + 1 / epoch for epoch in range(1, epochs + 1)}
        trials.append(trial_of(number, TrialState.COMPLETE if epochs == 9 else TrialState.PRUNED, x, values))
    return trials


def next_draws(draws: Draws, count: int = 5) -> list[dict[str, Any]]:
    return [draws.draw(sample)[1] for _ in range(count)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("count", [5, BEST + LATEST, NUM_MANY])
def test_trials_that_decide_are_the_latest_and_those_that_tpe_takes_for_the_best(count: int) -> None:
    trials = trials_of(count)
    Random(1).shuffle(trials)  # they do not end in the order of their numbers
    kept = deciding(trials)
    best, _ = _split_trials(optuna.create_study(), trials, BEST)
    numbers = [trial.number for trial in kept]
    assert set(numbers) == {trial.number for trial in (*best, *trials[-LATEST:])}
    assert numbers == [trial.number for trial in trials if trial.number in set(numbers)]
    assert [trial.number for trial in deciding(kept)] == numbers


def seeing(trials: list[FrozenTrial]) -> Draws:
    draws = Draws([], seed=3)
    for trial in trials:
        draws.observe(trial)
    return draws


def test_seeing_trials_begin_and_end_is_to_have_known_them() -> None:
    trials = trials_of(NUM_MANY)
    begun_and_ended = [trial for ended in trials
                       for trial in (trial_of(ended.number, TrialState.RUNNING, ended.params["x"]), ended)]
    kept = [*deciding(trials[:DROPPED_AT]), *trials[DROPPED_AT:]]
    assert next_draws(seeing(begun_and_ended)) == next_draws(seeing(kept))


def test_failed_trial_leaves_no_trace() -> None:
    draws = Draws(trials_of(40), seed=3)
    draws.observe(trial_of(40, TrialState.RUNNING, 0.1))
    draws.observe(trial_of(40, TrialState.FAIL, 0.1))
    assert next_draws(draws) == next_draws(Draws(trials_of(40), seed=3))


def crowd(first: int, state: TrialState = TrialState.RUNNING) -> list[FrozenTrial]:
    """Twenty trials where it is best."""
    return [trial_of(first + i, state, 0.002 * i) for i in range(20)]


def share_drawn_there(draws: Draws) -> float:
    return sum(drawn["x"] < 0.04 for drawn in next_draws(draws, 60)) / 60


def test_open_trials_are_not_drawn_again() -> None:
    """Neither those that it has seen begin nor those that were open before a kill."""
    trials = trials_of(60)
    alone, seen, known = (share_drawn_there(draws) for draws in (
        seeing(trials), seeing(trials + crowd(first=60)), Draws(trials + crowd(first=60), seed=3)))
    assert seen == known < 0.5 * alone


def test_trials_that_outlive_the_dropping_of_older_ones_are_still_open() -> None:
    trials, running = trials_of(NUM_MANY), crowd(first=NUM_MANY)
    kept = [*deciding(trials[:DROPPED_AT]), *running, *trials[DROPPED_AT:]]
    drawn, alone = next_draws(seeing(running + trials), 30), next_draws(seeing(trials), 30)
    assert drawn == next_draws(seeing(kept), 30) != alone
    assert next_draws(seeing([*running, *trials, *crowd(NUM_MANY, TrialState.FAIL)]), 30) == alone


def test_what_is_drawn_is_not_open_until_it_is_seen() -> None:
    """A recipe that is drawn and lost, as in a kill, is not counted as a trial."""
    trial, drawn = Draws(trials_of(40), seed=3).draw(sample)
    assert drawn == trial.params and set(trial.distributions) == set(drawn)
    lost = Draws(trials_of(40), seed=3)
    first, second = next_draws(lost, 2)
    assert first == drawn != second
