"""A command line of a training is read as it was meant, or refused in one line."""

from pathlib import Path

import pytest

from search.command_line.training_arguments import parse_training
from search.training_config import TrainingConfig
from spaces.recipe import Recipe, TrainingRecipe

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
    ([], "give the path of a recipe.yaml"), (["r.yaml", "--resume", "d"], "give the path of a recipe.yaml"),
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
