"""The labels of the CTC decoder: characters, or SentencePiece pieces trained on the training text."""

import base64
import io
import json
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from corpora.text import fold_accents
from spaces.recipe import VocabularyKind, VocabularyRecipe, unknown_choice

PieceKind = Literal["bpe", "unigram"]

WORD_START = "▁"
"""SentencePiece's mark for the space before a word (U+2581)."""


class VocabularyError(ValueError):
    """A vocabulary that cannot be trained, read or used."""


@dataclass(frozen=True)
class _Labelled:
    """What both kinds share; the blank is one past the last label."""

    labels: tuple[str, ...]
    """The label of each index, without the blank."""
    texts: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """What each label adds to a text, with a space where it starts or ends a word."""

    @property
    def size(self) -> int:
        """Number of labels, without the blank."""
        return len(self.labels)

    @property
    def blank(self) -> int:
        """Index of the CTC blank, which is the last."""
        return len(self.labels)

    def decode(self, label_ids: Sequence[int]) -> str:
        """Join labels, with repeats and blanks already removed, to words with single spaces."""
        return " ".join("".join(self.texts[label_id] for label_id in label_ids).split())


@dataclass(frozen=True)
class CharacterVocabulary(_Labelled):
    """One label per character."""

    fold: bool = False
    """Fold accents before encoding, so that á is spelled a and ñ is spelled n."""
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        odd = [label for label in self.labels if len(label) != 1]
        if not self.labels or odd or len(set(self.labels)) != len(self.labels):
            raise VocabularyError(f"labels are {self.labels!r}; they must be distinct single characters.")
        object.__setattr__(self, "texts", self.labels)
        object.__setattr__(self, "_ids", {label: label_id for label_id, label in enumerate(self.labels)})

    @property
    def kind(self) -> VocabularyKind:
        """`characters_folded` if accents are folded, else `characters`."""
        return "characters_folded" if self.fold else "characters"

    def encode(self, text: str) -> list[int]:
        """Spell a normalised text; characters without a label are dropped."""
        text = fold_accents(text) if self.fold else text
        return [self._ids[char] for char in _keep(text, self._ids)]


@dataclass(frozen=True)
class PieceVocabulary(_Labelled):
    """SentencePiece pieces at the model's own indices; `<unk>` keeps its index, but spells no text."""

    model_proto: bytes = field(repr=False)
    """The trained SentencePiece model, as `tokenizer.model` holds it."""
    kind: PieceKind
    """The algorithm it was trained with."""
    labels: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _processor: Any = field(init=False, repr=False, compare=False)
    _spellable: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in ("bpe", "unigram"):
            raise VocabularyError(f"kind is {self.kind!r}; pieces must be bpe or unigram.")
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self.model_proto)
            label_ids = range(processor.get_piece_size())
        except RuntimeError as error:
            raise VocabularyError(f"{len(self.model_proto)} bytes are not a SentencePiece model ({error}).") from error
        labels = tuple(processor.id_to_piece(label_id) for label_id in label_ids)
        is_silent = [processor.is_unknown(label_id) or processor.is_control(label_id) for label_id in label_ids]
        texts = tuple("" if silent else label.replace(WORD_START, " ")
                      for label, silent in zip(labels, is_silent, strict=True))
        object.__setattr__(self, "_processor", processor)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "_spellable", frozenset(text for text in texts if len(text) == 1) | {" "})

    def encode(self, text: str) -> list[int]:
        """Spell a normalised text; characters in no piece are dropped."""
        label_ids: list[int] = self._processor.encode(_keep(text, self._spellable))
        return label_ids


Vocabulary = CharacterVocabulary | PieceVocabulary
"""What a text is spelled with."""


