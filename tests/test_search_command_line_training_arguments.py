"""A command line of a training is read as it was meant, or refused in one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from search.command_line.training_arguments import parse_training
from search.training_config import TrainingConfig
from spaces.recipe import Recipe, RecipeError, TrainingRecipe

pytestmark = pytest.mark.timeout(60)

RECIPE = Recipe(training=TrainingRecipe(epochs=4, audio_s_per_step=30),
                study={"corpus": ["/data/es.tar.gz"], "language": "it", "source": "/data/en.nemo", "seed": 7})


def test_resumed_training_keeps_its_own_flags_and_takes_new_ones(tmp_path: Path) -> None:
    RECIPE.save(tmp_path / "recipe.yaml")
    TrainingConfig(patience=3, average_last=2, corpus=("x",)).save(tmp_path)
    recipe, config, resume, look_again = parse_training(["--resume", str(tmp_path), "--average-last", "4"])
    assert recipe == RECIPE and recipe.study == RECIPE.study and resume and not look_again
    assert (config.patience, config.average_last, config.corpus, config.out) == (3, 4, ("x",), str(tmp_path))


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "give a run's folder or a recipe.yaml"), (["r.yaml", "--resume", "d"], "give a run's folder or a recipe"),
    (["r.yaml", "s.yaml"], "'s.yaml' is one value too many: a training takes one recipe"),
    (["r.yaml", "--look-again"], "--resume"), (["r.yaml", "--epoch", "3"], "--epochs"),
    (["r.yaml", "--patience", "0"], "patience is 0"), (["r.yaml", "--timeout", "soon"], "90s, 45m or 8h")])
def test_wrong_usage_is_one_line(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    RECIPE.save("r.yaml")
    with pytest.raises(SystemExit) as stopped:
        parse_training(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1


def test_folder_of_a_run_is_its_best_recipe(tmp_path: Path) -> None:
    best = tmp_path / "best"
    best.mkdir()
    RECIPE.save(best / "recipe.yaml")
    replace(RECIPE, network="5x5").save(tmp_path / "recipe.yaml")  # a training's folder has what it was given too
    assert parse_training([str(tmp_path)])[0] == parse_training([str(best)])[0] == RECIPE
    assert parse_training([str(tmp_path / "recipe.yaml")])[0].network == "5x5"


@pytest.mark.parametrize(("file", "said"), [("study.db", "python search/run.py --resume"), ("x", "Check the")])
def test_folder_without_a_recipe_says_what_it_lacks(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(RecipeError, match=f"without best/recipe.yaml.*{said}"):
        parse_training([str(tmp_path)])
