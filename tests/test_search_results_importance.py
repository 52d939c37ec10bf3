"""The share of each choice: known answers are found again, and chance is not taken for an answer."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.records.measured import ChoiceShare, Importance, plain, read
from search.results import importance as module
from search.results.importance import (
    CHOICES,
    MAX_TRIALS,
    MIN_TRIALS,
    NUM_PARTS,
    columns_of,
    importance,
    importance_line,
)
from spaces import spanish
from spaces.recipe import Recipe

pytestmark = pytest.mark.timeout(300)


def recipes(number: int, seed: int = 0) -> list[Recipe]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [spanish.sample(study.ask(), max_epochs=6, has_source=True) for _ in range(number)]


def trial(recipe: Recipe, wers: Sequence[float], state: TrialState = TrialState.PRUNED) -> FrozenTrial:
    return create_trial(state=state, value=min(wers) if state == TrialState.COMPLETE else None,
                        user_attrs={"recipe": asdict(recipe)}, intermediate_values=dict(enumerate(wers, start=1)))


def study_of(number: int, wer: Callable[[Recipe], float], noise: float, seed: int = 0) -> list[FrozenTrial]:
    """Trials of one epoch whose word error rate is a recipe's own and noise."""
    random = np.random.default_rng(seed)
    return [trial(recipe, [wer(recipe) + noise * random.standard_normal()]) for recipe in recipes(number, seed)]


def of_lr(recipe: Recipe) -> float:
    """0 at the best learning rate of each optimizer, and 0.24 at the far end of its range."""
    low, high = spanish.LR_RANGES[recipe.optimizer.name]
    return 0.4 * abs(math.log(recipe.optimizer.lr / low) / math.log(high / low) - 0.6)


def of_batchnorm(recipe: Recipe) -> float:
    return 0.12 * (recipe.transfer.batchnorm == "adapt")


def of_lr_and_batchnorm(recipe: Recipe) -> float:
    return 0.3 + of_lr(recipe) + of_batchnorm(recipe)


def test_shares_of_two_choices_are_found_and_the_others_are_near_zero() -> None:
    figures = importance(study_of(150, of_lr_and_batchnorm, noise=0.03), seed=0)
    many = recipes(2000, seed=9)
    lr, batchnorm = np.var([of_lr(r) for r in many]), np.var([of_batchnorm(r) for r in many])
    true = {"optimizer": lr / (lr + batchnorm), "transfer": batchnorm / (lr + batchnorm)}
    shares = figures.shares
    assert list(shares) == list(CHOICES) and figures.why_none is None
    for choice in CHOICES:
        share = shares[choice]
        assert share.low <= share.share <= share.high
        assert share.low - 0.03 <= true.get(choice, 0.0) <= share.high + 0.03, (choice, true, share)
        assert choice in true or share.high < 0.1, share
        assert 0 < share.floor < 0.1
    assert sum(share.share for share in shares.values()) == pytest.approx(1)
    assert 0.6 < figures.explained < 1
    assert read(Importance, json.loads(json.dumps(plain(figures), allow_nan=False))) == figures


def test_vocabulary_keeps_its_share_though_size_and_decoder_hang_on_its_kind() -> None:
    figures = importance(study_of(120, lambda r: 0.3 + 0.2 * (r.vocabulary.size > 0), noise=0.04), seed=0)
    assert figures.shares["vocabulary"].share > 0.9
    assert figures.shares["transfer"].high < 0.1


def test_noise_alone_gives_no_shares() -> None:
    figures = importance(study_of(120, lambda _: 0.5, noise=0.05), seed=0)
    assert figures.shares == {} and figures.explained is None
    assert importance_line(figures) == ("what mattered is unknown: over 120 trials no choice stands out from "
                                        "chance")


def test_equal_word_error_rates_give_no_shares() -> None:
    """A network that only inserts words is no worse than one that hears none."""
    figures = importance([trial(r, [1.0 + i / 100]) for i, r in enumerate(recipes(MIN_TRIALS))], seed=0)
    assert figures.why_none == f"over {MIN_TRIALS} trials no choice stands out from chance"


def test_too_few_trials_give_one_line_that_says_how_many_it_takes() -> None:
    few = study_of(MIN_TRIALS - 1, of_lr_and_batchnorm, noise=0.0)
    for trials, line in ((few, f"{MIN_TRIALS - 1} trials can be compared; it takes {MIN_TRIALS}"),
                         (few[:1], f"1 trial can be compared; it takes {MIN_TRIALS}"),
                         ([], f"0 trials can be compared; it takes {MIN_TRIALS}")):
        figures = importance(trials, seed=0)
        assert figures.shares == {} and figures.why_none == line
        assert importance_line(figures) == f"what mattered is unknown: {line}"


@pytest.mark.parametrize(("least", "epoch", "number"), [(2, 3, 4), (6, 2, 6), (7, 1, 8)])
def test_trials_are_compared_at_the_last_epoch_that_enough_of_them_reached(
        monkeypatch: pytest.MonkeyPatch, least: int, epoch: int, number: int) -> None:
    monkeypatch.setattr(module, "MIN_TRIALS", least)
    some = recipes(10)
    lengths = [1, 1, 2, 2, 3, 3, 3, 6]
    trials = [trial(recipe, [0.5] * length) for recipe, length in zip(some, lengths, strict=False)]
    infeasible = trial(some[8], [])
    failed = create_trial(state=TrialState.FAIL, user_attrs={"recipe": asdict(some[9])}, intermediate_values={1: 0.9})
    waiting = create_trial(state=TrialState.WAITING)
    figures = importance([*trials, infeasible, failed, waiting], seed=0)
    assert (figures.epoch, figures.trials) == (epoch, number)
    assert (figures.stopped_before, figures.without_wer) == (8 - number, 2)


