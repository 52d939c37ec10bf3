"""A feature store is whole or refused, and gives back what was written."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from corpora import features
from corpora.features import FeatureRow, FeatureStore, FeatureStoreError, finish_store, is_shard_whole, write_shard
from corpora.languages import SPANISH
from corpora.text import TextChanges, normalise


def row(name: str, split: str, num_frames: int) -> FeatureRow:
    features = np.random.default_rng(num_frames).standard_normal((num_frames, 64)).astype(np.float32)
    return FeatureRow(id=name, split=split, speaker=f"s-{name}", text=f"text {name}", duration_s=num_frames / 100,
                      features=features)


def test_store_gives_back_each_clip_of_a_split_in_half_precision(tmp_path: Path) -> None:
    rows = [row("a", "train", 30), row("b", "dev", 20), row("c", "train", 50)]
    write_shard(tmp_path, 0, rows[:2], [{"id": "x", "split": "train", "reason": "empty", "detail": "0 bytes"}])
    write_shard(tmp_path, 1, rows[2:], [])
    finish_store(tmp_path, 2, {"num_clips": 4})
    store = FeatureStore(tmp_path)
    train = store.split("train")
    assert (train.ids, train.texts, train.speakers, train.duration_s) == (
        ["a", "c"], ["text a", "text c"], ["s-a", "s-c"], 0.8)
    for i, written in enumerate((rows[0], rows[2])):
        assert train.features(i).dtype == np.float16
        np.testing.assert_allclose(train.features(i), written.features, atol=2e-3)
    assert str(tmp_path / "000001.npy") in Path("/proc/self/maps").read_text(), "mapped, not read"
    assert len(store.split("test")) == 0
    assert [row["id"] for row in store.bad_clips()] == ["x"]
    assert store.facts == {"num_clips": 4, "bad_by_reason": {"empty": 1}, "text": {"clips": 0, "changes": {}}}


def test_more_shards_than_a_process_may_open_files_are_mapped(tmp_path: Path) -> None:
    for number in range(40):
        write_shard(tmp_path, number, [row(f"{number}", "train", number + 1)], [])
    finish_store(tmp_path, 40, {})
    train = FeatureStore(tmp_path).split("train")
    before = len(os.listdir("/proc/self/fd"))
    assert [len(train.features(i)) for i in range(40)] == list(range(1, 41))
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_processes_of_one_number_may_write_the_same_shard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in containers, on two nodes: the other one writes all of it where the first is about to rename a file."""
    replace = os.replace

    def interrupted(aside: Path, path: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_shard(tmp_path, 0, [row("a", "train", 30)], [])
        replace(aside, path)

    monkeypatch.setattr(os, "replace", interrupted)
    write_shard(tmp_path, 0, [row("a", "train", 30)], [])
    finish_store(tmp_path, 1, {})
    assert FeatureStore(tmp_path).split("train").features(0).shape == (30, 64) and not list(tmp_path.glob("*.part"))


def test_what_normalising_changed_is_added_up_over_the_shards(tmp_path: Path) -> None:
    for number, raw in enumerate(("¡Hola!", "Son 3.", "No.")):
        changes = TextChanges(SPANISH)
        changes.observe(raw, normalise(raw, SPANISH))
        write_shard(tmp_path, number, [row(raw, "train", 10)], [], changes.facts())
    finish_store(tmp_path, 3, {"num_clips": 3})
    text = FeatureStore(tmp_path).facts["text"]
    assert (text["clips"], text["changes"]["punctuation_dropped"]["found"]) == (3, {".": 2, "¡": 1, "!": 1})
    assert text["changes"]["digits_spelled_out"]["examples"] == [{"before": "Son 3.", "after": "son tres"}]


def test_store_without_its_index_is_not_taken_for_whole(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [row("a", "train", 30)], [])
    with pytest.raises(FeatureStoreError, match="run the study again"):
        FeatureStore(tmp_path)


def test_shard_cut_off_before_its_index_is_written_again(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [row("a", "train", 30)], [])
    assert is_shard_whole(tmp_path, 0)
    (tmp_path / "000000.parquet").unlink()  # as a process killed between the two files leaves it
    assert not is_shard_whole(tmp_path, 0)


def test_shard_of_bad_clips_alone_is_whole(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [], [{"id": "x", "split": "train", "reason": "empty", "detail": ""}])
    finish_store(tmp_path, 1, {"num_clips": 1})
    assert len(FeatureStore(tmp_path).split("train")) == 0


def test_indices_are_joined_in_order_a_few_shards_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_SHARDS_PER_ROW_GROUP", 3)
    for number in range(8):
        write_shard(tmp_path, number, [row(f"{number}{name}", "train", 5 + number) for name in "ab"],
                    [{"id": f"x{number}", "split": "train", "reason": "empty" if number else "silent",
                      "detail": "ñ\n"}])
    finish_store(tmp_path, 8, {})
    store = FeatureStore(tmp_path)
    assert store.split("train").ids == [f"{number}{name}" for number in range(8) for name in "ab"]
    assert [bad["id"] for bad in store.bad_clips()] == [f"x{number}" for number in range(8)]
    assert store.facts["bad_by_reason"] == {"empty": 7, "silent": 1}
    assert pq.ParquetFile(tmp_path / "index.parquet").num_row_groups == 3
    assert all(store.split("train").features(i).shape == (5 + i // 2, 64) for i in range(16))
