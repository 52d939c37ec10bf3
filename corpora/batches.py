"""Batches of clips of similar length with bounded padding; the global batch is the same for any number of workers."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from corpora.features import FRAMES_PER_S, FeatureSplit, FeatureStore
from corpora.speed import FASTEST, UNCHANGED, change_speed, draw_tenths, frames_at

PAD_FRAMES_TO = 16
"""Batches are padded to a multiple of 16 frames, as in NeMo; BatchNorm's training statistics include the padding."""

LENGTH_JITTER = 0.03
"""Clips are sorted by their length times a random factor this close to 1, so that batches differ between epochs."""


@dataclass
class Batch:
    """The input of one pass. B clips, M mels, T frames, L labels.

    features (B, M, T), feature_lengths (B,) in frames, targets (B, L), target_lengths (B,),
    rows (B,) of the split, weights (B,): 1 / size of the global batch, or 0 for a filler.
    """

    features: Tensor
    feature_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    rows: Tensor
    weights: Tensor


def rows_of_part(ids: Sequence[str], num_frames: np.ndarray, share: float) -> np.ndarray:
    """The rows of a share of a split's speech, as nearly as whole clips allow, in order: at least one clip.

    Clips are taken in the order of their ids' hashes, so a smaller part lies within a larger one.
    """
    order = np.argsort([hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in ids], kind="stable")
    heard = np.cumsum(num_frames[order]) - num_frames[order] / 2
    return np.sort(order[: max(1, int((heard < share * num_frames.sum()).sum()))])


def plan_epoch(num_frames: np.ndarray, frames_per_batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Cut one epoch into global batches of at most `frames_per_batch` padded frames, in random order.

    A clip longer than that is its own batch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = np.argsort(num_frames * generator.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, size=len(num_frames)))
    batches = cut_by_length(order, num_frames, frames_per_batch)
    return [batches[i] for i in generator.permutation(len(batches))]


def cut_by_length(rows: np.ndarray, num_frames: np.ndarray, frames_per_batch: int) -> list[np.ndarray]:
    """Cut rows, sorted roughly by increasing length, into batches of at most `frames_per_batch` padded frames."""
    batches: list[np.ndarray] = []
    start = longest = 0
    for end, frames in enumerate(num_frames[rows].tolist()):
        longest = max(longest, frames)
        if end > start and (end + 1 - start) * longest > frames_per_batch:
            batches.append(rows[start:end])
            start, longest = end, frames
    return [*batches, rows[start:]] if len(rows) else []


