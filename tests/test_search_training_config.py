"""The configuration of a production training: what its recipe remembers, what flags override, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.config import ConfigError
from search.training_config import TrainingConfig, load_training
from spaces.recipe import Recipe, RecipeError, TrainingRecipe, TransferRecipe

RECIPE = Recipe(training=TrainingRecipe(epochs=4, audio_s_per_step=30),
                study={"corpus": ["/data/es.tar.gz"], "language": "it", "source": "/data/en.nemo", "seed": 7})


def test_recipe_remembers_its_study_and_flags_override_it() -> None:
    study = TrainingConfig(epochs=9).study(TrainingConfig(epochs=9).recipe(RECIPE))
    assert (study.corpus, study.language, study.source) == (("/data/es.tar.gz",), "it", "/data/en.nemo")
    assert (study.seed, study.max_epochs, study.trials, study.concurrency) == (7, 9, 1, 1)
    by_cer = replace(RECIPE, study=RECIPE.study | {"objective": "cer"})
    chosen = [config.study(recipe).resolved().objective for config, recipe in (
        (TrainingConfig(), RECIPE), (TrainingConfig(), by_cer), (TrainingConfig(objective="wer"), by_cer))]
    assert chosen == ["wer", "cer", "wer"]
    given = TrainingConfig(corpus=("a", "b"), language="en", source="none", seed=0, workers=3, timeout="5m")
    other = given.study(RECIPE)
    assert (other.corpus, other.language, other.source, other.seed) == (("a", "b"), "en", "none", 0)
    assert (other.workers_per_trial, other.trial_timeout_s, other.max_epochs) == (3, 300, 4)


def test_overlap_that_the_study_allowed_is_allowed_on_its_own_corpus_alone() -> None:
    recipe = replace(RECIPE, study=RECIPE.study | {"allow_overlap": True})
    assert TrainingConfig().study(recipe).allow_overlap and not TrainingConfig().study(RECIPE).allow_overlap
    assert not TrainingConfig(corpus=("other.jsonl",)).study(recipe).allow_overlap


def test_recipe_remembers_its_splits_and_any_flag_of_a_corpus_takes_the_place_of_all() -> None:
    known = {"train": ["/data/a.jsonl"], "dev": ["/data/b.jsonl"], "test": ["/data/c.jsonl"], "source": "none"}
    study = TrainingConfig().study(replace(RECIPE, study=known))
    assert study.corpora == ("/data/a.jsonl", "/data/b.jsonl", "/data/c.jsonl")
    assert study.given_splits == ("train", "dev", "test")
    other = TrainingConfig(train=("x",), dev=("y",)).study(replace(RECIPE, study=known))
    assert (other.corpora, other.given_splits) == (("x", "y"), ("train", "dev"))
    assert TrainingConfig(train=("x",), dev=("y",)).study(RECIPE).corpus == ()


def test_corpus_that_was_written_into_a_recipe_by_hand_may_be_a_single_path() -> None:
    assert TrainingConfig().study(replace(RECIPE, study={"corpus": "es.tar.gz", "source": "none"})).corpus == (
        "es.tar.gz",)


def test_recipe_of_no_study_needs_a_corpus() -> None:
    with pytest.raises(ConfigError, match="--corpus"):
        TrainingConfig().study(replace(RECIPE, study={}))


def test_recipe_of_the_embedded_default_is_trained_on_it_again() -> None:
    study = TrainingConfig().study(replace(RECIPE, study={"corpus": [], "language": "es", "source": None, "seed": 3}))
    assert (study.corpora, study.source, study.seed, study.resolved().space) == ((), None, 3, "synthetic")


def test_epochs_that_would_all_be_frozen_are_refused() -> None:
    recipe = replace(RECIPE, transfer=TransferRecipe(frozen_epochs=3))
    with pytest.raises(RecipeError, match="frozen_epochs"):
        TrainingConfig(epochs=3).recipe(recipe)


def test_folder_without_a_training_or_with_one_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training.yaml is missing"):
        load_training(tmp_path)
    (tmp_path / "training.yaml").write_text("version: 99\n")
    with pytest.raises(ConfigError, match="version 99"):
        load_training(tmp_path)


@pytest.mark.parametrize("values", [{"timeout": "soon"}, {"workers": 0}, {"cpus_per_worker": 0}, {"seed": -1},
                                    {"max_duration_s": 0.1}, {"gpus_per_worker": 1.5}, {"epochs": 0}])
def test_training_is_refused_by_the_names_of_its_own_fields(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="^(min_duration_s|" + "|".join(values) + ") is "):
        TrainingConfig(**values)
