"""A run's folder belongs to one study: new ones do not overwrite it, resumed ones do not change what it measures, and
one process at a time runs it."""

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import BaseFileLock

from search.config import ConfigError, StudyConfig, load_config
from search.records import run_folder as folder_module
from search.records.files import write_json
from search.records.fingerprints import Identity
from search.records.run_folder import FIXED_FIELDS, RunFolder, check_database
from search.speech.catalog import located
from search.tuning.optuna_study import open_study

pytestmark = pytest.mark.timeout(20)


ROOT = Path(__file__).resolve().parents[1]
MADE_OF = Identity(corpus=("c0",), source="50", space="5a", features="1.1")


def study(folder: Path, **changes: Any) -> StudyConfig:
    options: dict[str, Any] = {"corpus": ("es.tar.gz",), "source": "en.nemo", "trials": 9, "out": str(folder)}
    return located(StudyConfig(**(options | changes)))


def begun(config: StudyConfig, resume: bool = False, made_of: Identity = MADE_OF) -> RunFolder:
    run = RunFolder.open(config, resume)
    with run.locked():
        run.begin(made_of)
    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """The folder of a study whose search has begun."""
    run = begun(study(tmp_path / "runs" / "first"))
    open_study(run.path / "study.db", seed=1).ask()
    write_json(run.trials / "0000" / "record.json", {})
    return run.path


def test_corpus_in_an_object_store_keeps_its_uri(tmp_path: Path) -> None:
    run = begun(study(tmp_path / "first", corpus=("s3://bucket/es.tar.gz", "/data//it.tar.gz")))
    assert load_config(run.path).corpus == ("s3://bucket/es.tar.gz", "/data/it.tar.gz")


def test_new_folder_holds_the_whole_configuration_with_absolute_paths(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = begun(study(Path("runs/first")))
    assert run.path == tmp_path / "runs" / "first" and run.name == "first"
    assert run.config.corpus == (str(tmp_path / "es.tar.gz"),)
    assert run.config.source == str(tmp_path / "en.nemo")
    assert (run.config.space, run.config.max_epochs) == ("spanish", 30), "defaults are decided once"
    assert load_config(run.path) == run.config
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "made_of.json", "id", "lock"}
    assert (run.path / "lock").read_text() == "", "nobody holds it"
    assert (run.trials, run.best) == (run.path / "trials", run.path / "best")


def test_studies_of_one_name_are_told_apart_also_after_a_resume(tmp_path: Path) -> None:
    first, second = (begun(study(tmp_path / folder / "run")) for folder in "ab")
    assert first.unique_name != second.unique_name and first.unique_name.startswith("run-")
    open_study(first.path / "study.db", seed=1).ask()
    assert begun(study(first.path), resume=True).unique_name == first.unique_name
    (first.path / "id").unlink()  # as of a study that was begun before there was one
    assert begun(study(first.path), resume=True).unique_name == "run"


def test_study_without_a_source_keeps_none_as_it_is(tmp_path: Path) -> None:
    assert RunFolder.open(study(tmp_path / "a", source="none"), resume=False).config.source == "none"
    assert RunFolder.open(StudyConfig(out=str(tmp_path / "b")), resume=False).config.source is None


def test_folder_without_a_name_is_named_for_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.open(StudyConfig(), resume=False)
    assert run.path.parent == tmp_path / "runs" and re.fullmatch(r"\d{8}-\d{6}", run.name)


def test_folder_of_another_study_is_left_alone(started: Path) -> None:
    before = content(started)
    with pytest.raises(ConfigError, match=re.escape(str(started)) + ".*already holds a study.*--resume.*--out"):
        RunFolder.open(study(started, trials=2), resume=False)
    assert content(started) == before


def test_study_that_failed_before_its_search_began_does_not_keep_the_folder(tmp_path: Path) -> None:
    begun(study(tmp_path / "run", corpus=("mistyped.tar.gz",)))
    run = begun(study(tmp_path / "run"), made_of=dataclasses.replace(MADE_OF, corpus=("c1",)))
    assert run.config.corpus[0].endswith("/es.tar.gz") and load_config(run.path) == run.config


