"""A study whose file another program holds waits for it, says so, and goes on."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest

from search.records import database
from search.records.run_folder import check_database
from search.tuning.optuna_study import open_study
from search.tuning.warm_start import _read_trials

pytestmark = pytest.mark.timeout(60)


@contextmanager
def held(file: Path, begin: str, seconds: float) -> Iterator[None]:
    """Another program has the file open: as one that writes, or as a reader that does not end."""
    begun = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute(begin)
            other.execute("SELECT count(*) FROM trials").fetchall()
            begun.set()
            time.sleep(seconds)
            other.execute("COMMIT")

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    yield
    thread.join()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    for name, seconds in (("TRY_S", 0.05), ("SAY_AFTER_S", 0.2), ("SAY_EVERY_S", 60.0)):
        monkeypatch.setattr(database, name, seconds)
    return open_study(tmp_path / "study.db", 0)


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "BEGIN"])
def test_locked_study_waits_says_so_and_goes_on(study: optuna.Study, tmp_path: Path, begin: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    with held(tmp_path / "study.db", begin, 1.0):
        trial = study.ask()
        trial.suggest_float("lr", 0, 1)
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
    assert [(trial.value, trial.intermediate_values) for trial in study.trials] == [(0.5, {1: 0.5})]
    said = capsys.readouterr().err
    assert f"{tmp_path / 'study.db'}: another program has locked it" in said and said.count("\n") == 1


def test_locked_study_is_no_damaged_one(study: optuna.Study, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    study.tell(study.ask(), 0.5)
    with held(tmp_path / "study.db", "BEGIN EXCLUSIVE", 0.6):
        check_database(tmp_path)
    with held(tmp_path / "study.db", "BEGIN EXCLUSIVE", 0.6):
        assert len(_read_trials(tmp_path / "study.db")) == 1
    with held(tmp_path / "study.db", "BEGIN EXCLUSIVE", 0.6):
        assert len(open_study(tmp_path / "study.db", 0).trials) == 1
    assert "locked" in capsys.readouterr().err


def test_other_errors_are_not_waited_for(study: optuna.Study, tmp_path: Path) -> None:
    with closing(database.connect(tmp_path / "study.db", "ro")) as reader, pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM trials")
