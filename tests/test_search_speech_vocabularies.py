"""What is said of a vocabulary before any trial tries it."""

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.languages import SPANISH
from models.vocabulary import load_vocabulary, vocabulary_path
from search.records.files import write_json
from search.speech import vocabularies
from spaces.recipe import VocabularyRecipe

pytestmark = pytest.mark.timeout(60)

LONG = "la mesa grande de la casa verde del abuelo que llamaba a todos"

CHARACTERS = VocabularyRecipe(kind="characters")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Three clips to train on, of which the last is said in too few frames, and one of dev with letters of its own."""
    clips = [("train", "casa", 20), ("train", LONG, 400), ("train", "llama", 10), ("dev", "kiwi ya", 40)]
    rows = [FeatureRow(id=f"0/{i}", split=split, speaker="", text=text, duration_s=frames / 100,
                       features=np.zeros((frames, 64), dtype=np.float32))
            for i, (split, text, frames) in enumerate(clips)]
    write_shard(tmp_path / "store", 0, rows, [])
    finish_store(tmp_path / "store", 1, {"num_clips": 4})
    return FeatureStore(tmp_path / "store")


def make(store: FeatureStore, recipe: VocabularyRecipe) -> vocabularies.VocabularyReport:
    """As the Ray task does."""
    report: vocabularies.VocabularyReport = vocabularies._make_vocabulary._function(
        store.folder, recipe, SPANISH.alphabet, 2, store.folder)
    return report


def test_characters_spell_all_and_a_clip_that_is_too_short_is_counted(store: FeatureStore) -> None:
    """`llama` needs 5 frames and a blank in 5."""
    found = make(store, CHARACTERS)
    assert (found.num_labels, found.error, found.unknown_share) == (34, None, 0.0)
    assert found.infeasible_share == pytest.approx(1 / 3)
    assert found.mean_labels == pytest.approx((4 + len(LONG) + 5) / 3)


def test_letters_of_dev_that_no_piece_can_spell_are_counted(store: FeatureStore) -> None:
    """Train has no k, i, w or y: 5 of the 6 letters of `kiwi ya`."""
    recipe = VocabularyRecipe(kind="bpe", size=32)
    found = make(store, recipe)
    assert found.error is None and found.unknown_share == pytest.approx(5 / 6)
    assert 1.0 < found.mean_labels < (9 + len(LONG)) / 3
    assert load_vocabulary(store.folder, recipe).size == found.num_labels


def test_vocabulary_that_cannot_be_made_says_why(store: FeatureStore) -> None:
    found = make(store, VocabularyRecipe(kind="bpe", size=1024))
    assert found.error and "1024" in found.error and (found.infeasible_share, found.unknown_share) == (1.0, 1.0)


def test_kept_report_is_taken_unless_an_earlier_version_wrote_it(store: FeatureStore) -> None:
    path = vocabulary_path(store.folder, CHARACTERS).with_suffix(".report.json")
    made = make(store, CHARACTERS)
    write_json(path, asdict(made) | {"num_labels": 7})
    assert make(store, CHARACTERS).num_labels == 7
    write_json(path, {"kind": "characters", "size": 0, "num_labels": 7, "infeasible_share": 0.0, "error": None})
    assert make(store, CHARACTERS) == made


def test_two_studies_may_make_the_same_vocabulary_at_once(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one makes it from beginning to end while the first has each file written, and not yet in its place."""
    replace = os.replace

    def interrupted(aside: Path, path: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        make(store, CHARACTERS)
        replace(aside, path)

    monkeypatch.setattr(os, "replace", interrupted)
    made = make(store, CHARACTERS)
    assert load_vocabulary(store.folder, CHARACTERS).size == made.num_labels == 34
    assert make(store, CHARACTERS) == made and not list(store.folder.glob("*.part"))