def train_vocabulary(recipe: VocabularyRecipe, texts: Iterable[str], alphabet: str) -> Vocabulary:
    """Make the vocabulary of a recipe from the normalised texts of the training split.

    The same texts in any order give the same vocabulary, byte for byte. Characters are those of the alphabet, whatever
    the texts hold; pieces can spell every character of the alphabet in the texts.

    Raises:
        VocabularyError: no text, or too many or too few pieces for the texts; the message names the limit.
        RecipeError: there is no branch for the recipe's kind.
    """
    match recipe.kind:
        case "characters":
            return CharacterVocabulary(tuple(alphabet))
        case "characters_folded":
            return CharacterVocabulary(tuple(dict.fromkeys(fold_accents(alphabet))), fold=True)
        case "bpe" | "unigram":
            letters = frozenset(alphabet) | {" "}
            kept = sorted(filter(None, (_keep(text, letters) for text in texts)))
            if not kept:
                raise VocabularyError("the training texts hold no character of the alphabet; pieces are trained on "
                                      "text.")
            return PieceVocabulary(_train_pieces(kept, recipe.kind, recipe.size), recipe.kind)
        case other:
            raise unknown_choice("vocabulary.kind", other, "models/vocabulary.py")


def vocabulary_to_bytes(vocabulary: Vocabulary) -> bytes:
    """Everything `vocabulary_from_bytes` needs; equal vocabularies give equal bytes."""
    if isinstance(vocabulary, PieceVocabulary):
        content = {"kind": vocabulary.kind, "model": base64.b64encode(vocabulary.model_proto).decode()}
        return json.dumps(content, sort_keys=True).encode()
    return json.dumps({"kind": vocabulary.kind, "labels": vocabulary.labels}, sort_keys=True).encode()


def vocabulary_from_bytes(content: bytes) -> Vocabulary:
    """Read what `vocabulary_to_bytes` returned.

    Raises:
        VocabularyError: the bytes are not a vocabulary.
    """
    try:
        values = json.loads(content)
        if "model" in values:
            return PieceVocabulary(base64.b64decode(values["model"]), values["kind"])
        fold = {"characters": False, "characters_folded": True}[values["kind"]]
        return CharacterVocabulary(tuple(values["labels"]), fold=fold)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(f"{len(content)} bytes are not a stored vocabulary ({error}).") from error


def min_frames(label_ids: Sequence[int]) -> int:
    """Frames that CTC needs for these labels: one each, and one for a blank between equal neighbours."""
    return len(label_ids) + sum(a == b for a, b in zip(label_ids, label_ids[1:], strict=False))


def is_feasible(label_ids: Sequence[int], num_frames: int) -> bool:
    """Whether CTC can spell the labels in `num_frames` frames after the encoder's stride; if not, the loss is inf."""
    return num_frames >= min_frames(label_ids)


def _keep(text: str, known: Container[str]) -> str:
    """The known characters of `text`, in words with single spaces."""
    return " ".join("".join(char if char in known else "" for char in text).split())


def _train_pieces(texts: list[str], kind: PieceKind, size: int) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, model_type=kind, vocab_size=size,
            hard_vocab_limit=True, character_coverage=1.0, normalization_rule_name="identity",
            unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,  # as in NeMo's CTC tokenizers
            shuffle_input_sentence=False, num_threads=1, minloglevel=3)
    except RuntimeError as error:
        raise VocabularyError(_size_error(str(error), kind, size, len(texts))) from error
    return model.getvalue()


def _size_error(message: str, kind: PieceKind, size: int, num_texts: int) -> str:
    """What is wrong with a number of pieces, from SentencePiece's message."""
    limits = {"at most": r"too high .* <= (\d+)", "at least": rf"required_chars\. {size} vs (\d+)"}
    for bound, pattern in limits.items():
        if found := re.search(pattern, message):
            return (f"vocabulary.size is {size}; {kind} pieces of these {num_texts} training texts must be {bound} "
                    f"{found[1]}. Change the size, or train characters.")
    return f"vocabulary.size is {size}; SentencePiece cannot train {kind} pieces on {num_texts} texts: {message}"


def vocabulary_path(folder: Path, recipe: VocabularyRecipe) -> Path:
    """Where a recipe's vocabulary is stored."""
    return folder / f"{recipe.kind}-{recipe.size}.json"


def load_vocabulary(folder: Path, recipe: VocabularyRecipe) -> Vocabulary:
    """Read a vocabulary that `prepare_vocabularies` wrote."""
    return vocabulary_from_bytes(vocabulary_path(folder, recipe).read_bytes())
