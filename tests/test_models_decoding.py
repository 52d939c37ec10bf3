"""Greedy decoding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.decoding import Word, greedy, spell
from models.vocabulary import CharacterVocabulary, Vocabulary, train_vocabulary
from spaces.recipe import VocabularyKind, VocabularyRecipe

pytestmark = pytest.mark.timeout(30)

VOCABULARY = CharacterVocabulary(tuple(" ab"))


def log_probs_of(*frames: str) -> torch.Tensor:
    """Likeliest labels spelled with `_` for the blank, to log-probabilities (batch, frames, 4)."""
    labels = torch.tensor([[" ab_".index(label) for label in row] for row in frames])
    return torch.nn.functional.one_hot(labels, 4).float().mul(5).log_softmax(-1)


def test_repeats_collapse_unless_a_blank_parts_them() -> None:
    log_probs = log_probs_of("aa_abb", "_a__a_", "______")
    assert greedy(log_probs, torch.tensor([6, 6, 6]), VOCABULARY) == ["aab", "aa", ""]


def test_frames_past_the_length_are_not_read() -> None:
    assert greedy(log_probs_of("abab", "abab"), torch.tensor([2, 0]), VOCABULARY) == ["ab", ""]


def test_outer_and_repeated_spaces_are_dropped() -> None:
    assert greedy(log_probs_of(" a _ b "), torch.tensor([7]), VOCABULARY) == ["a b"]


def words_of(labels: list[int], posteriors: list[float], vocabulary: Vocabulary, start: int = 0) -> list[Word]:
    return list(spell(np.array(labels), np.array(posteriors, np.float32), vocabulary, start, 0.02))


def test_word_has_the_frames_of_its_labels_and_their_mean_posterior() -> None:
    labels = [" ab_".index(label) for label in "__aa_a__ _b"]
    posteriors = [1, 1, 0.9, 0.7, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.25]
    first, second = words_of(labels, posteriors, VOCABULARY, start=100)
    assert (first.text, second.text) == ("aa", "b")
    assert (first.start_s, first.end_s) == pytest.approx((2.04, 2.12))
    assert (second.start_s, second.end_s) == pytest.approx((2.2, 2.22))
    assert first.confidence == pytest.approx(0.7) and second.confidence == 0.25
    assert words_of([3, 3, 0, 3], [1] * 4, VOCABULARY) == [] == words_of([], [], VOCABULARY)


def vocabulary_of(kind: VocabularyKind) -> Vocabulary:
    texts = ["la casa de la loma", "dale la mano al mono", "lo malo de la cama", "el lodo del camino",
             "enciende la luz de la cocina", "apaga la radio del salon", "sube el volumen de la musica"]
    size = 0 if kind == "characters" else 40
    return train_vocabulary(VocabularyRecipe(kind=kind, size=size), texts, " abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize("kind", ["characters", "bpe", "unigram"])
def test_words_are_those_of_greedy_whatever_the_labels(kind: VocabularyKind) -> None:
    vocabulary = vocabulary_of(kind)
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(20, 90, vocabulary.size + 1, generator=generator).mul(3).log_softmax(-1)
    likeliest, labels = log_probs.max(-1)
    heard = greedy(log_probs, torch.full((20,), 90), vocabulary)
    for text, row, posteriors in zip(heard, labels, likeliest.exp(), strict=True):
        words = list(spell(row.numpy(), posteriors.numpy(), vocabulary, 0, 0.02))
        assert " ".join(word.text for word in words) == text and words
        assert all(0 <= word.start_s < word.end_s <= 1.8 and 0 < word.confidence <= 1 for word in words)
        assert all(before.end_s <= after.start_s for before, after in zip(words, words[1:], strict=False))


def test_piece_with_a_mark_begins_a_word() -> None:
    vocabulary = vocabulary_of("bpe")
    spelled = vocabulary.encode("la loma")
    frames = [label for label_id in spelled for label in (label_id, label_id, vocabulary.blank)]
    first, second = words_of(frames, [0.5] * len(frames), vocabulary)
    num_first = len(vocabulary.encode("la"))
    assert (first.text, first.start_s, first.end_s) == ("la", 0, pytest.approx((3 * num_first - 1) * 0.02))
    assert (second.text, second.start_s) == ("loma", pytest.approx(3 * num_first * 0.02))


def test_labels_must_be_the_vocabularys() -> None:
    with pytest.raises(ValueError, match="has 4 labels; the vocabulary has 2"):
        greedy(log_probs_of("a"), torch.tensor([1]), CharacterVocabulary(("a", "b")))


def test_nemos_log_probabilities_give_nemos_text(shared_data: Path) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    vocabulary = CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    texts = greedy(torch.from_numpy(reference["pad16_log_probs"]),
                   torch.from_numpy(reference["pad16_log_prob_lengths"]), vocabulary)
    assert texts == reference["greedy_text"].tolist()
