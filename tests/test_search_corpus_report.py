"""What a study sees of its corpora, counted by hand, and how a person reads it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from search.config import StudyConfig
from search.corpus_report import characters, corpus_report, words
from search.estimate import Load, estimate
from search.overlap import find_overlaps
from search.vocabularies import VocabularyReport

pytestmark = pytest.mark.timeout(60)

CLIPS = [("train", "ana", "uno dos", 150), ("train", "ana", "uno", 50), ("train", "", "niño", 250),
         ("dev", "eva", "uno tres", 100), ("test", "luz", "uno tres", 120)]
"""Split, speaker, text and frames."""

BAD = [{"id": "0/x", "split": "train", "reason": "foreign_letters",
        "detail": "'die straße [bold]' holds 'ж', which 'es' cannot spell"},
       *({"id": f"0/y{i}", "split": "dev", "reason": "too_long", "detail": "30.00 s; the limits are 0.3 to 20 s"}
         for i in range(5))]

VOCABULARIES = [
    VocabularyReport(kind="characters", size=0, num_labels=34, infeasible_share=0.01, mean_labels=5.0,
                     unknown_share=0.0, error=None),
    VocabularyReport(kind="bpe", size=64, num_labels=64, infeasible_share=0.2, mean_labels=2.5, unknown_share=0.25,
                     error=None),
    VocabularyReport(kind="bpe", size=128, num_labels=0, infeasible_share=1.0, mean_labels=0.0, unknown_share=1.0,
                     error="vocabulary.size is 128; the texts give at most 70.")]


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    """Of five clips taken and six left out."""
    rows = [FeatureRow(id=f"0/{i}", split=split, speaker=speaker, text=text, duration_s=frames / 100,
                       features=np.zeros((frames, 64), dtype=np.float32))
            for i, (split, speaker, text, frames) in enumerate(CLIPS)]
    changed = {"clips": 3, "found": {"3": 3}, "examples": [{"before": "3 [x]", "after": "tres x"}]}
    write_shard(tmp_path, 0, rows, BAD, {"clips": 9, "changes": {"digits_spelled_out": changed}})
    finish_store(tmp_path, 1, {"num_clips": 11})
    store = FeatureStore(tmp_path)
    config = StudyConfig(corpus=("es.tar.gz",), source="en.nemo", budget="1h").resolved()
    load = Load(train_s=4.5, dev_s=1.0, speech_s_per_s=2.0, concurrency=2, gpus_per_trial=0.0, audio_s_per_step=60.0,
                weights_bytes=76_000_000, features_bytes=57_600, free_bytes=10**9)
    return corpus_report(config, store, VOCABULARIES, find_overlaps(store)) | {"estimate": estimate(config, load)}


def test_splits_are_measured(report: dict[str, Any]) -> None:
    train = report["splits"]["train"]
    assert (train["clips"], train["hours"], train["speakers"], train["clips_of_unknown_speakers"],
            train["sentences"]) == (3, round(4.5 / 3600, 4), 1, 1, 3)
    assert train["length_s"] == {"shortest": 0.5, "5 %": 0.6, "25 %": 1.0, "median": 1.5, "75 %": 2.0, "95 %": 2.4,
                                 "longest": 2.5}
    assert report["lengths"] == {"bin_s": 0.5, "clips": {
        "train": [0, 1, 0, 1, 0, 1], "dev": [0, 0, 1, 0, 0, 0], "test": [0, 0, 1, 0, 0, 0]}}
    assert report["overlap"]["said"] == [
        "1 sentence and 0 speakers of test are in dev too (1 of 1 clip): 'uno tres'"]


def test_empty_split_is_reported_too(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [], [])
    finish_store(tmp_path, 1, {"num_clips": 0})
    found = corpus_report(StudyConfig(corpus=("a",), source="none").resolved(), FeatureStore(tmp_path), [], [])
    assert found["splits"]["test"] == {"clips": 0, "hours": 0.0, "speakers": 0, "clips_of_unknown_speakers": 0,
                                       "sentences": 0, "length_s": {}}
    assert found["lengths"]["clips"] == {"train": [0], "dev": [0], "test": [0]}


def test_characters_are_counted_and_the_odd_ones_named() -> None:
    found = characters({"train": ["ab a", "b"], "dev": ["ax"]}, " abc", BAD)
    assert found == {"counts": {"a": 3, "b": 2, " ": 1, "x": 1}, "not_in_alphabet": {"x": 1}, "left_out": {"ж": 1},
                     "not_in_train": {"x": 1}, "never": "c"}


def test_words_of_dev_that_train_never_says_are_counted() -> None:
    assert words(["uno dos", "dos"], ["uno tres", "dos seis"]) == {"in_train": 2, "dev_unseen_share": 0.5}
    assert words(["uno"], []) == {"in_train": 1, "dev_unseen_share": 0.0}


def test_vocabulary_is_usable_within_the_study_s_limit(report: dict[str, Any]) -> None:
    assert [found["is_usable"] for found in report["vocabularies"]] == [True, False, False]


def test_clips_left_out_are_counted_by_reason_and_all_named(report: dict[str, Any]) -> None:
    assert report["left_out_by_reason"] == {"too_long": 5, "foreign_letters": 1}
    assert (report["clips_found"], report["clips_left_out"], report["left_out"]) == (11, 6, BAD)