def test_word_error_rates_of_the_compared_epoch_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def resampled(columns: object, wers: np.ndarray, random: object) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(wers)
        return np.ones((2, len(CHOICES))), np.zeros((2, len(CHOICES)))

    monkeypatch.setattr(module, "_resampled", resampled)
    importance([trial(recipe, [0.1, 0.6, 0.2][: 2 + i % 3 // 2]) for i, recipe in enumerate(recipes(MIN_TRIALS))], 0)
    assert seen == [0.6] * MIN_TRIALS


def test_large_studies_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def main_effects(columns: object, wers: np.ndarray, seed: int) -> dict[str, float]:
        seen.append(len(wers))
        return {"optimizer.lr": 0.5, "shuffled.optimizer.lr": 0.1}

    monkeypatch.setattr(module, "_main_effects", main_effects)
    figures = importance(study_of(MAX_TRIALS + 50, of_lr_and_batchnorm, noise=0.0), seed=0)
    assert seen == [MAX_TRIALS] * module.NUM_RESAMPLES and figures.trials == MAX_TRIALS + 50
    assert figures.explained == pytest.approx(0.4) and figures.shares["optimizer"].share == 1


def test_same_seed_gives_the_same_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_RESAMPLES", 3)
    trials = study_of(MIN_TRIALS, of_lr_and_batchnorm, noise=0.02)
    assert importance(trials, seed=3) == importance(trials, seed=3) != importance(trials, seed=4)


def test_columns_are_those_of_all_recipes_with_each_coefficient_in_its_optimizers_range() -> None:
    many = recipes(80)
    columns = columns_of(many)
    assert {name.partition(".")[0] for name in columns} == set(CHOICES)
    assert not {"training.epochs", "transfer.use_source", "training.gradient_clip", "network"} & columns.keys()
    assert all(len(column) == len(many) for column in columns.values())
    for name in spanish.LR_RANGES:
        of_it = sorted((recipe.optimizer.lr, i) for i, recipe in enumerate(many) if recipe.optimizer.name == name)
        parts = columns["optimizer.lr"][[i for _, i in of_it]]
        assert (parts[0], parts[-1]) == (0, NUM_PARTS - 1) and np.all(np.diff(parts) >= 0)
        middle = math.sqrt(of_it[0][0] * of_it[-1][0])
        assert all((part < 3) == (lr < middle) for (lr, _), part in zip(of_it, parts, strict=True) if part != 2)
    is_pieces = np.array([recipe.vocabulary.size > 0 for recipe in many])
    assert np.all(np.isnan(columns["vocabulary.size"]) == ~is_pieces)
    assert np.all(np.isnan(columns["transfer.decoder"]) == is_pieces)
    assert set(columns["vocabulary.size"][is_pieces]) == {0, 1, 2, 3, 4}


def test_valley_in_the_middle_of_a_range_is_found_beside_a_slope() -> None:
    """Both ends of a range are worse than its middle: no first split of a tree could tell."""

    def wer(recipe: Recipe) -> float:
        return 0.3 + 2.0 * abs(recipe.training.dropout - 0.1) + 0.06 * (recipe.vocabulary.kind in ("bpe", "unigram"))

    shares = importance(study_of(150, wer, noise=0.03), seed=0).shares
    assert shares["training"].low > 0.3 and shares["vocabulary"].low > 0.03


def test_card_line_names_the_choices_by_their_share() -> None:
    figures = Importance(epoch=3, trials=70, explained=0.62, shares={
        "schedule": ChoiceShare(share=0.1, low=0.0, high=0.21, floor=0.04),
        "optimizer": ChoiceShare(share=0.9, low=0.79, high=1.0, floor=0.11)})
    assert importance_line(figures) == (
        "what mattered: optimizer 90% (79% to 100%), schedule 10% (0% to 21%) of what the choices explain one by one, "
        "62% of the spread in what trials are ranked by; 90 % intervals, by fANOVA at epoch 3 over 70 trials; chance "
        "alone, at most 11% per choice, is subtracted")


def test_frozen_part_counts_only_where_something_is_frozen_and_no_l2_is_next_to_the_least() -> None:
    frozen = {"transfer.frozen_part": "encoder_but_batchnorm"}
    made = [Recipe.from_flat(frozen | {"transfer.frozen_epochs": epochs, "transfer.source_l2": strength})
            for epochs, strength in zip((0, 1, 2, 3, 4, 5, 6), (0.0, 0.01, 0.1, 0.3, 1.0, 10.0, 100.0), strict=True)]
    assert "transfer.frozen_part" not in columns_of(made), "one where it is used"
    made[2] = Recipe.from_flat({"transfer.frozen_epochs": 2})
    columns = columns_of(made)
    assert np.isnan(columns["transfer.frozen_part"]).tolist() == [True] + [False] * 6
    assert columns["transfer.source_l2"][0] == columns["transfer.source_l2"][1] == 0
