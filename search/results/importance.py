"""The share of each choice in the variance of what trials are ranked by, from Optuna's fANOVA, with its uncertainty."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.records.measured import ChoiceShare, Importance
from search.tuning.tpe import GIVE_VALUES
from search.wording import counted
from spaces.recipe import Recipe

Columns = dict[str, NDArray[np.float64]]
"""The number of a trial's option, for each field of a recipe that varies; NaN where the recipe does not use it."""

CHOICES = ("optimizer", "schedule", "vocabulary", "transfer", "training")
"""The sections of a recipe; a choice's share is the sum over its fields."""

MIN_TRIALS = 80
"""Fewest trials for meaningful shares: in simulated studies of 40 no choice stood out from chance, of 80 most did."""

MAX_TRIALS = 200
"""Trials in one resample, which bounds the time: 4 s on one core for 200 trials, 5 s for 2,000."""

NUM_RESAMPLES = 30
"""Resamples of the trials, each with its own shuffle and forest."""

NUM_PARTS = 5
"""Equal parts that a field's range is divided into; if it has fewer values, each is an option."""

LOGARITHMIC = {"optimizer.lr", "optimizer.weight_decay", "schedule.floor_ratio", "transfer.encoder_lr_ratio",
               "transfer.source_l2", "training.audio_s_per_step"}
"""Fields on a logarithmic scale."""

IS_USED: dict[str, Callable[[Recipe], bool]] = {
    "schedule.floor_ratio": lambda recipe: recipe.schedule.name != "none",
    "schedule.power": lambda recipe: recipe.schedule.name in ("polynomial", "warmup_hold_decay"),
    "schedule.hold_share": lambda recipe: recipe.schedule.name == "warmup_hold_decay",
    "vocabulary.size": lambda recipe: recipe.vocabulary.size > 0,
    "transfer.decoder": lambda recipe: recipe.vocabulary.size == 0,
    "transfer.frozen_part": lambda recipe: recipe.transfer.frozen_epochs > 0,
    "training.spec_augment_strength": lambda recipe: recipe.training.spec_augment != "none",
}
"""Fields that mean something only under another choice: elsewhere their value would repeat that choice."""


def importance(trials: Sequence[FrozenTrial], seed: int) -> Importance:
    """Each choice's share of what the choices explain individually: means and 90 % intervals.

    Trials are compared at the last epoch that half of them, and at least `MIN_TRIALS`, have reached; later epochs lack
    the bad recipes. A choice gets the sum of fANOVA's main effects of its fields, minus that of copies of these fields
    shuffled among the trials (`floor`), which is what chance gives. `explained` is the sum of all choices as a share of
    the total variance; the rest is interactions and noise. If nothing can be said, `why_none` says why.

    Sources: Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, 2014
    (fANOVA); Kursa and Rudnicki, Feature selection with the Boruta package, 2010 (shuffled copies).
    """
    ended = [trial for trial in trials if trial.state not in (TrialState.WAITING, TrialState.RUNNING)]
    usable = [trial for trial in ended if trial.state in GIVE_VALUES and trial.intermediate_values]
    reached = Counter(epoch for trial in usable for epoch in trial.intermediate_values)
    enough = max(min(MIN_TRIALS, max(reached.values(), default=0)), len(usable) / 2)
    epoch = max((epoch for epoch, count in reached.items() if count >= enough), default=0)
    compared = [trial for trial in usable if epoch in trial.intermediate_values]
    figures = Importance(epoch=epoch, trials=len(compared), stopped_before=len(usable) - len(compared),
                         without_wer=len(ended) - len(usable))
    if len(compared) < MIN_TRIALS:
        return replace(figures, why_none=f"{counted(len(compared), 'trial')} can be compared; it takes {MIN_TRIALS}")
    # Above 1 are recognisers that say nothing: how far above does not matter.
    ranks = np.array([min(trial.intermediate_values[epoch], 1.0) for trial in compared])
    columns = columns_of([Recipe.from_dict(trial.user_attrs["recipe"]) for trial in compared])
    effects, floors = _resampled(columns, ranks, np.random.default_rng(seed))
    excess = effects - floors
    explained = excess.sum(axis=1)
    if np.quantile(explained, 0.05) <= 0:
        return replace(figures, why_none=f"over {len(compared)} trials no choice stands out from chance")
    positive = np.maximum(excess, 0)
    shares = positive / np.maximum(positive.sum(axis=1, keepdims=True), 1e-9)  # a resample may hold nothing but chance
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    floor = floors.mean(axis=0) / positive.sum(axis=1).mean()
    return replace(figures, explained=float(explained.mean()), shares={
        choice: ChoiceShare(share=float(shares[:, i].mean()), low=float(low[i]), high=float(high[i]),
                            floor=float(floor[i])) for i, choice in enumerate(CHOICES)})


