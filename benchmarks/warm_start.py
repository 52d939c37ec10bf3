"""What a warm start saves, simulated: trials until the best recipe found is within 2 % of the optimum.

    python benchmarks/warm_start.py --seeds 40    # a quarter of an hour on one core

Nothing is trained: the word error rate is a function of the parameters of `spaces/spanish.py` with an optimum drawn
for each seed, a curve over epochs and noise. A first study of 100 trials searches another such function; the study
that counts starts cold or with the first one's best recipes. Recipes are drawn by `search.tuning.tpe` and stopped by
`search.tuning.asha.ResumableASHA`, one at a time; the hand recipes come first.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search.records.job import Job
from search.tuning.asha import ResumableASHA
from search.tuning.tpe import Draws, goodness
from search.tuning.warm_start import PastRun, PastTrial, parameters_of, to_try_again
from spaces import spanish
from spaces.recipe import Recipe

EPOCHS = 9

BEST_WER = 0.3

CLOSE = 0.02
"""Of the best word error rate there is, without noise; what the study takes for its best has to be as close."""

EARLY = 20
"""Trials of a small study, after which a look is taken."""

PAST_TRIALS = 100
"""Of the other study: what `search/run.py` asks for."""

CURVE_NOISE, EPOCH_NOISE = 0.006, 0.004
"""Relative standard deviations: of a whole trial, as by its seed, and of each look at dev."""

sample = partial(spanish.sample, max_epochs=EPOCHS, has_source=True)

HAND_RECIPES = list(spanish.baseline(max_epochs=EPOCHS, has_source=True).values())


@dataclass(frozen=True, kw_only=True)
class Language:
    """Where the best recipe lies: places in [0, 1] of each range, and what each category costs."""

    best: dict[str, float]
    weight: dict[str, float]
    cost: dict[str, dict[Any, float]]

    def loss(self, parameters: dict[str, Any]) -> float:
        """The share by which the word error rate lies above `BEST_WER`; larger steps want higher learning rates."""
        shift = 0.15 * math.log(parameters["audio_s_per_step"] / 120, 4)
        total = 0.0
        for name, value in parameters.items():
            if name in self.cost:
                total += self.cost[name][value]
            else:
                away = place(name, value) - self.best[name] - (shift if name.endswith(".lr") else 0.0)
                total += self.weight[name] * away**2
        return total

    def least_loss(self) -> float:
        """The loss of the best recipe: all is at its best, but for a learning rate that its range may not reach."""
        def least(name: str, seconds: int) -> float:
            wanted = self.best[f"{name}.lr"] + 0.15 * math.log(seconds / 120, 4)
            return self.weight[f"{name}.lr"] * (wanted - min(1.0, max(0.0, wanted))) ** 2

        return min(of_optimizer + of_step + least(name, seconds)
                   for name, of_optimizer in self.cost["optimizer"].items()
                   for seconds, of_step in self.cost["audio_s_per_step"].items())


def place(name: str, value: float) -> float:
    """Where a value lies in its range."""
    distribution = SPACE[name]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    return math.log(value / low, high / low) if distribution.log else (value - low) / (high - low)


optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = parameters_of(sample)


def language(seed: int) -> Language:
    """A language of its own: the learning rate, the optimizer and the vocabulary decide most."""
    chance = Random(seed)
    best, weight, cost = {}, {}, {}
    for name, distribution in sorted(SPACE.items()):
        if isinstance(distribution, CategoricalDistribution):
            most = 0.06 if name in ("optimizer", "vocabulary") else 0.015
            cost[name] = {choice: chance.uniform(0.0025, most) for choice in distribution.choices}
            cost[name][chance.choice(distribution.choices)] = 0.0
        else:
            best[name] = chance.uniform(0.1, 0.9)
            weight[name] = 0.15 if name.endswith(".lr") else chance.choice([0.0015, 0.005, 0.015])
    return Language(best=best, weight=weight, cost=cost)


def shifted(of: Language, seed: int) -> Language:
    """A language where the best places lie a tenth of the range away, and categories cost up to a half more or less."""
    chance = Random(seed)
    best = _moved(of, chance)
    cost = {name: {choice: value * chance.uniform(0.5, 1.5) for choice, value in costs.items()}
            for name, costs in of.cost.items()}
    return replace(of, best=best, cost=cost)


def cousin(of: Language, seed: int) -> Language:
    """A language where the best places lie a tenth of the range away, and the lesser categories are nearly new."""
    chance = Random(seed)
    best, cost = _moved(of, chance), {}
    for name, costs in of.cost.items():
        other = {choice: max(0.0, value + chance.gauss(0.0, 0.0125)) for choice, value in costs.items()}
        cost[name] = {choice: value - min(other.values()) for choice, value in other.items()}
    return replace(of, best=best, cost=cost)


def _moved(of: Language, chance: Random) -> dict[str, float]:
    return {name: min(1.0, max(0.0, place + chance.gauss(0.0, 0.1))) for name, place in of.best.items()}


def opposite(of: Language, seed: int) -> Language:
    """A language where what is best here is worst."""
    cost = {name: {choice: max(costs.values()) - value for choice, value in costs.items()}
            for name, costs in of.cost.items()}
    return replace(of, best={name: 1 - place for name, place in of.best.items()}, cost=cost)


# --- a study --------------------------------------------------------------------------------------------------------


def run(spoken: Language, seed: int, num_trials: int, first: Sequence[dict[str, Any]] = (),
        until_close: bool = True) -> list[FrozenTrial]:
    """The trials of a study; with `until_close` none after the best complete one is close to the best there is."""
    chance, draws, best_seen = Random(seed), Draws([], seed), math.inf
    asha = ResumableASHA(metric="wer", max_epochs=EPOCHS, grace_epochs=1, reduction_factor=3)
    waiting = [*HAND_RECIPES, *first]
    trials: list[FrozenTrial] = []
    limit = (1 + CLOSE) * (1 + spoken.least_loss())
    while len(trials) < num_trials:
        drawn = taken(waiting.pop(0)) if waiting else draws.draw(sample)[0]
        trials.append(train(spoken, drawn, len(trials), asha, chance))
        draws.observe(trials[-1])
        if trials[-1].state == TrialState.COMPLETE and float(trials[-1].value or 0.0) < best_seen:
            best_seen = float(trials[-1].value or 0.0)
            if until_close and 1 + spoken.loss(drawn.params) <= limit:
                break
    return trials


def taken(parameters: dict[str, Any]) -> FixedTrial:
    """A trial of a recipe that waits in line."""
    trial = FixedTrial(parameters)
    sample(trial)
    return trial


def train(spoken: Language, drawn: Any, number: int, asha: ResumableASHA, chance: Random) -> FrozenTrial:
    """A trial to its end or to the rung where it is stopped."""
    named = SimpleNamespace(config=Job(id=str(number), recipe=Recipe(), seed=0).parameters(), trial_id=str(number))
    asha.on_trial_add(None, named)
    end = BEST_WER * (1 + spoken.loss(drawn.params)) * (1 + chance.gauss(0.0, CURVE_NOISE))
    wers: dict[int, float] = {}
    for epoch in range(1, EPOCHS + 1):
        wers[epoch] = end * (1 + 1.5 * (1 / epoch - 1 / EPOCHS)) * (1 + chance.gauss(0.0, EPOCH_NOISE))
        if asha.on_trial_result(None, named, {"wer": wers[epoch], "epoch": epoch}) == "STOP" and epoch < EPOCHS:
            break
    is_complete = len(wers) == EPOCHS
    trial = create_trial(state=TrialState.COMPLETE if is_complete else TrialState.PRUNED, params=drawn.params,
                         distributions=drawn.distributions, intermediate_values=wers,
                         value=min(wers.values()) if is_complete else None)
    trial.number = number
    return trial


def past(spoken: Language, seed: int) -> list[PastRun]:
    """A study of a language, as it would be read from its run's folder."""
    trials = sorted(run(spoken, seed, PAST_TRIALS, until_close=False), key=goodness)
    return [PastRun(folder="other", trials=tuple(
        PastTrial(number=trial.number, is_complete=trial.state == TrialState.COMPLETE, parameters=trial.params)
        for trial in trials))]