def test_resuming_nothing_is_refused_and_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no study to resume here .*config.yaml is missing"):
        RunFolder.open(study(tmp_path / "nothing"), resume=True)
    assert not (tmp_path / "nothing").exists()


def test_resumed_study_may_go_on_longer(started: Path) -> None:
    run = begun(study(started, trials=50, budget="2h", confirm=3, wandb="off"), resume=True)
    assert (run.config.trials, run.config.budget, run.config.confirm) == (50, "2h", 3)
    assert load_config(started) == run.config


OTHERWISE: dict[str, Any] = {
    "corpus": ("es.tar.gz", "more.jsonl"), "train": ("a.jsonl",), "dev": ("b.jsonl",), "test": ("c.jsonl",),
    "language": "en", "source": "other.nemo", "space": "synthetic", "max_epochs": 12, "seed": 1,
    "warm_start": ("runs/other",), "workers_per_trial": 2, "grace_epochs": 1, "reduction_factor": 4,
    "min_duration_s": 1.0, "max_duration_s": 10.0, "max_infeasible_share": 0.5}


def test_every_fixed_field_is_tried_below() -> None:
    assert set(OTHERWISE) == set(FIXED_FIELDS)


@pytest.mark.parametrize("name", OTHERWISE)
def test_resumed_study_that_would_be_another_is_refused_by_field_and_both_values(started: Path, name: str) -> None:
    (started / "made_of.json").unlink()  # as before content was compared: then corpus and source are compared by path
    before = content(started)
    kept = getattr(load_config(started), name)
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(study(started, **{name: OTHERWISE[name]}), resume=True)
    message = str(caught.value)
    assert message.startswith(f"{started}: {name} of the study is {kept!r}, and ") and "--out" in message
    assert content(started) == before


def test_resumed_study_whose_files_were_moved_goes_on(started: Path) -> None:
    run = begun(study(started, corpus=("moved.tar.gz",), source="moved.nemo"), resume=True)
    assert [Path(path).name for path in (*run.config.corpus, str(run.config.source))] == ["moved.tar.gz", "moved.nemo"]
    assert load_config(started) == run.config


def test_resumed_study_whose_content_changed_is_refused_and_its_folder_is_left_alone(started: Path) -> None:
    before = content(started)
    with pytest.raises(ConfigError, match="space spanish .* has changed in content"):
        begun(study(started, trials=50), resume=True, made_of=dataclasses.replace(MADE_OF, space="5b"))
    assert content(started) == before


def test_resume_from_another_folder_finds_the_same_files(started: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_config(started)
    monkeypatch.chdir(tmp_path)
    assert RunFolder.open(dataclasses.replace(stored, out="runs/first"), resume=True).config == stored


@pytest.mark.parametrize(("change", "message"), [
    ({"version": 2}, "the study is of version 2; this Cuarzo reads version 1"),
    ({"version": 2, "novelty": 3}, "the study is of version 2; this Cuarzo reads version 1"),
    ({"trails": 3}, "trails: there is no such field; the nearest is trials"),
    ({"seeds": 0}, "seeds is 0; it must be at least 1")])
def test_configuration_that_cannot_be_read_is_refused(started: Path, change: dict[str, Any], message: str) -> None:
    values = yaml.safe_load((started / "config.yaml").read_text())
    (started / "config.yaml").write_text(yaml.safe_dump(values | change))
    with pytest.raises(ConfigError, match=message):
        RunFolder.open(study(started), resume=True)


def test_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "file" / "run")) + ": cannot be written.*--out"):
        begun(study(tmp_path / "file" / "run"))


# --- its database ----------------------------------------------------------------------------------------------------


def test_whole_database_is_taken_and_so_is_none_before_the_first_trial(started: Path, tmp_path: Path) -> None:
    before = content(started)
    check_database(started)
    assert content(started) == before
    check_database(tmp_path)
    (tmp_path / "study.db").touch()  # killed when it was being made
    check_database(tmp_path)


@pytest.mark.parametrize("share", [0, 1e-5, 0.001, 0.3, 0.6, 0.99])
def test_database_that_was_cut_off_is_refused(started: Path, share: float) -> None:
    whole = (started / "study.db").read_bytes()
    (started / "study.db").write_bytes(whole[: int(len(whole) * share)])
    before = content(started)
    with pytest.raises(ConfigError, match=re.escape(str(started / "study.db")) + r".*holds 1 trial\. Restore.*--out"):
        begun(study(started), resume=True)
    assert content(started) == before


