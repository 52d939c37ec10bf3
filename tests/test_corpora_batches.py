"""Batches are bounded, the same for any number of workers, and different in each epoch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from corpora.batches import Batch, PartsLoader, Share, SpeechData, cut_by_length, plan_epoch
from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.speed import draw_tenths, frames_at

FRAMES = np.random.default_rng(0).integers(50, 1200, size=500)


def test_each_clip_is_in_one_batch_and_no_batch_is_above_its_padded_limit() -> None:
    batches = plan_epoch(FRAMES, 6000, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert max(len(batch) * FRAMES[batch].max() for batch in batches) <= 6000
    padded = sum(len(batch) * FRAMES[batch].max() for batch in batches)
    assert FRAMES.sum() / padded > 0.9


@pytest.mark.parametrize("audio_s_per_step", [30, 60, 120, 240, 480])
def test_padding_is_below_five_percent_on_clips_of_the_lengths_of_common_voice(audio_s_per_step: int) -> None:
    # 64 Spanish clips: mean logarithm 1.50, standard deviation 0.40. Ten hours of such ones.
    frames = (100 * np.random.default_rng(0).lognormal(1.5, 0.4, size=7400)).astype(int)
    batches = plan_epoch(frames, 100 * audio_s_per_step, seed=1, epoch=0)
    padded = sum(len(batch) * frames[batch].max() for batch in batches)
    assert 0.95 < frames.sum() / padded <= 1


@pytest.mark.parametrize("frames_per_batch", [3000, 24_000, 48_000])
def test_small_corpus_is_not_cut_into_the_same_batches_in_the_next_epoch(frames_per_batch: int) -> None:
    first, second = ({tuple(sorted(batch)) for batch in plan_epoch(FRAMES, frames_per_batch, 1, epoch)}
                     for epoch in (0, 1))
    assert len(first & second) < 0.2 * len(first)


def test_clip_above_the_limit_is_a_batch_of_its_own() -> None:
    frames = np.array([100, 9000, 100])
    assert [batch.tolist() for batch in cut_by_length(np.array([0, 2, 1]), frames, 6000)] == [[0, 2], [1]]
    assert [batch.tolist() for batch in cut_by_length(np.array([1, 0, 2]), frames, 6000)] == [[1], [0, 2]]


def test_batch_is_padded_to_its_longest_clip_wherever_it_stands() -> None:
    frames = np.array([300, 100, 200])
    assert [batch.tolist() for batch in cut_by_length(np.arange(3), frames, 600)] == [[0, 1], [2]]


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
    defaults: dict[str, object] = {"share": Share(), "audio_s_per_step": 1.3, "seed": 0,
                                   "is_usable": lambda labels, frames: len(labels) < 8}
    return SpeechData(store, lambda text: [ord(c) - 97 for c in text], **(defaults | options))  # type: ignore[arg-type]


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


def by_clip(batches: list[Batch]) -> dict[int, bytes]:
    """What the network sees of each row, padding apart."""
    return {row: batch.features[i, :, : int(batch.feature_lengths[i])].numpy().tobytes()
            for batch in batches for i, row in enumerate(batch.rows.tolist()) if batch.weights[i] > 0}


@pytest.fixture
def noise_store(tmp_path: Path) -> FeatureStore:
    generator = np.random.default_rng(3)
    rows = [FeatureRow(id=str(i), split="train" if i < 40 else "dev", speaker="s", text="ab" * (1 + i % 3),
                       duration_s=n / 100, features=generator.standard_normal((n, 64)).astype(np.float32))
            for i, n in enumerate(generator.integers(20, 90, size=44))]
    write_shard(tmp_path, 0, rows, [])
    finish_store(tmp_path, 1, {"num_clips": len(rows)})
    return FeatureStore(tmp_path)


@pytest.mark.parametrize(("world_size", "passes"), [(1, 2), (2, 1), (3, 2)])
def test_workers_and_passes_together_hear_in_each_step_what_one_hears(noise_store: FeatureStore, world_size: int,
                                                                      passes: int) -> None:
    options = {"perturbs_speed": True, "audio_s_per_step": 4.0}
    whole = list(data(noise_store, **options).train_dataloader())
    shares = [list(data(noise_store, share=Share(rank=rank, world_size=world_size, passes=passes),
                        **options).train_dataloader()) for rank in range(world_size)]
    assert all(len(share) == len(whole) * passes for share in shares)
    for step, batch in enumerate(whole):
        parts = [part for share in shares for part in share[step * passes : (step + 1) * passes]]
        assert by_clip(parts) == by_clip([batch])


def test_loader_that_goes_on_inside_an_epoch_gives_what_was_left(noise_store: FeatureStore) -> None:
    whole, stopped, resumed = (data(noise_store, perturbs_speed=True, audio_s_per_step=4.0).train_dataloader()
                               for _ in range(3))
    batches = iter(stopped)
    read = [next(batches) for _ in range(3)]
    assert isinstance(stopped, PartsLoader) and isinstance(resumed, PartsLoader)
    resumed.load_state_dict(stopped.state_dict())
    for found, wanted in zip([*read, *resumed], whole, strict=True):
        for name, tensor in vars(wanted).items():
            assert torch.equal(getattr(found, name), tensor), name


def test_speeds_come_anew_in_each_epoch_and_batches_stay_bounded(noise_store: FeatureStore) -> None:
    speech = data(noise_store, perturbs_speed=True, audio_s_per_step=4.0)
    lengths = []
    for epoch in range(2):
        speech.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        batches = list(speech.train_dataloader())
        assert len(batches) == speech.steps_in_epoch(epoch)
        assert max(len(batch.rows) * int(batch.feature_lengths.max()) for batch in batches) <= 400
        heard = {row: int(n) for b in batches for row, n in zip(b.rows.tolist(), b.feature_lengths, strict=True)}
        tenths = draw_tenths(40, seed=0, epoch=epoch)
        assert heard == dict(enumerate(frames_at(speech.train_split.num_frames, tenths).tolist()))
        lengths.append(heard)
    assert sum(lengths[0][row] != lengths[1][row] for row in lengths[0]) > 10


def test_clip_that_could_not_be_aligned_when_faster_keeps_its_speed(noise_store: FeatureStore) -> None:
    shortest = int(noise_store.split("train").num_frames.min())
    speech = data(noise_store, perturbs_speed=True, is_usable=lambda labels, frames: frames >= shortest)
    assert speech.num_left_out == 0
    frames, seen = speech.train_split.num_frames, set()
    for epoch in range(8):
        speech.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        for batch in speech.train_dataloader():
            assert int(batch.feature_lengths.min()) >= shortest
            seen |= {(int(frames[row]) == shortest, int(n) < int(frames[row]))
                     for row, n in zip(batch.rows.tolist(), batch.feature_lengths, strict=True)}
    assert (True, True) not in seen and (False, True) in seen


def test_development_split_is_heard_at_its_own_speed(noise_store: FeatureStore) -> None:
    batches = list(data(noise_store, perturbs_speed=True).val_dataloader())
    assert {row: int(n) for b in batches for row, n in zip(b.rows.tolist(), b.feature_lengths, strict=True)} == dict(
        enumerate(noise_store.split("dev").num_frames.tolist()))