@dataclass(frozen=True, kw_only=True)
class Share:
    """A worker's part of every global batch, and its number of passes."""

    rank: int = 0
    world_size: int = 1
    passes: int = 1

    def parts(self, batch: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and weights of each of this worker's passes over one global batch.

        If a small batch leaves a part empty, the part holds the batch's first row with weight 0, so that every worker
        makes the same number of passes.
        """
        num_parts = self.world_size * self.passes
        for i in range(self.passes):
            rows = batch[self.rank * self.passes + i :: num_parts]
            if len(rows):
                yield rows, np.full(len(rows), 1 / len(batch), dtype=np.float32)
            else:
                yield batch[:1], np.zeros(1, dtype=np.float32)


class SpeechData(pl.LightningDataModule):
    """Training and validation batches from a FeatureStore; the test split is never opened."""

    def __init__(self, store: FeatureStore, encode: Callable[[str], list[int]], *, audio_s_per_step: float,
                 is_usable: Callable[[list[int], int], bool], share: Share, seed: int,
                 perturbs_speed: bool = False, data_share: float = 1.0) -> None:
        """Read the splits and encode their texts; clips for which `is_usable(labels, frames)` is false are left out.

        With a `data_share` below 1, the epochs are of that part of the training split (`rows_of_part`).
        """
        super().__init__()
        self.train_split = store.split("train")
        self.dev_split = store.split("dev")
        self.share = share
        self.seed = seed
        self._frames_per_step = int(audio_s_per_step * FRAMES_PER_S)
        self._labels = [encode(text) for text in self.train_split.texts]

        def usable(num_frames: np.ndarray) -> np.ndarray:
            return np.array([is_usable(labels, frames) for labels, frames
                             in zip(self._labels, num_frames.tolist(), strict=True)], dtype=bool)

        frames = self.train_split.num_frames
        part = np.arange(len(frames)) if data_share == 1 else rows_of_part(self.train_split.ids, frames, data_share)
        self._usable = part[usable(frames)[part]]
        self._num_in_part = len(part)
        self._may_be_fast = usable(frames_at(frames, FASTEST)) if perturbs_speed else None

    @property
    def num_left_out(self) -> int:
        """Training clips that CTC cannot align with this vocabulary."""
        return self._num_in_part - len(self._usable)

    @property
    def epoch_audio_s(self) -> float:
        """Seconds of audio in one pass over the usable training clips."""
        return float(self.train_split.num_frames[self._usable].sum()) / FRAMES_PER_S

    def steps_in_epoch(self, epoch: int) -> int:
        """Optimizer steps of an epoch, the same for any number of workers."""
        return len(self._plan(epoch))

    def _tenths(self, epoch: int) -> np.ndarray | None:
        """The speed of every clip of the split; a clip that CTC could not align when faster keeps its own."""
        if self._may_be_fast is None:
            return None
        tenths = draw_tenths(len(self.train_split), self.seed, epoch)
        return np.where((tenths == FASTEST) & ~self._may_be_fast, UNCHANGED, tenths)

    def _plan(self, epoch: int) -> list[np.ndarray]:
        """Rows of the split in each global batch of an epoch."""
        frames, tenths = self.train_split.num_frames, self._tenths(epoch)
        heard = frames if tenths is None else frames_at(frames, tenths)
        batches = plan_epoch(heard[self._usable], self._frames_per_step, self.seed, epoch)
        return [self._usable[batch] for batch in batches]

    def train_dataloader(self) -> DataLoader[Batch]:
        """This worker's passes in the trainer's current epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        parts = [part for batch in self._plan(epoch) for part in self.share.parts(batch)]
        return PartsLoader(self.train_split, self._labels, parts, self._tenths(epoch))

    def val_dataloader(self) -> DataLoader[Batch]:
        """This worker's share of the development split, in batches by length."""
        frames = self.dev_split.num_frames
        longest_frames = int(frames.max()) if len(frames) else 0
        limit = max(self._frames_per_step // self.share.passes, longest_frames)
        batches = cut_by_length(np.argsort(frames, kind="stable"), frames, limit)
        # With fewer batches than workers, one is repeated: Lightning needs a batch on every worker.
        mine = batches[self.share.rank :: self.share.world_size] or batches[:1]
        parts = [(rows, np.ones(len(rows), dtype=np.float32)) for rows in mine]
        return PartsLoader(self.dev_split, None, parts)


def collate(split: FeatureSplit, labels: Sequence[list[int]] | None, rows: np.ndarray, weights: np.ndarray,
            tenths: np.ndarray | None = None) -> Batch:
    """Read clips from the store and pad them to one Batch; without `labels` the targets are empty.

    `tenths` is the speed of every clip of the split, if it is perturbed.
    """
    speeds = np.full(len(rows), UNCHANGED) if tenths is None else tenths[rows]
    lengths = frames_at(split.num_frames[rows], speeds)
    clips = [split.features(int(row)) for row in rows]
    padded = -(-int(lengths.max()) // PAD_FRAMES_TO) * PAD_FRAMES_TO
    features = np.empty((len(rows), padded, clips[0].shape[1]), dtype=np.float32)
    for clip, speed, length, place in zip(clips, speeds.tolist(), lengths.tolist(), features, strict=True):
        if speed == UNCHANGED:
            place[:length] = clip
        else:
            change_speed(clip, speed, place[:length])
        place[length:] = 0
    sequences = [labels[row] if labels is not None else [] for row in rows]
    targets = np.zeros((len(rows), max(1, max(map(len, sequences)))), dtype=np.int64)
    for i, sequence in enumerate(sequences):
        targets[i, : len(sequence)] = sequence
    return Batch(
        features=torch.from_numpy(features).transpose(1, 2),
        feature_lengths=torch.from_numpy(lengths.astype(np.int64)),
        targets=torch.from_numpy(targets),
        target_lengths=torch.tensor([len(sequence) for sequence in sequences]),
        rows=torch.from_numpy(rows.astype(np.int64)),
        weights=torch.from_numpy(weights),
    )


class _Parts(torch.utils.data.Dataset[Batch]):
    """Maps the index of a pass to its Batch."""

    def __init__(self, split: FeatureSplit, labels: Sequence[list[int]] | None,
                 parts: Sequence[tuple[np.ndarray, np.ndarray]], tenths: np.ndarray | None) -> None:
        self._split, self._labels, self._parts, self._tenths = split, labels, parts, tenths

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, i: int) -> Batch:
        return collate(self._split, self._labels, *self._parts[i], self._tenths)


class PartsLoader(DataLoader[Batch]):
    """Reads batches in order, and resumes where an interrupted epoch stopped.

    They are read in the training process: the store is memory-mapped, so nothing is gained by workers.
    """

    def __init__(self, split: FeatureSplit, labels: Sequence[list[int]] | None,
                 parts: Sequence[tuple[np.ndarray, np.ndarray]], tenths: np.ndarray | None = None) -> None:
        self._order = _InOrder(len(parts))
        # Its own generator: otherwise each new iterator would draw from the generator of dropout.
        super().__init__(_Parts(split, labels, parts, tenths), batch_size=None, sampler=self._order, num_workers=0,
                         generator=torch.Generator())

    def state_dict(self) -> dict[str, int]:
        """The number of batches read; Lightning stores it in a checkpoint inside an epoch."""
        return {"num_read": self._order.num_read}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch after this many batches."""
        self._order.start = state["num_read"]


class _InOrder(torch.utils.data.Sampler[int]):
    """Counts up; the length is the whole epoch's, even if it starts later."""

    def __init__(self, size: int) -> None:
        self._size, self.start, self.num_read = size, 0, 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        for i in range(start, self._size):
            self.num_read = i + 1
            yield i
