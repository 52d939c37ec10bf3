"""Clips become shards of bounded size, with a bounded number of bytes under way; no Ray is needed to see it."""

import io
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpora.audio import AudioError, decode
from corpora.features import FeatureStore, FeatureStoreError, begin_store, finish_store, is_shard_whole
from corpora.languages import SPANISH
from corpora.manifest import CorpusError, Utterance
from models.frontend import FrontendConfig, LogMel
from search.cluster import ClusterError
from search.speech import shards
from search.speech.shards import (
    Chunk,
    Clip,
    ClipLimits,
    InFlightLimit,
    _make_shard_on_node,
    chunks,
    in_room,
    make_shard,
)

pytestmark = pytest.mark.timeout(60)

LIMITS = ClipLimits(language=SPANISH, min_duration_s=0.3, max_duration_s=20.0, frontend=FrontendConfig())


def clip(content: bytes | Path | AudioError, name: str = "a", text: str = "hola") -> Clip:
    return "train", Utterance(id=name, audio=name, duration_s=None, text=text), content


def sound(seed: int, duration_s: float = 1.0, format: str = "MP3") -> bytes:
    file = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(round(48_000 * duration_s))
    soundfile.write(file, noise, 48_000, format=format)
    return file.getvalue()


def test_chunks_keep_the_order_and_their_shards_stay_below_the_limit() -> None:
    clips = [clip(Path(str(i))) for i in range(700)]
    cut = list(chunks(clips, LIMITS))
    assert [found for chunk in cut for found in chunk.clips] == clips
    frames_bytes = 20 * 100 * 64 * 2
    assert all(len(chunk.clips) * frames_bytes <= shards.SHARD_BYTES for chunk in cut)
    assert all((len(chunk.clips) + 1) * frames_bytes > shards.SHARD_BYTES for chunk in cut[:-1])
    assert not any(chunk.num_bytes for chunk in cut)


def test_chunks_are_bounded_in_encoded_bytes_but_for_one_larger_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHUNK_BYTES", 100)
    clips = [clip(bytes(size)) for size in (40, 50, 20, 500, 30, 60)] + [clip(AudioError("lacking", "missing"))]
    cut = list(chunks(clips, LIMITS))
    assert [chunk.num_bytes for chunk in cut] == [90, 20, 500, 90]
    assert sum(len(chunk.clips) for chunk in cut) == 7


def test_a_clip_longer_than_a_shard_gets_one_of_its_own() -> None:
    limits = ClipLimits(language=SPANISH, min_duration_s=0.3, max_duration_s=9000.0, frontend=FrontendConfig())
    assert [len(chunk.clips) for chunk in chunks([clip(b"x")] * 3, limits)] == [1, 1, 1]


@pytest.mark.parametrize("room", [InFlightLimit(tasks=4, num_bytes=10**9),
                                  InFlightLimit(tasks=99, num_bytes=250), InFlightLimit(tasks=1, num_bytes=0)])
def test_no_more_is_under_way_or_read_ahead_than_there_is_room_for(room: InFlightLimit) -> None:
    sizes = [int(size) for size in np.random.default_rng(0).integers(10, 120, size=60)]
    read: list[int] = []
    running: dict[int, int] = {}

    def numbered() -> Iterator[tuple[int, Chunk]]:
        for number, size in enumerate(sizes):
            read.append(number)
            yield number, Chunk(clips=[clip(b"x")] * (number + 1), num_bytes=size)

    def start(number: int, chunk: Chunk) -> int:
        running[number] = chunk.num_bytes
        assert len(running) == 1 or (len(running) <= room.tasks and sum(running.values()) <= room.num_bytes)
        assert read[-1] == number
        return number

    def wait(tasks: list[int]) -> int:
        assert sorted(tasks) == sorted(running)
        ended = tasks[len(read) % len(tasks)]  # not always the first
        del running[ended]
        return ended

    assert sorted(in_room(numbered(), lambda: room, start, wait)) == list(range(1, 61))
    assert not running


def test_nodes_that_join_are_used() -> None:
    numbered = ((number, Chunk(clips=[clip(b"x")], num_bytes=1)) for number in range(30))
    most = [0]
    num_nodes = iter(range(1, 1000))

    def wait(tasks: list[int]) -> int:
        most[0] = max(most[0], len(tasks))
        return tasks[0]

    list(in_room(numbered, lambda: InFlightLimit(tasks=next(num_nodes), num_bytes=99), lambda number, _: number, wait))
    assert most[0] > 5


@pytest.mark.parametrize("reason", [CorpusError("x.tar.gz: is damaged"), KeyboardInterrupt(), OSError("disk")])
def test_tasks_under_way_are_stopped_before_the_reason_goes_on(reason: BaseException) -> None:
    stopped: list[int] = []

    def numbered() -> Iterator[tuple[int, Chunk]]:
        for number in range(6):
            yield number, Chunk(clips=[clip(b"x")], num_bytes=1)
        raise reason

    with pytest.raises(type(reason)):
        list(in_room(numbered(), lambda: InFlightLimit(tasks=3, num_bytes=99), lambda number, _: number,
                     lambda tasks: tasks[0], stopped.extend))
    assert stopped == [3, 4, 5]


