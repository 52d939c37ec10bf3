"""Recipes are compared on the same utterances and all their seeds, and a tie is called one."""

from pathlib import Path

import pytest
from told_study import candidate, dev_texts, write_trial

from models.metrics import MIN_UTTERANCES
from search.results.statistics import Difference, covered, optimism, too_few

pytestmark = pytest.mark.timeout(60)


def test_difference_is_told_with_its_sign_interval_and_what_it_covers(tmp_path: Path) -> None:
    good = candidate(write_trial(tmp_path, "0001", 0.1), write_trial(tmp_path, "0001-seed1", 0.12, seed=1))
    bad = candidate(write_trial(tmp_path, "0002", 0.5), write_trial(tmp_path, "0002-seed1", 0.5, seed=1))
    better, worse = Difference.between(good, bad, seed=0), Difference.between(bad, good, seed=0)
    assert better.said("0002").startswith("better than 0002 by ")
    assert worse.said("0001").startswith("worse than 0001 by ")
    assert better.said("0002").endswith("absolute (95 %, paired bootstrap over utterances and 2 seeds)")
    assert better.value == pytest.approx(good.rate("wer") - bad.rate("wer")) == -worse.value
    assert better.figures()["is_tie"] is False and better.figures()["difference_high"] < 0


def test_equal_recipes_are_a_tie_also_where_one_lacks_a_seed(tmp_path: Path) -> None:
    whole = candidate(write_trial(tmp_path, "0001", 0.3), write_trial(tmp_path, "0001-seed1", 0.3, seed=1))
    lacking = candidate(write_trial(tmp_path, "0002", 0.3))
    tie = Difference.between(whole, lacking, seed=0)
    assert tie.said("runner-up 0002").startswith("a tie with runner-up 0002 within noise: the difference is ")
    assert "seeds, 2 against 1)" in tie.said("0002") and tie.figures()["is_tie"] is True
    alone = Difference.between(candidate(whole.trainings[0]), lacking, seed=0)
    assert "over utterances alone, as there is one seed)" in alone.said("0002")
    assert covered(3) == "utterances and 3 seeds"


def test_too_few_utterances_give_no_interval_and_say_how_few(tmp_path: Path) -> None:
    texts = [*dev_texts(MIN_UTTERANCES - 1), " "]
    one, other = (candidate(write_trial(tmp_path, name, share, texts=texts), texts=texts)
                  for name, share in (("0001", 0.0), ("0002", 1.0)))
    few = Difference.between(one, other, seed=0)
    said = "19 development clips are too few for an interval, which takes 20"
    assert few.said("0002") == f"not told apart from 0002: the difference is -100.0% absolute, and {said}"
    assert few.figures() == {"difference": -1.0, "difference_low": None, "difference_high": None, "is_tie": None}
    assert too_few(1, "test") == "1 test clip is too few for an interval, which takes 20"
    assert one.interval("wer", seed=0) is None
    assert optimism(tmp_path, texts, seed=0).why_none == said


def test_optimism_is_of_the_choice_among_the_trials_that_ran_to_the_end(tmp_path: Path) -> None:
    write_trial(tmp_path, "0000", 0.3)
    write_trial(tmp_path, "0001", 0.1, num_epochs=2)  # stopped
    write_trial(tmp_path, "0000-seed1", 0.1, seed=1)  # no trial of the search
    none = optimism(tmp_path, dev_texts(), seed=0)
    assert (none.value, none.num_trials, none.why_none) == (
        None, 1, "1 of the trials ran to the end, and a choice takes two")
    for i in range(2, 9):
        write_trial(tmp_path, f"{i:04d}", 0.3)
    among = optimism(tmp_path, dev_texts(), seed=0)
    assert among.num_trials == 8 and among.why_none is None
    assert among.value is not None and 0.005 < among.value < 0.1
    write_trial(tmp_path, "0009", 0.0)
    assert optimism(tmp_path, dev_texts(), seed=0).value == 0.0, "one that is far ahead would be chosen on any clips"
