"""The Optuna study is found again at any path and under the name it has, and recipes are drawn by their seed."""

from pathlib import Path

import optuna
import pytest

from search.tuning.optuna_study import draw, first_recipe, open_study, storage_url, trial_id
from spaces import synthetic

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("folder", ["run", "my runs", "50%?#x=1", "año@host:1"])
def test_study_is_found_at_any_path_and_keeps_its_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "study.db"
    open_study(path, seed=1).ask()
    assert path.exists() and optuna.get_all_study_names(storage_url(path)) == [folder]
    path.rename(tmp_path / "study.db")
    again = open_study(tmp_path / "study.db", seed=1)
    assert again.study_name == folder and len(again.trials) == 1


def test_recipe_is_drawn_by_its_seed_around_what_is_given() -> None:
    first, parameters = draw(synthetic, 4, True, seed=1, given={})
    assert draw(synthetic, 4, True, seed=1, given={}) == (first, parameters)
    assert draw(synthetic, 4, True, seed=2, given={})[0] != first
    assert draw(synthetic, 4, True, seed=2, given=parameters) == (first, parameters)
    hand = next(iter(synthetic.baseline(max_epochs=4, has_source=True).values()))
    assert first_recipe(synthetic, 4, True, seed=1) == draw(synthetic, 4, True, 1, hand)[0]


def test_names_of_trials_sort_as_their_numbers() -> None:
    assert [trial_id(number) for number in (0, 42, 12_345)] == ["0000", "0042", "12345"]


def test_study_is_called_as_its_folder_and_an_older_one_goes_on_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "spanish").mkdir()
    assert open_study(tmp_path / "spanish" / "study.db", 0).study_name == "spanish"
    (tmp_path / "spanish").rename(tmp_path / "moved")
    assert open_study(tmp_path / "moved" / "study.db", 0).study_name == "spanish"
    old = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="cuarzo")
    old.tell(old.ask(), 0.5)
    resumed = open_study(tmp_path / "study.db", 0)
    assert (resumed.study_name, len(resumed.trials)) == ("cuarzo", 1)
