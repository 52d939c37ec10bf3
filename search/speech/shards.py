"""Turn clips into shards of log-mel frames in Ray tasks; unusable clips are counted by reason and named."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from corpora.audio import SAMPLE_RATE_HZ, AudioError, decode
from corpora.corpus import Corpus
from corpora.features import (
    FRAME_TYPE,
    FRAMES_PER_S,
    FeatureRow,
    begin_store,
    check_store,
    is_shard_whole,
    write_shard,
)
from corpora.languages import Language
from corpora.manifest import SPLITS, Utterance
from corpora.text import TextChanges, normalise, why_unusable
from models.frontend import FrontendConfig, LogMel
from search.cluster import check_shared

SHARD_BYTES = 64 << 20
"""Most bytes of frames in a shard."""
CHUNK_BYTES = 64 << 20
"""Most bytes of encoded clips sent to a task, except for a single larger clip."""
OBJECT_STORE_SHARE = 0.25
"""Share of the smallest node's object store for clips sent to tasks, which pass through it."""
THREADS = 2
"""Threads of a task, on as many CPUs; a process for each would take another half a gigabyte of PyTorch."""
_STORE = "object_store_memory"

Clip = tuple[str, Utterance, bytes | Path | AudioError]

Task = TypeVar("Task")


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Which clips are used, and how their frames are made."""

    language: Language
    min_duration_s: float
    max_duration_s: float
    frontend: FrontendConfig


def all_clips(corpora: Sequence[Corpus]) -> Iterator[Clip]:
    """All clips in a fixed order, with ids made unique by their corpus."""
    for number, corpus in enumerate(corpora):
        for split, utterance, clip in corpus.clips(SPLITS):
            # A manifest's duration selects a segment of a file; a release's only gives the length of the file.
            duration_s = utterance.duration_s if corpus.kind == "manifest" else None
            yield split, replace(utterance, id=f"{number}/{utterance.id}", duration_s=duration_s), clip


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The clips of one shard."""

    clips: list[Clip]
    num_bytes: int
    """Their bytes on the way to a task; a file is sent by its path."""


def chunks(clips: Iterable[Clip], limits: ClipLimits) -> Iterator[Chunk]:
    """Cut clips into chunks whose shards stay below SHARD_BYTES, and which stay below CHUNK_BYTES themselves.

    A clip's decoded length is known only in its task, so each counts as the longest allowed.
    """
    longest_bytes = limits.max_duration_s * FRAMES_PER_S * limits.frontend.num_mels * FRAME_TYPE.itemsize
    most_clips = max(1, int(SHARD_BYTES / longest_bytes))
    chunk: list[Clip] = []
    num_bytes = 0
    for clip in clips:
        clip_bytes = len(clip[2]) if isinstance(clip[2], bytes) else 0
        if chunk and (len(chunk) == most_clips or num_bytes + clip_bytes > CHUNK_BYTES):
            yield Chunk(clips=chunk, num_bytes=num_bytes)
            chunk, num_bytes = [], 0
        chunk.append(clip)
        num_bytes += clip_bytes
    if chunk:
        yield Chunk(clips=chunk, num_bytes=num_bytes)


@dataclass(frozen=True, kw_only=True)
class InFlightLimit:
    """How much may be in flight at once; one task always may."""

    tasks: int
    num_bytes: int


def in_room(numbered: Iterable[tuple[int, Chunk]], room: Callable[[], InFlightLimit],
            start: Callable[[int, Chunk], Task], wait: Callable[[list[Task]], Task],
            stop: Callable[[list[Task]], object] = len) -> Iterator[int]:
    """Start a task for each numbered chunk while there is room, and yield the number of clips of each finished task.

    `room` is called again for each task, because nodes come and go. `wait` returns one of the given tasks that has
    ended. The next chunk is read only when the one before was started. If anything ends it early, `stop` gets the tasks
    in flight before the exception propagates.
    """
    running: dict[Task, tuple[int, int]] = {}

    def is_full(now: InFlightLimit, num_bytes: int) -> bool:
        held_bytes = sum(held for _, held in running.values())
        return len(running) >= now.tasks or held_bytes + num_bytes > now.num_bytes

    def ended() -> int:
        return running.pop(wait(list(running)))[0]

    try:
        for number, chunk in numbered:
            while running and is_full(room(), chunk.num_bytes):
                yield ended()
            running[start(number, chunk)] = len(chunk.clips), chunk.num_bytes
        while running:
            yield ended()
    except BaseException:
        if running:
            stop(list(running))
        raise


