"""A summary on disk, of this version or another, is a StudySummary or a TrainingSummary as it is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from search.config import ConfigError
from search.records.measured import DevRates, SplitRates
from search.results.run_summary import StudySummary, TrainingSummary, load_summary

pytestmark = pytest.mark.timeout(20)

STUDY: dict[str, Any] = {"study": "s", "winner": "0001", "exported": "0001-seed1", "recipe": {"optimizer.lr": 0.1},
                         "dev": {"wer": 0.3, "cer": 0.1}}


def test_summary_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    assert load_summary(TrainingSummary, tmp_path) is None, "the run has not ended"
    summary = TrainingSummary(training="t", exported="training", recipe={}, epochs=3, workers=2,
                              dev=SplitRates(wer=0.3, cer=0.1, folded_wer=0.3))
    summary.save(tmp_path)
    assert load_summary(TrainingSummary, tmp_path) == summary
    assert list(json.loads((tmp_path / "summary.json").read_text())) == list(summary.values())


def test_fields_of_other_versions_are_no_trouble(tmp_path: Path) -> None:
    dev = STUDY["dev"] | {"also_of_a_later_one": 2, "wer_corrected": 0.4}
    later = {"of_a_later_version": 1, "test": {}, "dev": dev}
    (tmp_path / "summary.json").write_text(json.dumps(STUDY | later))
    read = load_summary(StudySummary, tmp_path)
    assert read and (read.dev, read.test, read.transfer) == (DevRates(wer=0.3, cer=0.1, corrected=0.4), None, [])
    assert read.values()["dev"]["wer_corrected"] == 0.4 and read.values()["test"] == {}


@pytest.mark.parametrize(("content", "message"), [
    ("{", r"Expecting property name"), ("[1]", ""), ("{}", "it lacks study, winner, exported, recipe, dev"),
    (json.dumps({name: value for name, value in STUDY.items() if name != "dev"}), "it lacks dev")])
def test_damaged_summary_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"summary.json: cannot be read \(.*{message}"):
        load_summary(StudySummary, tmp_path)
