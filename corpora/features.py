"""FeatureStore: log-mel frames in half precision, written once in shards, and memory-mapped by every trial."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora.node_cache import nearby
from corpora.text import merge_changes
from files.atomic import write_shared

FRAMES_PER_S = 100
"""Frames are 10 ms apart."""
FRAME_TYPE = np.dtype("<f2")
"""The type of the log-mel energies in a shard."""

_SCHEMA = pa.schema([
    ("id", pa.string()), ("split", pa.string()), ("speaker", pa.string()), ("text", pa.string()),
    ("duration_s", pa.float32()), ("shard", pa.int32()), ("first_frame", pa.int64()), ("num_frames", pa.int32()),
])

_MAKING = "making"
"""File in a store: an id for this build of it, and the state of its inputs."""

_SHARDS_PER_ROW_GROUP = 200
"""Shards joined at once: tens of thousands of clips, a few megabytes."""


class FeatureStoreError(ValueError):
    """A feature store that is incomplete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureRow:
    """One clip on its way into a shard; `features` has shape (frames, mels), float32 or half precision."""

    id: str
    split: str
    speaker: str
    text: str
    duration_s: float
    features: np.ndarray


NO_CHANGES: Mapping[str, Any] = {"clips": 0, "changes": {}}
"""The facts of a `corpora.text.TextChanges` without clips."""


def begin_store(folder: Path, state: str) -> str:
    """Create a store's folder, or continue one; returns the id that its shards are written under.

    Shards made from inputs in another or an unknown `state` are removed first.
    """
    file = folder / _MAKING
    making = file.read_text(encoding="utf-8") if file.exists() else ""
    if making.partition(" ")[2] == state and making:
        return making
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_shared(file, lambda opened: opened.write(f"{uuid4().hex} {state}".encode()))
    return file.read_text(encoding="utf-8")


def check_store(folder: Path, making: str) -> None:
    """Refuse to write into a store that was removed or restarted meanwhile.

    Raises:
        FeatureStoreError: it was.
    """
    file = folder / _MAKING
    if not file.exists() or file.read_text(encoding="utf-8") != making:
        raise FeatureStoreError(f"{folder}: was removed or restarted while this shard was made for the earlier store. "
                                "Run the study again.")