def test_late_shard_is_not_taken_for_one_of_what_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    making = begin_store(folder, "100@1")
    make_shard(folder, 0, [clip(sound(0))], LIMITS, making=making)
    assert begin_store(folder, "100@1") == making and is_shard_whole(folder, 0), "a making that was killed goes on"
    anew = begin_store(folder, "100@2")
    assert anew != making and not is_shard_whole(folder, 0), "what it was made of was replaced"
    with pytest.raises(FeatureStoreError, match="removed or restarted"):
        make_shard(folder, 1, [clip(sound(1))], LIMITS, making=making)
    shutil.rmtree(folder)
    with pytest.raises(FeatureStoreError, match="removed or restarted"):
        make_shard(folder, 1, [clip(sound(1))], LIMITS, making=anew)
    assert not folder.exists()
    assert begin_store(folder, "100@2") != anew, "the same state, made again after a failure"


@pytest.mark.slow
def test_damaged_tarball_leaves_no_task_that_writes_later(tmp_path: Path) -> None:
    """A slow task is under way when the reading fails; its process is gone before the reason arrives."""
    script = f"""
import os, pathlib, sys, time
import ray
from corpora.manifest import CorpusError
from search.speech import shards
from test_search_speech_shards import LIMITS, clip, sound
def slow(folder, number, *_):
    (folder / f"began{{number}}").touch()
    time.sleep(15)
    (folder.parent / "late").touch()
shards._make_shard_on_node = slow
shards.CHUNK_BYTES = 1
def clips():
    yield clip(sound(0), "a")
    yield clip(sound(1), "b")
    while not (folder / "began0").exists():
        time.sleep(0.1)
    raise CorpusError("x.tar.gz: is damaged")
folder = pathlib.Path({str(tmp_path / 'store')!r})
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
began = time.monotonic()
try:
    shards.make_shards(clips(), 2, folder, LIMITS)
except CorpusError as error:
    print(error, time.monotonic() - began < 60)
time.sleep(18)
print("late" in os.listdir(folder.parent))
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200,
                          env=os.environ | {"PYTHONPATH": path})
    assert done.stdout.splitlines() == ["x.tar.gz: is damaged True", "False"], done.stderr


def test_a_failed_task_ends_the_reading() -> None:
    def fail(tasks: list[int]) -> int:
        raise OSError("No space left on device")

    numbered = ((number, Chunk(clips=[clip(b"x")], num_bytes=1)) for number in range(9))
    with pytest.raises(OSError, match="No space"):
        list(in_room(numbered, lambda: InFlightLimit(tasks=2, num_bytes=9), lambda number, chunk: number, fail))
    assert next(numbered)[0] == 3


def test_shard_holds_the_clips_frames_and_names_those_left_out(tmp_path: Path) -> None:
    file = tmp_path / "clip.flac"
    file.write_bytes(sound(1, format="FLAC"))
    clips = [clip(sound(0), "a", "Hola, Ana"), clip(file, "b"), clip(b"", "c"), clip(sound(2, 0.2), "d"),
             clip(AudioError("e: is not in x.", "missing"), "e"), clip(sound(3), "f", "!!!"),
             clip(sound(4), "g", "漢字")]
    make_shard(tmp_path / "store", 0, clips, LIMITS)
    finish_store(tmp_path / "store", 1, {"num_clips": len(clips)})
    store = FeatureStore(tmp_path / "store")
    split = store.split("train")
    assert (split.ids, split.texts) == (["a", "b"], ["hola ana", "hola"])
    for row, content in enumerate((clips[0][2], file)):
        waveform = torch.from_numpy(decode(content))
        features, (num_frames,) = LogMel(LIMITS.frontend).eval()(waveform[None], torch.tensor([len(waveform)]))
        np.testing.assert_allclose(split.features(row), features[0, :, :num_frames].T, atol=2e-3)
    assert {bad["id"]: bad["reason"] for bad in store.bad_clips()} == {
        "c": "empty", "d": "too_short", "e": "missing", "f": "no_text", "g": "foreign_letters"}
    assert store.facts["bad_by_reason"]["too_short"] == 1


def test_node_that_does_not_see_the_store_makes_no_shard(tmp_path: Path) -> None:
    """It would be whole there, and nowhere else."""
    with pytest.raises(ClusterError, match="is not on storage that all nodes share"):
        _make_shard_on_node(tmp_path / "store", 0, [clip(sound(0))], LIMITS)
    assert not (tmp_path / "store").exists()


def test_threads_make_the_same_shard_as_one(tmp_path: Path) -> None:
    clips = [clip(sound(number) if number % 4 else b"cut off", str(number)) for number in range(24)]
    for threads in (1, 3):
        make_shard(tmp_path / str(threads), 0, clips, LIMITS, threads)
    one, three = ({path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()}
                  for name in ("1", "3"))
    assert len(one) >= 2 and one == three


def memory_of(make: Callable[[int], object], *sizes: int) -> list[int]:
    """Peak bytes that Python and NumPy allocate, by size."""
    peaks = []
    for size in sizes:
        tracemalloc.start()
        make(size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return peaks


def test_reading_ahead_takes_the_same_memory_for_any_number_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHUNK_BYTES", 100_000)

    def read(num_clips: int) -> None:
        numbered = enumerate(chunks((clip(bytes(10_000)) for _ in range(num_clips)), LIMITS))
        held: dict[int, Chunk] = {}
        room = InFlightLimit(tasks=99, num_bytes=500_000)

        def wait(tasks: list[int]) -> int:
            del held[tasks[0]]
            return tasks[0]

        def start(number: int, chunk: Chunk) -> int:
            held[number] = chunk
            return number

        assert sum(in_room(numbered, lambda: room, start, wait)) == num_clips

    few, many = memory_of(read, 200, 4000)
    assert few < 1_000_000
    assert many < 1.2 * few
