"""Greedy decoding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.decoding import greedy
from models.vocabulary import CharacterVocabulary

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


def test_labels_must_be_the_vocabularys() -> None:
    with pytest.raises(ValueError, match="has 4 labels; the vocabulary has 2"):
        greedy(log_probs_of("a"), torch.tensor([1]), CharacterVocabulary(("a", "b")))


def test_nemos_log_probabilities_give_nemos_text(shared_data: Path) -> None:
    reference = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    vocabulary = CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    texts = greedy(torch.from_numpy(reference["pad16_log_probs"]),
                   torch.from_numpy(reference["pad16_log_prob_lengths"]), vocabulary)
    assert texts == reference["greedy_text"].tolist()