def write_shard(folder: Path, number: int, rows: Sequence[FeatureRow], bad: Sequence[dict[str, str]],
                text: Mapping[str, Any] = NO_CHANGES) -> None:
    """Write shard `number`: frames, index, the clips left out, and what normalising changed in the other texts.

    Each file is written aside and renamed; the index comes last, so a shard with an index is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_shared(folder / f"{number:06d}.npy", lambda file: _write_frames(file, [row.features for row in rows]))
    write_shared(folder / f"{number:06d}.bad.jsonl",
                 lambda file: file.writelines(json.dumps(row).encode() + b"\n" for row in bad))
    write_shared(folder / f"{number:06d}.text.json", lambda file: file.write(json.dumps(text).encode()))
    counts = [len(row.features) for row in rows]
    table = pa.table({
        "id": [r.id for r in rows], "split": [r.split for r in rows], "speaker": [r.speaker for r in rows],
        "text": [r.text for r in rows], "duration_s": [r.duration_s for r in rows], "shard": [number] * len(rows),
        "first_frame": list(np.cumsum([0, *counts])[:-1]) if rows else [], "num_frames": counts,
    }, schema=_SCHEMA)
    write_shared(folder / f"{number:06d}.parquet", lambda file: pq.write_table(table, file))


def is_shard_whole(folder: Path, number: int) -> bool:
    """Whether shard `number` was written completely."""
    return (folder / f"{number:06d}.parquet").exists()


def _write_frames(file: IO[bytes], clips: Sequence[np.ndarray]) -> None:
    """Write what np.save would write for all clips joined, one clip at a time."""
    shape = sum(map(len, clips)), clips[0].shape[1] if clips else 0
    np.lib.format.write_array_header_1_0(file, {"descr": FRAME_TYPE.str, "fortran_order": False, "shape": shape})
    for clip in clips:
        file.write(np.ascontiguousarray(clip, dtype=FRAME_TYPE).data)


def finish_store(folder: Path, num_shards: int, facts: dict[str, Any]) -> None:
    """Join the shards' indices into the store's, which marks it complete; `facts` are stored with it.

    Memory does not grow with the number of shards.
    """
    write_shared(folder / "bad_clips.jsonl", lambda file: _join_files(file, folder, num_shards))
    with (folder / "bad_clips.jsonl").open("rb") as lines:
        bad = Counter(json.loads(line)["reason"] for line in lines)
    text = merge_changes(json.loads((folder / f"{number:06d}.text.json").read_text()) for number in range(num_shards))
    facts = facts | {"bad_by_reason": dict(bad.most_common()), "text": text}
    write_shared(folder / "facts.json", lambda file: file.write(json.dumps(facts).encode()))
    write_shared(folder / "index.parquet", lambda file: _join_indices(file, folder, num_shards))


def _join_files(file: IO[bytes], folder: Path, num_shards: int) -> None:
    for number in range(num_shards):
        with (folder / f"{number:06d}.bad.jsonl").open("rb") as part:
            shutil.copyfileobj(part, file)


def _join_indices(file: IO[bytes], folder: Path, num_shards: int) -> None:
    with pq.ParquetWriter(file, _SCHEMA) as index:
        for first in range(0, num_shards, _SHARDS_PER_ROW_GROUP):
            numbers = range(first, min(first + _SHARDS_PER_ROW_GROUP, num_shards))
            index.write_table(pa.concat_tables(
                [pq.read_table(folder / f"{number:06d}.parquet", schema=_SCHEMA) for number in numbers]))


class FeatureSplit:
    """The clips of one split, in a fixed order."""

    def __init__(self, store: "FeatureStore", name: str) -> None:
        self._store, self._name = store, name
        table = self._columns("text", "num_frames", "shard", "first_frame")
        self.texts: list[str] = table["text"].to_pylist()
        self.num_frames: np.ndarray = table["num_frames"].to_numpy()
        self._shards: np.ndarray = table["shard"].to_numpy()
        self._first_frames: np.ndarray = table["first_frame"].to_numpy()

    def _columns(self, *names: str) -> pa.Table:
        return pq.read_table(self._store.folder / "index.parquet", columns=list(names),
                             filters=[("split", "==", self._name)])

    @cached_property
    def ids(self) -> list[str]:
        """Read on first use, because no trial needs them; so are the speakers."""
        return list(self._columns("id")["id"].to_pylist())

    @cached_property
    def speakers(self) -> list[str]:
        """The speaker of each clip, "" if unknown."""
        return list(self._columns("speaker")["speaker"].to_pylist())

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def duration_s(self) -> float:
        """Seconds of audio in all clips."""
        return float(self.num_frames.sum()) / FRAMES_PER_S

    def features(self, row: int) -> np.ndarray:
        """Frames of clip `row`: shape (frames, mels), float16, a view of the mapped shard."""
        first = self._first_frames[row]
        return self._store.shard(int(self._shards[row]))[first : first + self.num_frames[row]]


class FeatureStore:
    """A finished store; shards are mapped on first use, and trials on a node share their pages."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`.

        Raises:
            FeatureStoreError: the store was not written completely.
        """
        for name in ("index.parquet", "facts.json", "bad_clips.jsonl"):
            if not (folder / name).exists():
                raise FeatureStoreError(f"{folder}: no finished feature store ({name} is missing). "
                                        "Remove the folder and run the study again.")
        self.folder = folder
        self._shards: dict[int, np.ndarray] = {}
        self._splits: WeakValueDictionary[str, FeatureSplit] = WeakValueDictionary()

    @property
    def facts(self) -> dict[str, Any]:
        """The facts recorded when the store was made; `bad_by_reason` counts the clips left out."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts

    def bad_clips(self) -> Iterator[dict[str, str]]:
        """The clips left out, one at a time: id, split, reason and detail."""
        with (self.folder / "bad_clips.jsonl").open("rb") as lines:
            yield from map(json.loads, lines)

    def shard(self, number: int) -> np.ndarray:
        """All frames of one shard, memory-mapped: shape (frames, mels), float16."""
        if number not in self._shards:
            # Not np.load: it keeps a descriptor open per file, and 360,000 clips have more shards than the limit.
            with pa.memory_map(str(nearby(self.folder / f"{number:06d}.npy"))) as file:
                np.lib.format.read_magic(file)
                shape, _, kind = np.lib.format.read_array_header_1_0(file)
                self._shards[number] = np.frombuffer(file.read_buffer(), dtype=kind).reshape(shape)
        return self._shards[number]

    def split(self, name: str) -> FeatureSplit:
        """The clips of split `name`; a split still in use is not read again."""
        held = self._splits.get(name)
        if held is None:
            held = self._splits[name] = FeatureSplit(self, name)
        return held
