"""Alignment by the fewest edits, and what is most often wrong."""

import random

import pytest

from models.metrics import count_errors
from models.mistakes import align, most_wrong

pytestmark = pytest.mark.timeout(60)


def test_words_stand_beside_what_was_heard() -> None:
    assert list(align(["la", "casa", "es", "muy", "roja"], ["la", "caza", "muy", "roja", "ya"])) == [
        ("equal", "la", "la"), ("replace", "casa", "caza"), ("delete", "es", ""), ("equal", "muy", "muy"),
        ("equal", "roja", "roja"), ("insert", "", "ya")]
    assert list(align([], ["a"])) == [("insert", "", "a")] and list(align("", "")) == []


@pytest.mark.parametrize("seed", range(200))
def test_alignment_keeps_both_texts_and_has_as_many_edits_as_are_counted(seed: int) -> None:
    draw = random.Random(seed)
    reference, hypothesis = (draw.choices("abcd", k=draw.randrange(9)) for _ in range(2))
    found = list(align(reference, hypothesis))
    assert [was for _, was, _ in found if was] == reference and [heard for *_, heard in found if heard] == hypothesis
    edits = sum(operation != "equal" for operation, *_ in found)
    assert all((was == heard) == (operation == "equal") for operation, was, heard in found)
    if reference:
        assert edits == count_errors([" ".join(reference)], [" ".join(hypothesis)]).word_edits


def test_most_wrong_are_counted_with_what_was_heard_instead() -> None:
    references = ["año de gracia", "un año más", "el año pasado", "de más"]
    hypotheses = ["ano de gracia", "un ano más ya", "el año", "más"]
    found = most_wrong(references, hypotheses, most=2)
    assert found["words"] == [{"unit": "año", "count": 3, "wrong": 2, "heard": "ano"},
                              {"unit": "de", "count": 2, "wrong": 1, "heard": ""}]
    assert found["letters"][0] == {"unit": "a", "count": 7, "wrong": 2, "heard": ""}
    other = most_wrong(references, ["x"] * 4, most=2, beside=found)
    assert {row["unit"]: row["wrong"] for row in other["words"]} == {"año": 3, "de": 2}
    assert found["letters"][1]["unit"] == "d" and {"unit": "ya", "wrong": 1} in found["inserted"]
