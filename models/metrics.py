"""Error rates as corpus ratios: all edits over all words, never an average of utterances or batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np
from rapidfuzz.distance import Levenshtein

from corpora.text import fold_accents

NUM_RESAMPLES = 2000
"""Bootstrap resamples; each end of a 95 % interval then rests on 50 of them."""

MIN_UTTERANCES = 20
"""With fewer utterances that hold words, no interval is given."""

_CHUNK = 64
"""Resamples computed at once; 15,000 utterances then take 8 MB."""


class MetricsError(ValueError):
    """References and hypotheses from which no error rate can be computed."""


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edits and lengths of a set of utterances; sums of counts are the counts of the union.

    All fields are integers, so that `astuple` can be summed over workers and rebuilt as `ErrorCounts(*sums)`.
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
    """Word edits that remain when accents are folded on both sides."""
    utterances: int = 0
    """Utterances that were counted."""
    empty_references: int = 0
    """Utterances left out because their reference holds no word."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def wer(self) -> float:
        """Word error rate: word edits over words; insertions can take it above 1."""
        return self._ratio(self.word_edits, self.words)

    @property
    def cer(self) -> float:
        """Character error rate: character edits over characters."""
        return self._ratio(self.char_edits, self.chars)

    @property
    def folded_wer(self) -> float:
        """Word error rate that ignores accents: á for a, ñ for n, ü for u."""
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
        raise MetricsError(f"{len(hypotheses)} hypotheses for {len(references)} references; the numbers must match.")
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


def is_collapsed(references: Sequence[str], hypotheses: Sequence[str]) -> bool:
    """Whether transcripts say nothing about their own clips: silence, or the same few letters whatever is spoken.

    Each clip is compared with the transcript of the next longer clip too. If its own transcript does not have clearly
    fewer character edits (by two standard errors of the mean), the transcripts could be exchanged. References without
    a word are left out, and so are pairs of the same sentence; with no pair left, only silence counts.

    Raises:
        MetricsError: not as many hypotheses as references.
    """
    if len(references) != len(hypotheses):
        raise MetricsError(f"{len(hypotheses)} hypotheses for {len(references)} references; the numbers must match.")
    spoken = sorted((i for i, text in enumerate(references) if text.split()),
                    key=lambda i: (len(references[i]), references[i]))
    pairs = [(i, j) for i, j in zip(spoken, spoken[1:] + spoken[:1], strict=True) if references[i] != references[j]]
    if not pairs:
        return not any(text.split() for text in hypotheses)
    gains = np.array([Levenshtein.distance(references[i], hypotheses[j])
                      - Levenshtein.distance(references[i], hypotheses[i]) for i, j in pairs], dtype=np.float64)
    return bool(gains.mean() <= 2 * gains.std() / np.sqrt(len(gains)))


