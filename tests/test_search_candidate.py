"""A recipe is judged by the mean of its seeds, and gives the weights of the best."""

from pathlib import Path

import pytest
from told_study import candidate, write_trial

pytestmark = pytest.mark.timeout(60)


def test_candidate_is_the_mean_of_its_seeds_and_gives_the_weights_of_the_best(tmp_path: Path) -> None:
    trainings = [write_trial(tmp_path, "0003", 0.4), write_trial(tmp_path, "0003-seed1", 0.2, seed=1)]
    both = candidate(*trainings)
    assert both.id == "0003" and both.best_training.id == "0003-seed1"
    assert both.wer == pytest.approx(sum(both.wers) / 2) and both.wers[1] < 0.3 < both.wers[0]
    edits, words = both.edits()
    assert edits.sum(axis=1) / words.sum() == pytest.approx(both.wers)
    low, high = both.interval(seed=0) or (1.0, 0.0)
    assert low <= both.wers[1] and both.wers[0] <= high, "two seeds that far apart widen it"
