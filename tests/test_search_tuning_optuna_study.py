"""The Optuna study on disk, under the name of its folder."""

from pathlib import Path

import optuna
import pytest

from search.tuning.optuna_study import open_study

pytestmark = pytest.mark.timeout(60)


def test_study_is_called_as_its_folder_and_an_older_one_goes_on_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "spanish").mkdir()
    assert open_study(tmp_path / "spanish" / "study.db", 0).study_name == "spanish"
    (tmp_path / "spanish").rename(tmp_path / "moved")
    assert open_study(tmp_path / "moved" / "study.db", 0).study_name == "spanish"
    old = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="cuarzo")
    old.tell(old.ask(), 0.5)
    resumed = open_study(tmp_path / "study.db", 0)
    assert (resumed.study_name, len(resumed.trials)) == ("cuarzo", 1)