def make_shards(clips: Iterator[Clip], num_clips: int, folder: Path, limits: ClipLimits, state: str = "") -> int:
    """Turn clips into shards, one Ray task each; returns the number of shards.

    Existing shards are reused if they were made from clips in the same `state`. However it ends, no task is running
    afterwards; one that can no longer be reached cannot write a shard into a restarted store.

    At most twice as many tasks as can run are in flight, with at most a share of the object store in clips, so memory
    stays bounded and nothing is spilled to disk.
    """
    num_shards = 0
    threads = min([THREADS, *(int(node["CPU"]) for node in _nodes() if node.get("CPU", 0) >= 1)])
    task = ray.remote(num_cpus=threads)(_make_shard_on_node)
    making = begin_store(folder, state)
    columns = (TextColumn("features"), BarColumn(), TextColumn("{task.completed}/{task.total} clips"),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("features", total=num_clips)

        def missing() -> Iterator[tuple[int, Chunk]]:
            nonlocal num_shards
            for number, chunk in enumerate(chunks(clips, limits)):
                num_shards = number + 1
                if is_shard_whole(folder, number):
                    progress.advance(bar, len(chunk.clips))
                else:
                    yield number, chunk

        def start(number: int, chunk: Chunk) -> ray.ObjectRef:
            return task.remote(folder, number, chunk.clips, limits, threads, making)

        for num_done in in_room(missing(), partial(_cluster_room, threads), start, _wait_for_one, _end_all):
            progress.advance(bar, num_done)
    return num_shards


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _cluster_room(threads: int) -> InFlightLimit:
    nodes = _nodes()
    smallest = min((node[_STORE] for node in nodes if _STORE in node), default=0.0)
    return InFlightLimit(tasks=2 * max(1, sum(int(node.get("CPU", 0)) // threads for node in nodes)),
                num_bytes=int(OBJECT_STORE_SHARE * smallest))


def _wait_for_one(tasks: list[ray.ObjectRef]) -> ray.ObjectRef:
    (done,), _ = ray.wait(tasks, num_returns=1)
    ray.get(done)
    return done


def _end_all(tasks: list[ray.ObjectRef]) -> None:
    """Cancel tasks and wait until none is running. By force, because a decoding thread ignores interrupts."""
    for task in tasks:
        ray.cancel(task, force=True)
    ray.wait(tasks, num_returns=len(tasks))


def _make_shard_on_node(folder: Path, *arguments: Any) -> None:
    check_shared(folder)
    make_shard(folder, *arguments)


def make_shard(folder: Path, number: int, clips: Sequence[Clip], limits: ClipLimits, threads: int = 1,
               making: str | None = None) -> None:
    """Decode the clips, compute their frames and write one shard, the same with any number of threads.

    Raises:
        FeatureStoreError: the store is no longer the one of `making`.
    """
    make = partial(_row_or_reason, limits=limits, frontend=LogMel(limits.frontend).eval())
    rows: list[FeatureRow] = []
    bad: list[dict[str, str]] = []
    changes = TextChanges(limits.language)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for (split, utterance, _), made in zip(clips, pool.map(make, clips), strict=True):
            if isinstance(made, FeatureRow):
                rows.append(made)
                changes.observe(utterance.text, made.text)
            else:
                bad.append({"id": utterance.id, "split": split, "reason": str(made.reason), "detail": str(made)})
    if making is not None:
        check_store(folder, making)
    write_shard(folder, number, rows, bad, changes.facts())


class _LeftOut(Exception):
    """A clip that decodes but is not used."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _row_or_reason(clip: Clip, limits: ClipLimits, frontend: LogMel) -> FeatureRow | AudioError | _LeftOut:
    try:
        return _feature_row(*clip, limits, frontend)
    except (AudioError, _LeftOut) as left_out:
        return left_out


def _feature_row(split: str, utterance: Utterance, clip: bytes | Path | AudioError, limits: ClipLimits,
                 frontend: LogMel) -> FeatureRow:
    if isinstance(clip, AudioError):  # before its text, which may be very long
        raise clip
    text = normalise(utterance.text, limits.language)
    if why := why_unusable(utterance.text, text, limits.language):
        raise _LeftOut(*why)
    waveform = decode(clip, utterance.offset_s, utterance.duration_s)
    duration_s = len(waveform) / SAMPLE_RATE_HZ
    if not limits.min_duration_s <= duration_s <= limits.max_duration_s:
        reason = "too_short" if duration_s < limits.min_duration_s else "too_long"
        raise _LeftOut(reason, f"{duration_s:.2f} s; the limits are {limits.min_duration_s} to "
                               f"{limits.max_duration_s} s")
    with torch.inference_mode():
        features, lengths = frontend(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    frames = features[0, :, : int(lengths[0])].half().T.contiguous().numpy()
    return FeatureRow(id=utterance.id, split=split, speaker=utterance.speaker, text=text, duration_s=duration_s,
                      features=frames)
