"""A recipe is judged by the mean of its seeds, and gives the weights of the best."""

from dataclasses import replace
from pathlib import Path

import pytest
from told_study import candidate, write_trial

pytestmark = pytest.mark.timeout(60)


def test_candidate_is_the_mean_of_its_seeds_and_gives_the_weights_of_the_best(tmp_path: Path) -> None:
    trainings = [write_trial(tmp_path, "0003", 0.4), write_trial(tmp_path, "0003-seed1", 0.2, seed=1)]
    both = candidate(*trainings)
    assert both.id == "0003" and both.best_training.id == "0003-seed1"
    first, second = both.rates("wer")
    assert both.score == both.rate("wer") == pytest.approx((first + second) / 2) and second < 0.3 < first
    edits, words = both.edits("wer")
    assert edits.sum(axis=1) / words.sum() == pytest.approx([first, second])
    low, high = both.interval("wer", seed=0) or (1.0, 0.0)
    assert low <= second and first <= high, "two seeds that far apart widen it"


def test_candidate_whose_best_training_says_nothing_has_collapsed(tmp_path: Path) -> None:
    hears, silent = write_trial(tmp_path, "0003", 0.4), write_trial(tmp_path, "0004", 1.0)
    collapsed = {"collapsed": 1.0, "score": 2.5}
    silent.epochs = [replace(epoch, metrics={**epoch.metrics, **collapsed}) for epoch in silent.epochs]
    assert candidate(silent).is_collapsed and candidate(silent).score == 2.5
    assert not candidate(hears, silent).is_collapsed, "the other seed is exported"
