"""A store's key is that of its content, and a corpus with too little in it is named with the reasons."""

from pathlib import Path

import numpy as np
import pytest
from release_files import pack, release_files

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.manifest import CorpusError
from models.frontend import FrontendConfig
from search.config import StudyConfig
from search.speech.corpus_report import MAX_NAMED, corpus_report
from search.speech.features import _check_enough, join_corpora, store_key
from search.speech.shards import ClipLimits

pytestmark = pytest.mark.timeout(60)

LIMITS = ClipLimits(language="es", min_duration_s=0.3, max_duration_s=20.0, frontend=FrontendConfig())


def key_of(*paths: Path, limits: ClipLimits = LIMITS) -> str:
    return store_key(join_corpora([str(path) for path in paths]), limits)


def test_key_is_that_of_the_content_the_splits_and_the_limits(tmp_path: Path) -> None:
    files = release_files()
    (tmp_path / "elsewhere").mkdir()
    first, copy = pack(tmp_path / "a.tar.gz", files), pack(tmp_path / "elsewhere" / "b.tar.gz", files)
    copy.write_bytes(first.read_bytes())
    other = pack(tmp_path / "c.tar.gz", release_files(num_clips=4))
    shorter = ClipLimits(language="es", min_duration_s=0.3, max_duration_s=10.0, frontend=FrontendConfig())
    assert key_of(first) == key_of(copy)
    assert len({key_of(first), key_of(other), key_of(first, other), key_of(other, first),
                key_of(first, limits=shorter)}) == 5
    held_out, trained = join_corpora([str(first)]), join_corpora([str(first)])
    splits = trained[0].splits
    splits["train"], splits["dev"] = splits["dev"], splits["train"]
    assert store_key(held_out, LIMITS) != store_key(trained, LIMITS)


def test_clips_left_out_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    frames = np.zeros((10, 64), np.float16)
    rows = [FeatureRow(id=f"{i}", split="train", speaker="", text="a", duration_s=0.1, features=frames)
            for i in range(3)]
    bad = [{"id": f"x{i}", "split": "train", "reason": "empty" if i else "silent", "detail": ""}
           for i in range(MAX_NAMED + 5)]
    write_shard(tmp_path / "store", 0, rows, bad)
    finish_store(tmp_path / "store", 1, {"num_clips": len(rows) + len(bad)})
    store = FeatureStore(tmp_path / "store")
    report = corpus_report(StudyConfig(corpus=("es.tar.gz",), source="none"), store, [], [])
    assert (report["clips_left_out"], report["left_out_by_reason"]) == (1005, {"empty": 1004, "silent": 1})
    assert report["left_out"] == bad[:MAX_NAMED]
    corpora = join_corpora([str(pack(tmp_path / "a.tar.gz", release_files()))])
    said = r"3 usable clips in train; .*Left out: 1004 empty, 1 silent\..*bad_clips\.jsonl"
    with pytest.raises(CorpusError, match=said):
        _check_enough(store, corpora, "es")


def test_corpus_in_letters_of_another_language_is_said(tmp_path: Path) -> None:
    bad = [{"id": "x", "split": "train", "reason": "foreign_letters", "detail": ""}]
    write_shard(tmp_path / "store", 0, [], bad)
    finish_store(tmp_path / "store", 1, {"num_clips": 1})
    corpora = join_corpora([str(pack(tmp_path / "a.tar.gz", release_files()))])
    with pytest.raises(CorpusError, match=r"1 foreign_letters\. 'es' may not be their language"):
        _check_enough(FeatureStore(tmp_path / "store"), corpora, "es")
