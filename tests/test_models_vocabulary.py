"""Vocabularies: what texts are spelled with."""

import json
import pickle
from pathlib import Path

import pytest

from corpora.languages import LANGUAGES
from corpora.text import normalise
from models.vocabulary import (
    CharacterVocabulary,
    PieceVocabulary,
    Vocabulary,
    VocabularyError,
    is_feasible,
    min_frames,
    train_vocabulary,
    vocabulary_from_bytes,
    vocabulary_to_bytes,
)
from spaces.recipe import RecipeError, VocabularyKind, VocabularyRecipe

pytestmark = pytest.mark.timeout(60)

SPANISH = LANGUAGES["es"].alphabet
KINDS: list[VocabularyKind] = ["characters", "characters_folded", "bpe", "unigram"]


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[str]:
    lines = (shared_data / "es-kokoro" / "train.jsonl").read_text().splitlines()
    return [normalise(json.loads(line)["text"], LANGUAGES["es"]) for line in lines[:400]]


def trained(kind: VocabularyKind, texts: list[str], size: int = 128) -> Vocabulary:
    return train_vocabulary(VocabularyRecipe(kind=kind, size=size if kind in ("bpe", "unigram") else 0), texts, SPANISH)


@pytest.mark.parametrize("kind", ["characters", "bpe", "unigram"])
def test_every_training_text_survives_encoding(kind: VocabularyKind, texts: list[str]) -> None:
    vocabulary = trained(kind, texts)
    for text in texts:
        labels = vocabulary.encode(text)
        assert all(0 <= label < vocabulary.size for label in labels)
        assert vocabulary.decode(labels) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_have_the_asked_size_and_spell_every_seen_letter(kind: VocabularyKind, texts: list[str]) -> None:
    vocabulary = trained(kind, texts)
    assert vocabulary.size == vocabulary.blank == len(vocabulary.labels) == 128
    for letter in set("".join(texts)) & set(SPANISH) - {" "}:
        assert vocabulary.decode(vocabulary.encode(letter)) == letter


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_same_texts_in_any_order_give_the_same_bytes(kind: VocabularyKind, texts: list[str]) -> None:
    assert vocabulary_to_bytes(trained(kind, texts)) == vocabulary_to_bytes(trained(kind, texts[::-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_survives_bytes_and_pickle(kind: VocabularyKind, texts: list[str]) -> None:
    vocabulary = trained(kind, texts)
    for copy in (vocabulary_from_bytes(vocabulary_to_bytes(vocabulary)), pickle.loads(pickle.dumps(vocabulary))):
        assert copy == vocabulary and copy.labels == vocabulary.labels and copy.kind == kind
        assert copy.encode("mañana será jueves") == vocabulary.encode("mañana será jueves")


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_characters_are_dropped_cleanly(kind: VocabularyKind, texts: list[str]) -> None:
    vocabulary = trained(kind, texts)
    assert vocabulary.encode("el 漢字 perro№") == vocabulary.encode("el perro")
    assert vocabulary.encode("漢字 …") == vocabulary.encode("") == []


def test_folded_characters_spell_without_accents() -> None:
    vocabulary = trained("characters_folded", [])
    assert vocabulary.labels == tuple(" abcdefghijklmnopqrstuvwxyz")
    assert vocabulary.decode(vocabulary.encode("el pingüino niño cantó")) == "el pinguino nino canto"


def test_characters_are_the_alphabets_whatever_the_texts_hold() -> None:
    assert trained("characters", ["a"]).labels == tuple(SPANISH)


@pytest.mark.parametrize(("kind", "size", "bound"), [("bpe", 8000, "at most"), ("unigram", 8000, "at most"),
                                                     ("bpe", 32, "at least"), ("unigram", 32, "at least")])
def test_impossible_size_names_a_limit_that_works(kind: VocabularyKind, size: int, bound: str,
                                                  texts: list[str]) -> None:
    with pytest.raises(VocabularyError, match=f"vocabulary.size is {size}.* {bound} \\d+") as failure:
        trained(kind, texts, size)
    limit = int(str(failure.value).split(bound)[1].split(".")[0])
    assert trained(kind, texts, limit).size == limit


@pytest.mark.parametrize("empty", [[], ["", "  "], ["漢字"]])
def test_pieces_without_text_are_refused(empty: list[str]) -> None:
    with pytest.raises(VocabularyError, match="no character of the alphabet"):
        trained("bpe", empty)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"kind": "bpe", "model": "AAAA"}', b"[1]",
                                     b'{"kind": "characters", "labels": ["ab"]}'])
def test_bytes_that_are_no_vocabulary_are_refused(content: bytes) -> None:
    with pytest.raises(VocabularyError):
        vocabulary_from_bytes(content)


def test_labels_must_be_distinct_single_characters() -> None:
    for labels in ((), ("a", "a"), ("ab",)):
        with pytest.raises(VocabularyError, match="distinct single characters"):
            CharacterVocabulary(labels)


def test_unknown_piece_is_never_spelled_nor_read(texts: list[str]) -> None:
    vocabulary = trained("bpe", texts)
    assert isinstance(vocabulary, PieceVocabulary) and vocabulary.labels[0] == "<unk>"
    assert 0 not in {label for text in texts for label in vocabulary.encode(text)}
    assert vocabulary.decode([0, *vocabulary.encode("sí"), 0]) == "sí"


def test_feasibility_counts_a_blank_between_equal_neighbours() -> None:
    labels = trained("characters", []).encode("calle roja")
    assert min_frames(labels) == 11
    assert is_feasible(labels, 11) and not is_feasible(labels, 10)
    assert min_frames([]) == 0


def test_kind_without_a_branch_is_refused_by_name() -> None:
    unbuilt = VocabularyRecipe(kind="bpe", size=64)
    object.__setattr__(unbuilt, "kind", "word")
    with pytest.raises(RecipeError, match=r"^vocabulary\.kind is 'word'; it must be one that models/vocabulary\.py"):
        train_vocabulary(unbuilt, ["hola"], SPANISH)


@pytest.mark.parametrize("kind", ["latin", None, ["characters"]])
def test_stored_vocabulary_of_another_kind_is_refused(kind: object) -> None:
    with pytest.raises(VocabularyError, match="bytes are not a stored vocabulary"):
        vocabulary_from_bytes(json.dumps({"kind": kind, "labels": ["a", "b"]}).encode())
