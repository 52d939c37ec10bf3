"""A folder that is put beside others holds a finished run, whole and judged by the reference that lies beside it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from told_study import candidate, make_run, write_trial

from corpora.reference import Reference
from files.atomic import write_aside
from search.config import ConfigError
from search.results.compared import load
from search.results.confirmation import Confirmed
from search.results.importance import importance
from search.results.summary import summarise
from spaces.recipe import LATER_FIELDS

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A study's folder whose winner has two seeds."""
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0002", 0.4), write_trial(run.trials, "0002-seed1", 0.2, seed=1))
    summarise(run, [{"id": "0002", "state": "complete"}], Confirmed(candidates=[winner], left_out=[]), [],
              importance([], 0), None, room.budget)
    return run.path


def test_finished_study_is_its_winner_with_all_seeds(finished: Path) -> None:
    run = load(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert (run.trial, run.num_trainings, run.dev_wer) == ("0002", 2, summary["dev"]["wer"])
    edits, words = run.edits() or (np.zeros(0), np.zeros(0))
    assert float(np.mean(edits.sum(axis=1) / words.sum())) == pytest.approx(run.dev_wer)
    (finished / "trials" / "0002-seed1" / "dev.json").unlink()
    assert load(finished).edits() is None


def test_run_from_before_a_field_of_recipes_has_its_default(finished: Path) -> None:
    """Otherwise such a run would differ from a later one of the same recipe."""
    now = load(finished).made_of
    summary = json.loads((finished / "summary.json").read_text())
    for name in LATER_FIELDS:
        del summary["recipe"][name]
    (finished / "summary.json").write_text(json.dumps(summary))
    assert load(finished).made_of == now


@pytest.mark.parametrize(("content", "said"), [
    (None, "there is no finished run here .summary.json is missing.*check the path"),
    ("{", "summary.json: cannot be read"), ("{}", "cannot be read .*it lacks study, winner")])
def test_folder_without_a_whole_summary_is_refused(finished: Path, content: str | None, said: str) -> None:
    (finished / "summary.json").unlink()
    if content is not None:
        (finished / "summary.json").write_text(content)
    with pytest.raises(ConfigError, match=said):
        load(finished)


def test_reference_of_another_run_is_refused(finished: Path) -> None:
    other = replace(Reference.load(finished / "reference.parquet"), rows=(("dev", "dev0", "otra cosa"),))
    write_aside(finished / "reference.parquet", other.to_parquet())
    with pytest.raises(ConfigError, match="is not what the run was scored on"):
        load(finished)
