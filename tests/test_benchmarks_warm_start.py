"""The simulated languages of the warm start's benchmark: where their best recipe lies, and what a study of them is."""

import math

import optuna
import pytest
import warm_start
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

pytestmark = pytest.mark.timeout(60)


def drawn(count: int) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        warm_start.sample(trial)
    return [trial.params for trial in trials]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_recipe_is_better_than_the_best_and_one_is_as_good(seed: int) -> None:
    spoken, best = warm_start.language(seed), math.inf
    for parameters in drawn(60):
        for name in parameters:
            if name in spoken.cost and name not in ("optimizer", "audio_s_per_step"):
                parameters[name] = min(spoken.cost[name], key=spoken.cost[name].get)
            elif name in spoken.best and not name.endswith(".lr"):
                distribution = warm_start.SPACE[name]
                low, share = distribution.low, spoken.best[name]
                parameters[name] = (low * (distribution.high / low) ** share if distribution.log
                                    else low + (distribution.high - low) * share)
        best = min(best, spoken.loss(parameters))
    assert spoken.least_loss() <= best < spoken.least_loss() + 0.01


def test_shifted_language_and_cousin_have_their_best_near_and_the_opposite_one_far() -> None:
    spoken = warm_start.language(3)
    others = [other(spoken, 4) for other in (warm_start.shifted, warm_start.cousin, warm_start.opposite)]
    losses = sorted([spoken.loss(parameters), *(other.loss(parameters) for other in others)]
                    for parameters in drawn(200))
    shifted, cousin, opposite = (sum(loss[i] for loss in losses[-50:]) - sum(loss[i] for loss in losses[:50])
                                 for i in (1, 2, 3))
    assert shifted > 0 and cousin > 0 and opposite < 0


def test_study_begins_with_what_waits_and_ends_when_it_is_close() -> None:
    spoken = warm_start.language(0)
    first = drawn(2)
    trials = warm_start.run(spoken, seed=0, num_trials=12, first=first, until_close=False)
    assert [trial.params for trial in trials[4:6]] == first and len(trials) == 12
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    gap = warm_start.gap(spoken, trials)
    assert gap > warm_start.CLOSE and len(warm_start.run(spoken, seed=0, num_trials=12, first=first)) == 12
