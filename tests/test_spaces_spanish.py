"""What the spaces draw: valid recipes only, all choices of the mission, and the hand recipes first."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from optuna.trial import FixedTrial, Trial

from spaces import spanish, synthetic
from spaces.recipe import Recipe

pytestmark = pytest.mark.timeout(60)

NUM_DRAWS = 300
PIECES = ("bpe", "unigram")

optuna.logging.set_verbosity(optuna.logging.WARNING)

each_space = pytest.mark.parametrize("space", [spanish, synthetic], ids=["spanish", "synthetic"])
each_source = pytest.mark.parametrize("has_source", [True, False], ids=["source", "scratch"])
each_length = pytest.mark.parametrize("max_epochs", [1, 2, 30])


def draws(space: ModuleType, has_source: bool = True, max_epochs: int = 30) -> Iterator[tuple[Trial, Recipe]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    for _ in range(NUM_DRAWS):
        trial = study.ask()
        yield trial, space.sample(trial, max_epochs=max_epochs, has_source=has_source)


@each_space
@each_source
@each_length
def test_every_draw_is_a_recipe_that_survives_its_flat_parameters(space: ModuleType, has_source: bool,
                                                                  max_epochs: int) -> None:
    for _, recipe in draws(space, has_source, max_epochs):
        assert Recipe.from_flat(recipe.flat()) == recipe
        assert recipe.training.epochs == max_epochs
        assert recipe.transfer.use_source is has_source
        assert (recipe.network == "source") is has_source


@each_space
def test_every_draw_survives_yaml(space: ModuleType, tmp_path: Path) -> None:
    for _, recipe in draws(space):
        recipe.save(tmp_path / "recipe.yaml")
        assert Recipe.load(tmp_path / "recipe.yaml") == recipe


@each_space
@each_source
def test_same_seed_draws_the_same_and_draws_differ(space: ModuleType, has_source: bool) -> None:
    first = [recipe.flat() for _, recipe in draws(space, has_source)]
    assert first == [recipe.flat() for _, recipe in draws(space, has_source)]
    assert len({tuple(flat.items()) for flat in first}) == NUM_DRAWS


@each_space
def test_pieces_have_no_english_letters_to_start_from(space: ModuleType) -> None:
    found = list(draws(space))
    for trial, recipe in found:
        are_pieces = recipe.vocabulary.kind in PIECES
        assert ("transfer.decoder" in trial.params) is not are_pieces
        if are_pieces:
            assert recipe.transfer.decoder == "fresh" and recipe.vocabulary.size > 0
    assert {recipe.transfer.decoder for _, recipe in found if recipe.vocabulary.kind not in PIECES} == {
        "letters", "fresh"}


@each_space
def test_without_a_source_nothing_of_the_transfer_is_drawn(space: ModuleType) -> None:
    for trial, recipe in draws(space, has_source=False):
        assert not [name for name in trial.params if name.startswith("transfer")]
        assert (recipe.transfer.decoder, recipe.transfer.batchnorm, recipe.transfer.frozen_epochs) == (
            "fresh", "adapt", 0)


def test_parameters_of_a_schedule_are_drawn_only_where_they_act() -> None:
    acting = {"cosine": {"floor_ratio"}, "polynomial": {"floor_ratio", "power"}, "noam": {"floor_ratio"},
              "warmup_hold_decay": {"floor_ratio", "power", "hold_share"}, "none": set()}
    seen = set()
    for trial, recipe in draws(spanish):
        drawn = {name.removeprefix("schedule.") for name in trial.params if name.startswith("schedule.")}
        assert drawn == acting[recipe.schedule.name] | {"warmup_share"}
        seen.add(recipe.schedule.name)
    assert seen == set(acting)


def test_each_optimizer_draws_its_own_coefficients_in_its_own_ranges() -> None:
    tables = {"lr": spanish.LR_RANGES, "beta1": spanish.BETA1_RANGES, "beta2": spanish.BETA2_RANGES,
              "weight_decay": spanish.DECAY_RANGES}
    for trial, recipe in draws(spanish):
        name = recipe.optimizer.name
        for coefficient, ranges in tables.items():
            low, high = ranges[name]  # type: ignore[index]
            assert low <= getattr(recipe.optimizer, coefficient) <= high
        others = [f"{other}." for other in spanish.LR_RANGES if other != name]
        assert not [parameter for parameter in trial.params if parameter.startswith(tuple(others))]


def test_strength_of_specaugment_is_drawn_only_with_a_kind() -> None:
    for trial, recipe in draws(spanish):
        assert ("spec_augment.strength" in trial.params) is (recipe.training.spec_augment != "none")


def test_freezing_never_lasts_the_whole_training() -> None:
    for max_epochs in (1, 2, 3, 30):
        frozen = [recipe.transfer.frozen_epochs for _, recipe in draws(spanish, max_epochs=max_epochs)]
        assert max(frozen) == min(4, max_epochs - 1)


def test_mission_space_draws_every_choice_that_the_mission_names() -> None:
    recipes = [recipe for _, recipe in draws(spanish)]
    assert {r.optimizer.name for r in recipes} == {"novograd", "adamw", "lion", "lamb"}
    assert {r.schedule.name for r in recipes} == {"cosine", "polynomial", "noam", "warmup_hold_decay", "none"}
    assert {r.vocabulary.kind for r in recipes} == {"characters", "characters_folded", "bpe", "unigram"}
    assert len({r.vocabulary.size for r in recipes if r.vocabulary.kind == "bpe"}) > 2
    assert {r.transfer.decoder for r in recipes} == {"fresh", "letters"}
    assert {r.transfer.batchnorm for r in recipes} == {"adapt", "keep"}
    assert {r.transfer.frozen_epochs for r in recipes} == {0, 1, 2, 3, 4}
    assert {r.training.spec_augment for r in recipes} == {"none", "cutout", "time_frequency"}
    assert {r.training.speed_perturbation for r in recipes} == {False, True}
    for spread in ([r.optimizer.weight_decay for r in recipes], [r.transfer.encoder_lr_ratio for r in recipes],
                   [r.schedule.warmup_share for r in recipes], [r.training.audio_s_per_step for r in recipes],
                   [r.training.dropout for r in recipes]):
        assert max(spread) > 3 * min(spread)


@each_space
def test_vocabularies_are_exactly_those_that_can_be_drawn(space: ModuleType) -> None:
    drawn = {recipe.vocabulary for _, recipe in draws(space)}
    assert drawn == set(space.vocabularies())
    assert len(space.vocabularies()) == len(drawn), "a vocabulary is listed twice"


@each_space
@each_source
@each_length
def test_hand_recipes_lie_in_the_space_and_use_all_they_say(space: ModuleType, has_source: bool,
                                                            max_epochs: int) -> None:
    baseline = space.baseline(max_epochs=max_epochs, has_source=has_source)
    assert baseline
    for name, parameters in baseline.items():
        trial = FixedTrial(parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a fixed value out of its range
            recipe = space.sample(trial, max_epochs=max_epochs, has_source=has_source)
        assert Recipe.from_flat(recipe.flat()) == recipe
        assert set(trial.params) == set(parameters), f"{name} says what the space does not ask"
    recipes = [tuple(parameters.items()) for parameters in baseline.values()]
    assert len(set(recipes)) == len(recipes)


def test_published_hand_recipes_are_as_published() -> None:
    def recipe(name: str) -> Recipe:
        parameters = spanish.baseline(max_epochs=30, has_source=True)[name]
        return spanish.sample(FixedTrial(parameters), max_epochs=30, has_source=True)

    tutorial, letters, frozen = recipe("nemo_tutorial"), recipe("letters_kept"), recipe("frozen_first")
    for published in (tutorial, letters, frozen):
        optimizer = published.optimizer
        assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (
            "novograd", 0.8, 0.5, 1e-3)
        assert published.schedule.name == "cosine" and published.vocabulary.kind == "characters"
        assert not published.training.speed_perturbation
    assert tutorial.optimizer.lr == 1e-2 and tutorial.transfer.decoder == "fresh"
    assert math.isclose(tutorial.optimizer.lr * tutorial.schedule.floor_ratio, 1e-5), "NeMo's min_lr"
    assert letters.optimizer.lr == 2e-3 and letters.transfer.decoder == "letters"
    assert frozen.transfer.frozen_epochs == 4 and frozen.transfer.decoder == "fresh"
    assert recipe("statistics_kept").transfer.batchnorm == "keep"


@each_space
def test_tpe_learns_in_the_space_with_four_trials_at_a_time(space: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=3)
    study = optuna.create_study(sampler=sampler)
    for parameters in space.baseline(max_epochs=8, has_source=True).values():
        study.enqueue_trial(parameters)
    chosen = []
    for _ in range(10):
        trials = [study.ask() for _ in range(4)]
        for trial in trials:
            recipe = space.sample(trial, max_epochs=8, has_source=True)
            chosen.append(recipe.vocabulary.kind)
            # A world in which pieces always lose.
            study.tell(trial, (recipe.vocabulary.kind in PIECES) + abs(math.log(recipe.optimizer.lr / 1e-3)) / 10)
    assert len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) == 40
    assert sum(kind in PIECES for kind in chosen[20:]) < sum(kind not in PIECES for kind in chosen[20:])
