"""What splits share is found whoever named it, named in one line, and refused only where it flatters test."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpora.common_voice import read_tarball
from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.languages import language
from corpora.manifest import CorpusError
from corpora.synthetic import _plan
from corpora.text import normalise
from search.config import StudyConfig
from search.records.files import write_json
from search.records.measured import OverlapPair, Overlaps
from search.speech.embedded_study import CORPUS_SEED, NUM_UTTERANCES
from search.speech.split_overlap import find_overlaps, kept_overlap, overlap_report, refuse_overlap, unknown_speakers

pytestmark = pytest.mark.timeout(60)

HASH = "0123456789abcdef" * 8
"""As Common Voice names a speaker."""


def store(folder: Path, *clips: tuple[str, str, str, str]) -> FeatureStore:
    """A store of clips: id, split, speaker, text."""
    rows = [FeatureRow(id=name, split=split, speaker=speaker, text=text, duration_s=0.1,
                       features=np.zeros((10, 64), dtype=np.float32)) for name, split, speaker, text in clips]
    write_shard(folder, 0, rows, [])
    finish_store(folder, 1, {"num_clips": len(rows)})
    return FeatureStore(folder)


def config(**changes: Any) -> StudyConfig:
    return StudyConfig(corpus=("a.tar.gz", "b.jsonl"), source="none", **changes)


def test_splits_that_share_nothing_have_no_overlap(tmp_path: Path) -> None:
    found = find_overlaps(store(tmp_path, ("0/a", "train", "ana", "uno"), ("0/b", "dev", "eva", "dos"),
                                ("0/c", "test", "luz", "tres")))
    assert found == []
    refuse_overlap(found, config(), tmp_path)
    assert overlap_report(found, allowed=False) == {"allowed": False, "pairs": [], "said": []}


def test_sentences_and_speakers_are_counted_with_the_clips_they_touch(tmp_path: Path) -> None:
    """One clip shares both, one a sentence, one a speaker; a sentence that comes twice counts once."""
    [found] = find_overlaps(store(
        tmp_path, ("0/a", "train", "ana", "uno"), ("0/b", "train", "ana", "uno"), ("0/c", "train", "eva", "dos"),
        ("0/d", "test", "ana", "dos"), ("0/e", "test", "luz", "uno"), ("0/f", "test", "ana", "tres"),
        ("0/g", "test", "luz", "cuatro"), ("0/h", "test", "luz", "uno")))
    assert (found.splits, found.num_sentences, found.num_speakers, found.num_clips) == (("train", "test"), 2, 1, 5)
    assert found.clip_ids == ["0/d", "0/e", "0/f", "0/h"]
    assert found.sentences == [{"text": "dos", "train": "0/c", "test": "0/d"},
                               {"text": "uno", "train": "0/a", "test": "0/e"}]
    assert found.speakers == [{"speaker": "0/ana", "train": "0/a", "test": "0/d"}]
    assert found.said() == ("2 sentences and 1 speaker of test are in train too (4 of 5 clips): 'dos', 'uno', speaker "
                            "0/ana")


def test_speakers_of_two_corpora_are_two_but_a_client_id_is_one(tmp_path: Path) -> None:
    assert find_overlaps(store(tmp_path / "a", ("0/a", "train", "1", "uno"), ("1/b", "test", "1", "dos"))) == []
    [found] = find_overlaps(store(tmp_path / "b", ("0/a", "train", HASH, "uno"), ("1/b", "test", HASH, "dos")))
    assert (found.num_speakers, found.num_sentences) == (1, 0)


def test_unknown_speaker_overlaps_with_nobody_and_is_counted(tmp_path: Path) -> None:
    made = store(tmp_path, ("0/a", "train", "", "uno"), ("0/b", "test", "", "dos"), ("0/c", "test", "ana", "tres"))
    assert find_overlaps(made) == []
    assert [unknown_speakers(made.split(name)) for name in ("train", "dev", "test")] == [1, 0, 1]


def test_test_in_train_is_refused_in_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    found = find_overlaps(store(tmp_path, *((f"0/{i}", split, "", f"frase {i}") for split in ("train", "test")
                                            for i in range(5))))
    with pytest.raises(CorpusError) as refused:
        refuse_overlap(found, config(), Path("runs/x/corpus_report.json"))
    said = str(refused.value)
    assert said.startswith("a.tar.gz, b.jsonl: 5 sentences and 0 speakers of test are in train too (5 of 5 clips): "
                           "'frase 0', 'frase 1', 'frase 2'. ")
    assert "runs/x/corpus_report.json" in said and "--allow-overlap" in said and "\n" not in said
    refuse_overlap(found, config(allow_overlap=True), Path())


@pytest.mark.parametrize("splits", [("train", "dev"), ("dev", "test")])
def test_other_overlaps_are_told_and_not_refused(tmp_path: Path, splits: tuple[str, str]) -> None:
    found = find_overlaps(store(tmp_path, *((f"0/{split}", split, "ana", "uno") for split in splits)))
    refuse_overlap(found, config(), Path())
    assert overlap_report(found, allowed=False)["said"] == [
        f"1 sentence and 1 speaker of {splits[1]} are in {splits[0]} too (1 of 1 clip): 'uno', speaker 0/ana"]


def test_run_keeps_counts_and_an_older_run_has_none(tmp_path: Path) -> None:
    found = find_overlaps(store(tmp_path / "s", ("0/a", "train", "", "uno"), ("0/b", "test", "", "uno")))
    write_json(tmp_path / "corpus_report.json", {"overlap": overlap_report(found, allowed=True)})
    kept = kept_overlap(tmp_path)
    assert kept.allowed and kept.said == [found[0].said()]
    assert kept.pairs == [OverlapPair(splits=["train", "test"], num_sentences=1, num_speakers=0, num_clips=1,
                                      num_shared_clips=1)]
    write_json(tmp_path / "corpus_report.json", {"splits": {}})
    assert kept_overlap(tmp_path) == kept_overlap(tmp_path / "nothing") == Overlaps()


@pytest.mark.parametrize("code", ["es", "en"])
def test_embedded_corpora_share_nothing(tmp_path: Path, code: str) -> None:
    pytest.importorskip("espeakng_loader")
    plan = _plan(code, NUM_UTTERANCES[code], CORPUS_SEED)
    clips = [(f"0/{line.clip}", split, line.speaker.client_id, normalise(line.sentence, language(code)))
             for split, lines in plan.items() for line in lines]
    made = store(tmp_path, *clips)
    assert len(made.split("train")) == NUM_UTTERANCES[code]["train"] and find_overlaps(made) == []


def test_a_real_release_has_single_words_in_several_splits(shared_data: Path, tmp_path: Path) -> None:
    """Common Voice 6.1 has people say digits, whichever split they are in."""
    splits, _ = read_tarball(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")
    [found] = find_overlaps(store(tmp_path, *((f"0/{u.id}", split, u.speaker, normalise(u.text, language("es")))
                                              for split, manifest in splits.items() for u in manifest)))
    assert found.said() == "1 sentence and 0 speakers of test are in train too (1 of 21 clips): 'tres'"
