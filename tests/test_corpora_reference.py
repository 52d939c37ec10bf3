"""The frozen reference is kept whole, and its key is that of clips, texts and normaliser alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.manifest import CorpusError
from corpora.reference import Reference

pytestmark = pytest.mark.timeout(30)

CLIPS = [("train", "0/t", "tres"), ("dev", "0/a", "uno"), ("dev", "0/b", "dos"), ("test", "0/c", "niño")]


def reference(folder: Path, clips: list[tuple[str, str, str]]) -> Reference:
    rows = [FeatureRow(id=clip, split=split, speaker="s", text=text, duration_s=0.1,
                       features=np.zeros((10, 64), dtype=np.float32)) for split, clip, text in clips]
    write_shard(folder, 0, rows, [])
    finish_store(folder, 1, {"num_clips": len(rows)})
    return Reference.of(FeatureStore(folder))


def test_reference_is_dev_and_test_and_is_read_back_equal(tmp_path: Path) -> None:
    kept = reference(tmp_path / "store", CLIPS)
    assert kept.rows == (("dev", "a", "uno"), ("dev", "b", "dos"), ("test", "c", "niño"))
    (tmp_path / "reference.parquet").write_bytes(kept.to_parquet())
    loaded = Reference.load(tmp_path / "reference.parquet")
    assert loaded == kept and loaded.key == kept.key
    assert kept.facts() == {"key": kept.key, "normaliser_version": kept.normaliser_version, "dev_clips": 2,
                            "test_clips": 1}


def test_key_is_of_texts_clips_and_normaliser_alone(tmp_path: Path) -> None:
    kept = reference(tmp_path / "a", CLIPS)
    moved = [(split, clip.replace("0/", "1/"), text) for split, clip, text in reversed(CLIPS)] + [("train", "2", "x")]
    same = reference(tmp_path / "b", moved)
    assert same.key == kept.key and kept.differences(same) == ""
    texts = reference(tmp_path / "c", [*CLIPS[:3], ("test", "0/c", "nino")])
    clips = reference(tmp_path / "d", CLIPS[:3])
    split = reference(tmp_path / "e", [*CLIPS[:3], ("dev", "0/c", "niño")])
    newer = replace(kept, normaliser_version="9")
    assert len({kept.key, texts.key, clips.key, split.key, newer.key}) == 5
    assert kept.differences(texts) == texts.differences(kept) == "1 of 3 shared clips have another text"
    assert kept.differences(clips) == clips.differences(kept) == "1 clips are in one alone"
    assert kept.differences(newer).startswith("the normaliser's version is ") and "'9'" in kept.differences(newer)


def test_corpus_without_a_split_has_a_reference_of_the_rest(tmp_path: Path) -> None:
    kept = reference(tmp_path, CLIPS[:2])
    assert (kept.facts()["dev_clips"], kept.facts()["test_clips"]) == (1, 0)
    assert Reference((), "1").facts()["dev_clips"] == 0


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 5000])
def test_damaged_or_missing_reference_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CorpusError, match="reference.parquet: there is no such reference"):
        Reference.load(tmp_path / "reference.parquet")
    (tmp_path / "reference.parquet").write_bytes(content)
    with pytest.raises(CorpusError, match="reference.parquet: the reference cannot be read") as error:
        Reference.load(tmp_path / "reference.parquet")
    assert "\n" not in str(error.value)