@pytest.mark.parametrize(("make", "message"), [
    (lambda file: file.write_bytes(b"<html>not found</html>" * 99), "file is not a database"),
    (lambda file: file.unlink(), "unable to open database file")])
def test_database_that_is_none_is_refused(started: Path, make: Any, message: str) -> None:
    make(started / "study.db")
    with pytest.raises(ConfigError, match=message):
        check_database(started)


@pytest.mark.parametrize("table", ["trials", "studies"])
def test_database_without_the_trials_of_its_folder_is_refused(started: Path, table: str) -> None:
    with contextlib.closing(sqlite3.connect(started / "study.db")) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
    with pytest.raises(ConfigError, match="it holds no trial"):
        check_database(started)


@pytest.mark.parametrize("version", ["v99", "v2.6.0.a"])
def test_database_of_another_optuna_is_refused_in_one_line(started: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(started / "study.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(ConfigError, match="was not written by the installed Optuna, .* Install the version"
                       ) as refused:
        open_study(started / "study.db", 0)
    assert str(refused.value).isprintable() and "$STORAGE_URL" not in str(refused.value)


# --- its lock --------------------------------------------------------------------------------------------------------


HOLDER = """
import sys, time
from pathlib import Path
from search.config import StudyConfig
from search.records.run_folder import RunFolder
import subprocess
with RunFolder(Path(sys.argv[1]), StudyConfig()).locked():
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    time.sleep(60)
"""


def test_study_that_another_process_runs_is_refused_until_that_one_is_killed(
        started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of the killed process lives on, as Ray's do for some seconds."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(started)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        before = content(started)
        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "LOCK_PATIENCE_S", 0.2)
            with pytest.raises(ConfigError, match=f"this study is running \\(host .*, process {holder.pid}\\).*--out"):
                begun(study(started), resume=True)
        assert content(started) == before
        holder.kill()
        start = time.monotonic()
        begun(study(started), resume=True)
        assert time.monotonic() - start < folder_module.LOCK_PATIENCE_S
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.wait()


def test_study_that_another_process_began_meanwhile_is_not_begun_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(lock: BaseFileLock) -> bool:
        (tmp_path / "run" / "study.db").write_bytes(b"what the other found")
        lock.acquire()
        return True

    monkeypatch.setattr(folder_module, "_lock", wait)
    with pytest.raises(ConfigError, match="this study is running .until just now"):
        begun(study(tmp_path / "run"))
    assert content(tmp_path / "run") == {"lock": b"", "study.db": b"what the other found"}


def test_lock_is_for_one_process_and_for_one_study_at_a_time_in_it(
        started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE_S", 0.0)
    refused = pytest.raises(ConfigError, match=f"this study is running .*process {os.getpid()}")
    with RunFolder(started, study(started)).locked(), RunFolder(tmp_path / "other", study(started)).locked(), refused:
        begun(study(started), resume=True)
    begun(study(started), resume=True)


def test_command_that_goes_on_with_a_folder_can_be_pasted(tmp_path: Path) -> None:
    run = begun(study(tmp_path / "my  runs" / "it's"))
    open_study(run.path / "study.db", 0)
    with pytest.raises(ConfigError) as error:
        RunFolder.open(study(run.path), resume=False)
    words = shlex.split(str(error.value).partition("Resume it with ")[2])
    assert words[:4] == ["python", "search/run.py", "--resume", f"{run.path},"]


def test_configuration_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    fsync, replace = os.fsync, os.replace

    def rename(aside: Path, path: Path) -> None:
        assert os.path.realpath(aside) in synced, f"{path.name} may be empty"
        replace(aside, path)

    monkeypatch.setattr(os, "fsync", lambda number: (synced.add(os.readlink(f"/proc/self/fd/{number}")), fsync(number)))
    monkeypatch.setattr(os, "replace", rename)
    run = begun(study(tmp_path / "run"))
    assert (run.path / "config.yaml").exists() and str(run.path) in synced
