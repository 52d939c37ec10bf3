"""The report of a study on disk: its sections with few trials and with many, and text that is no markup."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from search import report
from search.report import write_report
from search.sampler import open_study
from spaces.recipe import Recipe

FIGURES: dict[str, Any] = {
    "method": "fANOVA", "epoch": 2, "trials": 90, "stopped_before": 0, "without_wer": 0, "explained": 0.7,
    "why_none": None, "shares": {
        "optimizer": {"share": 0.6, "low": 0.5, "high": 0.75, "floor": 0.05},
        "vocabulary": {"share": 0.4, "low": 0.25, "high": 0.5, "floor": 0.02}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    study = open_study(tmp_path / "study.db", seed=0)
    for wers in ((0.9, 0.8), (0.7, 0.6), (0.8,)):
        trial = study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        trial.set_user_attr("recipe", asdict(Recipe()))
        for epoch, wer in enumerate(wers, 1):
            trial.report(wer, epoch)
        study.tell(trial, min(wers))
    failed = study.ask()
    failed.set_user_attr("reason", "<script>alert('x')</script>")
    study.tell(failed, state=report.TrialState.FAIL)
    return tmp_path


def test_small_study_is_drawn_and_says_that_importance_cannot_be_told(run: Path) -> None:
    page = write_report(run).read_text()
    assert "what mattered cannot be told: 3 trials can be compared" in page
    assert "Learning curves" in page and "has not named a winner yet" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert not (run / "report.html.part").exists()


def test_shares_are_drawn_with_their_intervals(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "importance", lambda trials, seed: FIGURES)
    page = write_report(run).read_text()
    assert "optimizer 60% (50% to 75%), vocabulary 40% (25% to 50%)" in page
    assert '"arrayminus":[0.15' in page and '"y":["vocabulary","optimizer"]' in page
