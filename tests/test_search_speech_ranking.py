"""Trials that are learning come before those that say nothing, also where word error rates rank nothing."""

from models.metrics import ErrorCounts
from search.speech.ranking import rank, score


def errors(wer: float, cer: float) -> ErrorCounts:
    return ErrorCounts(word_edits=round(1000 * wer), words=1000, char_edits=round(1000 * cer), chars=1000)


LEARNING, SILENT, INSERTS = errors(1.01, 0.73), errors(0.97, 0.95), errors(1.52, 0.76)


def test_recipe_that_is_learning_is_better_than_one_that_says_nothing() -> None:
    for of in (rank, score):
        for objective in ("wer", "cer"):
            assert of(LEARNING, objective, False) < of(SILENT, objective, True)


def test_near_one_letters_decide_and_insertions_cost_no_more_than_silence() -> None:
    for of in (rank, score):
        assert of(LEARNING, "wer", False) < of(INSERTS, "wer", False) < of(errors(1.0, 0.88), "wer", False)
        assert of(INSERTS, "wer", False) < of(errors(1.0, 1.0), "wer", True)


def test_ordinary_recipes_are_chosen_by_what_is_minimised() -> None:
    words, letters = errors(0.30, 0.12), errors(0.31, 0.10)
    assert score(words, "wer", False) == 0.3 < score(letters, "wer", False)
    assert score(letters, "cer", False) == 0.1 < score(words, "cer", False)
    assert rank(words, "wer", False) == 0.21 and rank(words, "cer", False) == 0.12


def test_those_that_have_collapsed_are_ranked_among_themselves() -> None:
    better, worse = errors(1.0, 0.83), errors(0.98, 0.98)
    for of in (rank, score):
        assert 1 < of(better, "wer", True) < of(worse, "wer", True)