def importance_line(figures: Importance) -> str:
    """What mattered, in words."""
    if figures.why_none:
        return f"what mattered is unknown: {figures.why_none}"
    ranked = sorted(figures.shares.items(), key=lambda item: -item[1].share)
    parts = [f"{name} {share.share:.0%} ({share.low:.0%} to {share.high:.0%})" for name, share in ranked]
    floor = max(share.floor for share in figures.shares.values())
    return (f"what mattered: {', '.join(parts)} of what the choices explain one by one, {figures.explained:.0%} of "
            f"the spread in what trials are ranked by; 90 % intervals, by {figures.method} at epoch "
            f"{figures.epoch} over {figures.trials} trials; chance alone, at most {floor:.0%} per choice, is "
            "subtracted")


def columns_of(recipes: Sequence[Recipe]) -> Columns:
    """The fields that vary, as numbers of their options or of the parts of their range.

    An optimizer's coefficient has the range spanned by that optimizer's trials.
    """
    flats = [recipe.flat() for recipe in recipes]
    optimizers = np.array([recipe.optimizer.name for recipe in recipes])
    columns: Columns = {}
    for name in flats[0]:
        is_used = np.array([IS_USED.get(name, _always)(recipe) for recipe in recipes])
        values = [flat[name] for flat in flats]
        options = sorted({value for value, used in zip(values, is_used, strict=True) if used})
        if name.partition(".")[0] not in CHOICES or len(options) < 2:
            continue
        if len(options) <= NUM_PARTS or isinstance(options[0], str):
            columns[name] = np.array([options.index(value) if used else np.nan
                                      for value, used in zip(values, is_used, strict=True)], dtype=np.float64)
            continue
        numbers = np.where(is_used, np.array(values, dtype=np.float64), np.nan)
        if name in LOGARITHMIC:  # a decay of 0 is next to the least of the others
            numbers = np.log(np.maximum(numbers, np.min(numbers[numbers > 0])))
        ranges = optimizers if name.startswith("optimizer.") else np.zeros(len(recipes))
        columns[name] = np.empty(len(recipes))
        for key in np.unique(ranges):
            columns[name][ranges == key] = _parts(numbers[ranges == key])
    return columns


def _always(recipe: Recipe) -> bool:
    return True


def _parts(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The index, from 0, of the part of the range that each number is in."""
    least, greatest = np.nanmin(numbers), np.nanmax(numbers)
    width = (greatest - least) / NUM_PARTS or 1.0
    return np.minimum(np.floor((numbers - least) / width), NUM_PARTS - 1)


def _resampled(columns: Columns, wers: NDArray[np.float64],
               random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Effects of the choices and of their shuffled copies, (resamples, choices), as shares of the total variance."""
    effects, floors = np.zeros((2, NUM_RESAMPLES, len(CHOICES)))
    for resample in range(NUM_RESAMPLES):
        filled = {name: np.where(np.isnan(column), random.choice(column[~np.isnan(column)], len(column)), column)
                  for name, column in columns.items()}
        # Shuffled before it is resampled: a trial that is drawn twice is learned twice, with its copy too.
        order, drawn = random.permutation(len(wers)), random.integers(len(wers), size=min(len(wers), MAX_TRIALS))
        copies = {f"shuffled.{name}": column[order] for name, column in filled.items()}
        found = _main_effects({name: column[drawn] for name, column in (filled | copies).items()}, wers[drawn],
                              seed=int(random.integers(2**31)))
        for name, effect in found.items():
            is_copy, field = name.startswith("shuffled."), name.removeprefix("shuffled.")
            (floors if is_copy else effects)[resample, CHOICES.index(field.partition(".")[0])] += effect
    return effects, floors


def _main_effects(columns: Columns, wers: NDArray[np.float64], seed: int) -> dict[str, float]:
    """fANOVA's share of each column in the total variance.

    Options are passed as numbers, not categories: Optuna would give each category a column, and count recipes with none
    or several of them. They are ordered by mean word error rate, so that one split of a tree can separate better from
    worse, even at both ends of a range (Breiman et al., Classification and regression trees, 1984). The shuffled copies
    get the same advantage.
    """
    columns = {name: _by_wer(column, wers) for name, column in columns.items()}
    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(-0.5, column.max() + 0.5) for name, column in columns.items()}
    study = optuna.create_study()
    study.add_trials([create_trial(params={name: float(column[i]) for name, column in columns.items()},
                                   distributions=distributions, value=float(wer)) for i, wer in enumerate(wers)])
    evaluator = FanovaImportanceEvaluator(n_trees=8, max_depth=6, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return get_param_importances(study, evaluator=evaluator, normalize=False)
        except RuntimeError:  # all the trials drawn have the same word error rate
            return {}


def _by_wer(column: NDArray[np.float64], wers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same options, numbered from the one with the lowest mean word error rate."""
    options, option = np.unique(column, return_inverse=True)
    means = np.bincount(option, wers) / np.bincount(option)
    return np.argsort(np.argsort(means)).astype(np.float64)[option]