def word_edits(references: Sequence[str], hypotheses: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Word edits of several sets of hypotheses, (sets, utterances), and words of the references, (utterances,).

    Utterances without a word are left out.

    Raises:
        MetricsError: not as many hypotheses as references.
    """
    return _edits(references, hypotheses, str.split)


def char_edits(references: Sequence[str], hypotheses: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """The same for characters, spaces included."""
    return _edits(references, hypotheses, str)


EDITS = {"wer": word_edits, "cer": char_edits}
"""By the error rate that is their ratio."""


def _edits(references: Sequence[str], hypotheses: Sequence[Sequence[str]],
           units: Callable[[str], Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    for texts in hypotheses:
        if len(texts) != len(references):
            raise MetricsError(f"{len(texts)} hypotheses for {len(references)} references; the numbers must match.")
    kept = [i for i, reference in enumerate(references) if reference.split()]
    spoken = [units(references[i]) for i in kept]
    edits = [[Levenshtein.distance(said, units(texts[i])) for i, said in zip(kept, spoken, strict=True)]
             for texts in hypotheses]
    return np.array(edits, dtype=np.int64).reshape(len(edits), len(kept)), np.array([len(said) for said in spoken])


def bootstrap_interval(edits: np.ndarray, words: np.ndarray, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean word error rate over seeds, resampling utterances and seeds.

    `edits` has shape (seeds, utterances), `words` (utterances,); characters work too. With one seed it covers only the
    choice of utterances; with two or three it is too narrow if seeds differ more than utterances do, for it cannot
    reach beyond the seeds at hand. Utterances are treated as independent, though those of one speaker are not. None
    with fewer than MIN_UTTERANCES.

    Raises:
        MetricsError: the shapes do not match, or an utterance has no words.

    Source: Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance evaluation, 2004.
    """
    return bootstrap_difference(edits, np.zeros((1, len(words)), dtype=np.int64), words, seed)


def bootstrap_difference(edits_a: np.ndarray, edits_b: np.ndarray, words: np.ndarray,
                         seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of WER a minus WER b, each the mean over its seeds.

    Each resample draws the same utterances for both, and seeds of each. An interval that contains 0 is a tie within
    noise. Shapes, errors and source as in `bootstrap_interval`; the numbers of seeds may differ.
    """
    for edits in (edits_a, edits_b):
        if edits.ndim != 2 or not len(edits) or edits.shape[1:] != words.shape:
            raise MetricsError(f"edits of shape {edits.shape} for words of shape {words.shape}; they must be "
                               "(seeds, utterances) and (utterances,), with one seed at least.")
    if words.min(initial=1) < 1:
        raise MetricsError("an utterance has no word; leave it out.")
    if len(words) < MIN_UTTERANCES:
        return None
    generator = np.random.default_rng(seed)
    columns = np.vstack([edits_a, edits_b, words]).T.astype(np.float64)
    sums = np.concatenate([drawn @ columns for drawn in _draws(len(words), generator)])
    rates = sums[:, :-1] / sums[:, -1:]
    split = len(edits_a)
    differences = _redrawn_mean(rates[:, :split], generator) - _redrawn_mean(rates[:, split:], generator)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def resampled_rates(edits: np.ndarray, words: np.ndarray, seed: int) -> np.ndarray | None:
    """Error rates of several trainings on the same resampled utterances, (resamples, trainings).

    `edits` has shape (trainings, utterances), `words` (utterances,). None with fewer than MIN_UTTERANCES.
    """
    if len(words) < MIN_UTTERANCES:
        return None
    columns = np.vstack([edits, words]).T.astype(np.float64)
    sums = np.concatenate([drawn @ columns for drawn in _draws(len(words), np.random.default_rng(seed))])
    return np.asarray(sums[:, :-1] / sums[:, -1:])


def selection_optimism(edits: np.ndarray, words: np.ndarray, seed: int) -> float | None:
    """How optimistic the error rate of the best of several recipes is on the utterances that it was selected on.

    `edits` has shape (recipes, utterances), `words` (utterances,). In each resample, the recipe with the lowest word
    error rate on the drawn utterances is compared, on the utterances not drawn, with the recipe that is best on all;
    the result is the mean difference. None with fewer than two recipes or MIN_UTTERANCES.

    Source: the bootstrap bias correction of cross-validation (BBC-CV) of Tsamardinos, Greasidou and Borboudakis, 2018,
    minus the best recipe's rate on all; comparing both on the same utterances keeps the mean and halves the noise.
    """
    if len(edits) < 2 or len(words) < MIN_UTTERANCES:
        return None
    generator = np.random.default_rng(seed)
    columns, best = edits.T.astype(np.float64), edits.sum(axis=1).argmin()
    gaps = []
    for drawn in _draws(len(words), generator):
        chosen = (drawn @ columns).argmin(axis=1)
        rest = (drawn == 0).astype(np.float64)
        edits_of_rest = rest @ columns
        gaps.append((edits_of_rest[np.arange(len(rest)), chosen] - edits_of_rest[:, best]) / (rest @ words))
    return float(np.concatenate(gaps).mean())


def _draws(num_utterances: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each utterance is drawn: NUM_RESAMPLES rows in chunks of shape (resamples, utterances)."""
    for first in range(0, NUM_RESAMPLES, _CHUNK):
        size = min(_CHUNK, NUM_RESAMPLES - first)
        drawn = generator.integers(num_utterances, size=(size, num_utterances))
        drawn += np.arange(size)[:, None] * num_utterances
        counts = np.bincount(drawn.ravel(), minlength=size * num_utterances)
        yield counts.reshape(size, num_utterances).astype(np.float64)


def _redrawn_mean(rates: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mean over seeds, resampled in each row: (resamples, seeds) -> (resamples,).

    Draws one seed fewer than there are: drawing all would make the variance of the mean too small, with two seeds by
    half.

    Source: Rao and Wu, Resampling inference with complex survey data, 1988.
    """
    num_seeds = rates.shape[1]
    seeds = generator.integers(num_seeds, size=(len(rates), max(1, num_seeds - 1)))
    return np.asarray(np.take_along_axis(rates, seeds, axis=1).mean(axis=1))
