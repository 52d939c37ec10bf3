"""Batches are bounded, the same for any number of workers, and different in each epoch."""

from pathlib import Path

import numpy as np
import pytest

from corpora.batches import Share, SpeechData, cut_by_length, plan_epoch
from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard

FRAMES = np.random.default_rng(0).integers(50, 1200, size=500)


def test_each_clip_is_in_one_batch_and_no_batch_is_above_its_padded_limit() -> None:
    batches = plan_epoch(FRAMES, 6000, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert max(len(batch) * FRAMES[batch].max() for batch in batches) <= 6000
    padded = sum(len(batch) * FRAMES[batch].max() for batch in batches)
    assert FRAMES.sum() / padded > 0.9


def test_clip_above_the_limit_is_a_batch_of_its_own() -> None:
    frames = np.array([100, 9000, 100])
    assert [batch.tolist() for batch in cut_by_length(np.array([0, 2, 1]), frames, 6000)] == [[0, 2], [1]]


def test_order_changes_with_the_epoch_and_repeats_with_the_seed() -> None:
    first, again = plan_epoch(FRAMES, 6000, 1, 0), plan_epoch(FRAMES, 6000, 1, 0)
    other = plan_epoch(FRAMES, 6000, 1, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=False))


@pytest.mark.parametrize(("world_size", "passes"), [(1, 1), (2, 1), (3, 2), (4, 4)])
def test_global_batch_is_the_same_for_any_number_of_workers(world_size: int, passes: int) -> None:
    batch = np.arange(10)
    parts = [part for rank in range(world_size)
             for part in Share(rank=rank, world_size=world_size, passes=passes).parts(batch)]
    assert len(parts) == world_size * passes
    seen = np.concatenate([rows[weights > 0] for rows, weights in parts])
    assert sorted(seen.tolist()) == batch.tolist()
    assert sum(weights.sum() for _, weights in parts) == pytest.approx(1.0)


def test_small_batch_gives_every_worker_a_pass() -> None:
    parts = [list(Share(rank=rank, world_size=4).parts(np.array([7]))) for rank in range(4)]
    assert [len(p) for p in parts] == [1, 1, 1, 1]
    assert [float(p[0][1].sum()) for p in parts] == [1.0, 0.0, 0.0, 0.0]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    lengths = [30, 45, 60, 80, 33, 20]
    rows = [FeatureRow(id=str(i), split="train" if i < 4 else "dev", speaker="s", text="ab" * (i + 1),
                       duration_s=n / 100, features=np.full((n, 64), i + 1, dtype=np.float32))
            for i, n in enumerate(lengths)]
    write_shard(tmp_path, 0, rows, [])
    finish_store(tmp_path, 1, {"num_clips": len(rows)})
    return FeatureStore(tmp_path)


def data(store: FeatureStore, **options: object) -> SpeechData:
    defaults: dict[str, object] = {"share": Share(), "audio_s_per_step": 1.3}
    return SpeechData(store, lambda text: [ord(c) - 97 for c in text], seed=0,
                      is_usable=lambda labels, frames: len(labels) < 8, **(defaults | options))  # type: ignore[arg-type]


def test_batches_are_padded_to_sixteen_frames_and_carry_their_labels(store: FeatureStore) -> None:
    speech = data(store)
    batches = list(speech.train_dataloader())
    assert speech.num_left_out == 1
    assert sum(len(b.rows) for b in batches) == 3
    for batch in batches:
        assert batch.features.shape[:2] == (len(batch.rows), 64) and batch.features.shape[2] % 16 == 0
        for i, row in enumerate(batch.rows.tolist()):
            length = int(batch.feature_lengths[i])
            assert batch.features[i, :, :length].unique().item() == row + 1
            assert batch.features[i, :, length:].abs().sum() == 0
            assert batch.targets[i, : batch.target_lengths[i]].tolist() == [0, 1] * (row + 1)


def test_every_worker_hears_a_batch_of_a_small_development_split(store: FeatureStore) -> None:
    loaders = [data(store, share=Share(rank=rank, world_size=3)).val_dataloader() for rank in range(3)]
    assert all(len(loader) for loader in loaders)
    assert {row for loader in loaders for batch in loader for row in batch.rows.tolist()} == {0, 1}


def test_workers_share_the_development_split_without_overlap(store: FeatureStore) -> None:
    shares = [data(store, share=Share(rank=rank, world_size=2), audio_s_per_step=0.4) for rank in range(2)]
    assert sorted(row for share in shares for batch in share.val_dataloader() for row in batch.rows.tolist()) == [0, 1]
