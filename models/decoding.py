"""From log-probabilities to text."""

import torch
from torch import Tensor

from models.vocabulary import Vocabulary


def greedy(log_probs: Tensor, lengths: Tensor, vocabulary: Vocabulary) -> list[str]:
    """The text of each utterance by the likeliest label of each frame: repeats collapse, then blanks go.

    `log_probs` is (batch, frames, labels + blank) and `lengths` (batch,) its valid frames.

    Raises:
        ValueError: the labels of `log_probs` are not the vocabulary's and the blank.

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