def gap(spoken: Language, trials: Sequence[FrozenTrial]) -> float:
    """How far above the best there is the best complete trial lies, without noise."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = min(complete, key=goodness)
    return (1 + spoken.loss(best.params)) / (1 + spoken.least_loss()) - 1


def measure(seed: int, num_trials: int, other: Callable[[Language, int], Language] | None) -> tuple[float, int]:
    """The gap after `EARLY` trials, and the trials until close, `num_trials` at most."""
    spoken = language(seed)
    runs = past(other(spoken, seed + 1000), seed + 2000) if other else []
    recipes, _ = to_try_again(runs, sample, HAND_RECIPES, num_trials)
    trials = run(spoken, seed, num_trials, list(recipes.values()))
    return gap(spoken, trials[:EARLY]), len(trials)


def main() -> None:
    """Print a row for each way to start."""
    parser = argparse.ArgumentParser(description="Simulate what a warm start saves.")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--trials", type=int, default=200, help="the most of a study, which counts where it needs more")
    given = parser.parse_args()
    print(f"| other study | above the best after {EARLY} trials | trials until within {CLOSE:.0%} |\n|---|---|---|")
    ways: list[tuple[str, Callable[[Language, int], Language] | None]] = [
        ("none", None), ("shifted", shifted), ("cousin", cousin), ("opposite", opposite)]
    for name, other in ways:
        measured = [measure(seed, given.trials, other) for seed in range(given.seeds)]
        gaps, counts = (statistics.quantiles(values, n=4) for values in zip(*measured, strict=True))
        print(f"| {name} | {gaps[1]:.1%} ({gaps[0]:.1%} to {gaps[2]:.1%}) | {counts[1]:.0f} ({counts[0]:.0f} to "
              f"{counts[2]:.0f}) |", flush=True)


if __name__ == "__main__":
    main()
