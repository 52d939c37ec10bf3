"""Error rates as corpus ratios: all edits over all words, never an average of utterances or batches."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np
from rapidfuzz.distance import Levenshtein

from corpora.text import fold_accents

NUM_RESAMPLES = 2000
"""Bootstrap resamples: the ends of a 95 % interval then rest on 50 of them each."""


class MetricsError(ValueError):
    """References and hypotheses that no error rate can be computed from."""


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edits and lengths of a set of utterances; sums of counts are the counts of the union.

    All fields are whole numbers, so that `astuple` can be summed over workers and `ErrorCounts(*sums)` built again.
    """

    word_edits: int = 0
    """Words inserted, deleted and substituted."""
    words: int = 0
    """Words of the references."""
    char_edits: int = 0
    """The same for characters, spaces included."""
    chars: int = 0
    """Characters of the references, spaces included."""
    folded_word_edits: int = 0
    """Word edits that are left when accents are folded on both sides."""
    utterances: int = 0
    """Utterances that were counted."""
    empty_references: int = 0
    """Utterances left out because their reference holds no word."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def wer(self) -> float:
        """Word error rate: word edits over words; above 1 where words are inserted."""
        return self._ratio(self.word_edits, self.words)

    @property
    def cer(self) -> float:
        """Character error rate: character edits over characters."""
        return self._ratio(self.char_edits, self.chars)

    @property
    def folded_wer(self) -> float:
        """Word error rate that forgives accents: á for a, ñ for n, ü for u."""
        return self._ratio(self.folded_word_edits, self.words)

    def _ratio(self, edits: int, total: int) -> float:
        if total == 0:
            raise MetricsError(f"none of {self.empty_references} references holds a word; an error rate needs one.")
        return edits / total


def utterance_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count the errors of one utterance."""
    words = reference.split()
    if not words:
        return ErrorCounts(empty_references=1)
    folded_edits = Levenshtein.distance(fold_accents(reference).split(), fold_accents(hypothesis).split())
    return ErrorCounts(
        word_edits=Levenshtein.distance(words, hypothesis.split()), words=len(words),
        char_edits=Levenshtein.distance(reference, hypothesis), chars=len(reference),
        folded_word_edits=folded_edits, utterances=1)


def count_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count the errors of a set of utterances.

    Raises:
        MetricsError: not as many hypotheses as references.
    """
    if len(references) != len(hypotheses):
        raise MetricsError(f"{len(hypotheses)} hypotheses for {len(references)} references; they must be as many.")
    return sum(map(utterance_errors, references, hypotheses), start=ErrorCounts())


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word edits over words of the whole corpus; utterances with an empty reference are left out.

    Raises:
        MetricsError: not as many hypotheses as references, or no reference holds a word.
    """
    return count_errors(references, hypotheses).wer


def char_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character edits over characters of the whole corpus, spaces included.

    Raises:
        MetricsError: not as many hypotheses as references, or no reference holds a word.
    """
    return count_errors(references, hypotheses).cer


def bootstrap_interval(edits: Sequence[int], words: Sequence[int], seed: int,
                       confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the word error rate when the utterances are drawn again with replacement.

    `edits` and `words` are one number for each utterance that has words.

    Raises:
        MetricsError: not as many edits as words, no utterance, one without words, a confidence outside (0, 1).

    Source: Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, 2004.
    """
    if len(edits) != len(words) or not len(words) or min(words) < 1:
        raise MetricsError(f"{len(edits)} edits and {len(words)} word counts, the least {min(words, default=0)}; "
                           "they must be as many, one pair at least, and every utterance needs a word.")
    if not 0 < confidence < 1:
        raise MetricsError(f"confidence is {confidence}; it must be in (0, 1).")
    counts = np.array([edits, words], dtype=np.int64)
    generator = np.random.default_rng(seed)
    rates = np.empty(NUM_RESAMPLES)
    for resample in range(NUM_RESAMPLES):
        drawn = counts[:, generator.integers(len(words), size=len(words))].sum(axis=1)
        rates[resample] = drawn[0] / drawn[1]
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_difference(edits_a: Sequence[int], edits_b: Sequence[int], words: Sequence[int], seed: int,
                         confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of WER a minus WER b on the same utterances, drawn again in pairs.

    An interval that holds 0 is a tie within noise. Source: as for `bootstrap_interval`.
    """
    counts = np.array([edits_a, edits_b, words], dtype=np.int64)
    generator = np.random.default_rng(seed)
    differences = np.empty(NUM_RESAMPLES)
    for resample in range(NUM_RESAMPLES):
        drawn = counts[:, generator.integers(len(words), size=len(words))].sum(axis=1)
        differences[resample] = (drawn[0] - drawn[1]) / drawn[2]
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)
