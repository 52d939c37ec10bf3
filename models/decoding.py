"""From log-probabilities to text, and to words with times and confidence."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A recognised word."""

    text: str
    """As the vocabulary spells it."""
    start_s: float
    """Seconds from the start of the clip to the first frame of its first label."""
    end_s: float
    """Seconds to the end of the last frame of its last label. CTC labels are short: the word itself may last longer."""
    confidence: float
    """Mean posterior of the word's labels, over all frames in which each is the likeliest; in (0, 1]."""


def greedy(log_probs: Tensor, lengths: Tensor, vocabulary: Vocabulary) -> list[str]:
    """The text of each utterance from the likeliest label of each frame: repeats collapse, then blanks are removed.

    `log_probs` is (batch, frames, labels + blank) and `lengths` (batch,) its valid frames.

    Raises:
        ValueError: `log_probs` does not have one label more than the vocabulary.

    Source: Graves et al., Connectionist Temporal Classification, 2006, section 3.2.
    """
    if log_probs.shape[-1] != vocabulary.size + 1:
        raise ValueError(f"log_probs has {log_probs.shape[-1]} labels; the vocabulary has {vocabulary.size}, "
                         "and one more for the blank.")
    best = log_probs.argmax(dim=-1)
    frames = torch.arange(best.shape[1], device=best.device)
    is_kept = (best != vocabulary.blank) & (frames < lengths[:, None])
    is_kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    kept, counts = best[is_kept].tolist(), is_kept.sum(dim=1).tolist()
    texts, start = [], 0
    for count in counts:
        texts.append(vocabulary.decode(kept[start:start + count]))
        start += count
    return texts


def spell(labels: npt.NDArray[np.int64], posteriors: npt.NDArray[np.float32], vocabulary: Vocabulary,
          start: int, frame_s: float) -> Iterator[Word]:
    """The words of a stretch of audio, from the likeliest label of each frame and its posterior, both (frames,).

    Joined by spaces they equal what `greedy` returns. `start` is the first frame's index in the clip, `frame_s` the
    seconds per frame.

    Source of the confidence: "maximum probability", its mean over the frames that are not blank, in Laptev and
    Ginsburg, Fast Entropy-Based Methods of Word-Level Confidence Estimation, 2022 (arXiv 2212.08703).
    """
    borders = np.flatnonzero(np.diff(labels, prepend=-1, append=-1))
    text = ""
    frames: list[tuple[int, int]] = []  # start and end of the labels that spell `text`

    def word() -> Word:
        heard = np.concatenate([posteriors[first:last] for first, last in frames])
        return Word(text=text, start_s=(start + frames[0][0]) * frame_s, end_s=(start + frames[-1][1]) * frame_s,
                    confidence=float(heard.mean()))

    for first, last in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        if labels[first] == vocabulary.blank:
            continue
        for number, part in enumerate(vocabulary.texts[labels[first]].split(" ")):
            if number and text:  # there was a space before this part
                yield word()
                text, frames = "", []
            if part:
                text += part
                frames.append((first, last))
    if text:
        yield word()
