"""A run's folder belongs to one study: new ones do not overwrite it, resumed ones do not change what it measures."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config import ConfigError, StudyConfig
from search.folder import FIXED_FIELDS, RunFolder, load_config

pytestmark = pytest.mark.timeout(20)


def study(folder: Path, **changes: Any) -> StudyConfig:
    options: dict[str, Any] = {"corpus": ("es.tar.gz",), "source": "en.nemo", "trials": 9, "out": str(folder)}
    return StudyConfig(**(options | changes))


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """The folder of a study whose search has begun."""
    run = RunFolder.open(study(tmp_path / "runs" / "first"), resume=False)
    (run.path / "study.db").touch()
    return run.path


def test_new_folder_holds_the_whole_configuration_with_absolute_paths(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.open(study(Path("runs/first")), resume=False)
    assert run.path == tmp_path / "runs" / "first" and run.name == "first"
    assert run.config.corpus == (str(tmp_path / "es.tar.gz"),)
    assert run.config.source == str(tmp_path / "en.nemo")
    assert (run.config.space, run.config.max_epochs) == ("spanish", 30), "defaults are decided once"
    assert load_config(run.path) == run.config
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
    assert (run.trials, run.best) == (run.path / "trials", run.path / "best")


def test_study_without_a_source_keeps_none_as_it_is(tmp_path: Path) -> None:
    assert RunFolder.open(study(tmp_path / "a", source="none"), resume=False).config.source == "none"
    assert RunFolder.open(StudyConfig(out=str(tmp_path / "b")), resume=False).config.source is None


def test_folder_without_a_name_is_named_for_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.open(StudyConfig(), resume=False)
    assert run.path.parent == tmp_path / "runs" and re.fullmatch(r"\d{8}-\d{6}", run.name)


def test_folder_of_another_study_is_left_alone(started: Path) -> None:
    before = (started / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=re.escape(str(started)) + ".*already holds a study.*--resume.*--out"):
        RunFolder.open(study(started, trials=2), resume=False)
    assert (started / "config.yaml").read_bytes() == before


def test_study_that_failed_before_its_search_began_does_not_keep_the_folder(tmp_path: Path) -> None:
    RunFolder.open(study(tmp_path / "run", corpus=("mistyped.tar.gz",)), resume=False)
    run = RunFolder.open(study(tmp_path / "run"), resume=False)
    assert run.config.corpus[0].endswith("/es.tar.gz") and load_config(run.path) == run.config


def test_resuming_nothing_is_refused_and_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no study to resume here .*config.yaml is missing"):
        RunFolder.open(study(tmp_path / "nothing"), resume=True)
    assert not (tmp_path / "nothing").exists()


def test_resumed_study_may_go_on_longer(started: Path) -> None:
    run = RunFolder.open(study(started, trials=50, budget="2h", confirm=3, wandb="off"), resume=True)
    assert (run.config.trials, run.config.budget, run.config.confirm) == (50, "2h", 3)
    assert load_config(started) == run.config


OTHERWISE: dict[str, Any] = {
    "corpus": ("es.tar.gz", "more.jsonl"), "language": "en", "source": "other.nemo", "space": "synthetic",
    "max_epochs": 12, "seed": 1, "workers_per_trial": 2, "grace_epochs": 1, "reduction_factor": 4,
    "min_duration_s": 1.0, "max_duration_s": 10.0, "max_infeasible_share": 0.5}


def test_every_fixed_field_is_tried_below() -> None:
    assert set(OTHERWISE) == set(FIXED_FIELDS)


@pytest.mark.parametrize("name", OTHERWISE)
def test_resumed_study_that_would_be_another_is_refused_by_field_and_both_values(started: Path, name: str) -> None:
    before = (started / "config.yaml").read_bytes()
    kept = getattr(load_config(started), name)
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(study(started, **{name: OTHERWISE[name]}), resume=True)
    message = str(caught.value)
    assert message.startswith(f"{started}: {name} of the study is {kept!r}, and ") and "--out" in message
    assert (started / "config.yaml").read_bytes() == before


def test_resume_from_another_folder_finds_the_same_files(started: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_config(started)
    monkeypatch.chdir(tmp_path)
    assert RunFolder.open(dataclasses.replace(stored, out="runs/first"), resume=True).config == stored


@pytest.mark.parametrize(("change", "message"), [
    ({"version": 2}, "the study is of version 2; this Cuarzo reads version 1"),
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
        RunFolder.open(study(tmp_path / "file" / "run"), resume=False)
