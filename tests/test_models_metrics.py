"""Error rates are corpus ratios."""

from dataclasses import astuple

import pytest

from models.metrics import (
    ErrorCounts,
    MetricsError,
    bootstrap_interval,
    char_error_rate,
    count_errors,
    utterance_errors,
    word_error_rate,
)

pytestmark = pytest.mark.timeout(30)


def test_word_error_rate_is_a_corpus_ratio_not_an_average() -> None:
    references = ["uno", "dos tres cuatro cinco seis siete ocho nueve diez"]
    hypotheses = ["once", references[1]]
    assert word_error_rate(references, hypotheses) == pytest.approx(1 / 10)


def test_insertions_deletions_and_substitutions_count_once_each() -> None:
    assert utterance_errors("a b c d", "a x c d e").word_edits == 2
    assert utterance_errors("a b c d", "").word_edits == 4
    assert word_error_rate(["a"], ["b c d"]) == 3.0


def test_char_error_rate_counts_spaces() -> None:
    assert char_error_rate(["la casa"], ["lacasa"]) == pytest.approx(1 / 7)


def test_folded_rate_forgives_accents_and_nothing_else() -> None:
    errors = count_errors(["el niño cantó ayer"], ["el nino canto hoy"])
    assert (errors.word_edits, errors.folded_word_edits) == (3, 1)
    assert errors.folded_wer == pytest.approx(1 / 4) and errors.wer == pytest.approx(3 / 4)


def test_empty_references_are_left_out_and_counted() -> None:
    errors = count_errors(["", "  ", "hola"], ["ruido", "más ruido", "hola"])
    assert (errors.wer, errors.utterances, errors.empty_references) == (0.0, 1, 2)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole() -> None:
    references, hypotheses = ["a b", "", "c d e"], ["a x", "y", "c e"]
    whole = count_errors(references, hypotheses)
    parts = count_errors(references[:1], hypotheses[:1]) + count_errors(references[1:], hypotheses[1:])
    assert parts == whole == ErrorCounts(*astuple(whole))


def test_rates_without_any_word_are_refused() -> None:
    with pytest.raises(MetricsError, match="none of 1 references"):
        word_error_rate([""], ["a"])
    with pytest.raises(MetricsError, match="2 hypotheses for 1 references"):
        word_error_rate(["a"], ["a", "b"])


def test_bootstrap_interval_holds_the_rate_and_repeats_with_its_seed() -> None:
    edits, words = [0, 1, 2, 0, 1] * 40, [5, 6, 7, 8, 4] * 40
    low, high = bootstrap_interval(edits, words, seed=1)
    assert low < sum(edits) / sum(words) < high
    assert (low, high) == bootstrap_interval(edits, words, seed=1) != bootstrap_interval(edits, words, seed=2)
    narrow = bootstrap_interval(edits * 16, words * 16, seed=1)
    assert (narrow[1] - narrow[0]) * 3 < high - low
    wide = bootstrap_interval(edits, words, seed=1, confidence=0.99)
    assert wide[0] < low and high < wide[1]


def test_bootstrap_interval_of_equal_utterances_is_a_point() -> None:
    assert bootstrap_interval([1, 1], [4, 4], seed=0) == (0.25, 0.25)


@pytest.mark.parametrize(("edits", "words"), [([], []), ([1], [1, 2]), ([0], [0])])
def test_bootstrap_refuses_what_it_cannot_draw_from(edits: list[int], words: list[int]) -> None:
    with pytest.raises(MetricsError):
        bootstrap_interval(edits, words, seed=0)
