"""From a release's tarball to features: hours of audio per minute and core by stage, compared with a plain loop.

    python benchmarks/corpus.py                       # 0.2 hours of generated MP3 clips, one core, 5 rounds
    python benchmarks/corpus.py --corpus ES.tar.gz    # a release's own clips, repeated
    python benchmarks/corpus.py --hours 50 --ray      # the whole way on a local Ray: wall time, resident memory

The plain loop takes the same libraries as they come: tarfile, soundfile, torchaudio's Resample, our LogMel, np.save, a
clip at a time. Both run in one process on one thread, in turns, and are charged the processor's time, not the wall's.
"""

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch
from processes import family, pss_bytes
from torchaudio.transforms import Resample

from corpora import audio
from corpora.corpus import open_corpus
from corpora.languages import SPANISH
from corpora.text import TextChanges
from models.frontend import SAMPLE_RATE_HZ, FrontendConfig, LogMel
from search import cluster
from search.speech import shards
from search.speech.features import join_corpora, prepare_features

RATE_HZ = 48_000
"""Of Common Voice's clips since 2021; their bit rate is near that of the generated ones."""
MEAN_S = 4.9
STAGES = ("read", "decode", "resample", "log-mel", "text", "write", "rest")
LIMITS = shards.ClipLimits(language=SPANISH, min_duration_s=0.3, max_duration_s=20.0, frontend=FrontendConfig())
SENTENCE = "Esta frase se repite en cada fila de la tabla."


# --- a release ------------------------------------------------------------------------------------------------------


def write_release(path: Path, hours: float, clips: Sequence[bytes]) -> float:
    """Write a Common Voice tarball that repeats clips for so many hours; returns its seconds of audio."""
    durations = [soundfile.info(io.BytesIO(clip)).duration for clip in clips]
    num_clips, seconds = 0, 0.0
    while seconds < 3600 * hours:
        seconds += durations[num_clips % len(clips)]
        num_clips += 1
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for split, numbers in (("train", range(2, num_clips)), ("dev", range(1)), ("test", range(1, 2))):
            rows = "".join(f"speaker{number % 997}\tclip_{number}.mp3\t{SENTENCE}\n" for number in numbers)
            _add(tar, f"{split}.tsv", f"client_id\tpath\tsentence\n{rows}".encode())
        for number in range(num_clips):
            _add(tar, f"clips/clip_{number}.mp3", clips[number % len(clips)])
    return seconds


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"cv-corpus-0.0/es/{name}")
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def generated_clips(num_clips: int, seed: int) -> list[bytes]:
    """MP3 clips of syllables of noise, as long as Common Voice's."""
    generator = np.random.default_rng(seed)
    clips = []
    for _ in range(num_clips):
        duration_s = float(np.clip(generator.gamma(9.0, MEAN_S / 9.0), 1.0, 12.0))
        at_s = np.arange(round(RATE_HZ * duration_s)) / RATE_HZ
        noise = np.convolve(generator.standard_normal(len(at_s)), np.ones(12) / 12, mode="same")
        file = io.BytesIO()
        soundfile.write(file, 0.3 * noise * (1 + np.sin(2 * np.pi * 4 * at_s)) / 2, RATE_HZ, format="MP3",
                        bitrate_mode="CONSTANT", compression_level=0.9)
        clips.append(file.getvalue())
    return clips


def clips_of(corpus: Path) -> list[bytes]:
    """The clips of a release."""
    found = open_corpus(corpus)
    return [clip for _, _, clip in found.clips(found.splits) if isinstance(clip, bytes)]


# --- one core -------------------------------------------------------------------------------------------------------


class Stages:
    """Seconds of processor time by stage, of the thread that is in it; `whole` of all threads."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    @contextmanager
    def charging(self, stage: str) -> Iterator[None]:
        """Charge the block to a stage."""
        clock = time.process_time if stage == "whole" else time.thread_time
        begin = clock()
        try:
            yield
        finally:
            self.spent[stage] += clock() - begin

    def charged(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, charged to a stage."""
        def inner(*args: Any, **options: Any) -> Any:
            with self.charging(stage):
                return call(*args, **options)
        return inner

    def each(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        """The same items, with what it takes to get them charged to a stage."""
        nothing = object()
        while (item := self.charged(stage, next)(items, nothing)) is not nothing:
            yield item


OURS = {"decode": ((audio, "_read"),), "resample": ((audio, "_resample"),), "log-mel": ((LogMel, "forward"),),
        "text": ((shards, "normalise"), (shards, "why_unusable"), (TextChanges, "observe")),
        "write": ((shards, "write_shard"),)}
"""Whose time is whose."""


def our_path(release: Path, folder: Path, stages: Stages) -> None:
    """What a study does, but for Ray."""
    with ExitStack() as stack:
        for stage, calls in OURS.items():
            for owner, name in calls:
                stack.enter_context(mock.patch.object(owner, name, stages.charged(stage, getattr(owner, name))))
        clips = stages.each("read", shards.all_clips([open_corpus(release)]))
        for number, chunk in enumerate(shards.chunks(clips, LIMITS)):
            shards.make_shard(folder, number, chunk.clips, LIMITS)


def plain_loop(release: Path, folder: Path, stages: Stages) -> None:
    """The same libraries as they come, a clip at a time."""
    folder.mkdir()
    resamplers: dict[int, Resample] = {}
    log_mel = LogMel(FrontendConfig()).eval()
    with tarfile.open(release, "r:gz") as tar, torch.inference_mode():
        for member in stages.each("read", iter(tar)):
            with stages.charging("read"):
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
            if not member.name.endswith(".mp3"):
                continue
            with stages.charging("decode"):
                samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
            mono = torch.from_numpy(samples.mean(axis=1))
            with stages.charging("resample"):
                if rate_hz not in resamplers:
                    resamplers[rate_hz] = Resample(rate_hz, SAMPLE_RATE_HZ)
                waveform = resamplers[rate_hz](mono)
            with stages.charging("log-mel"):
                features, lengths = log_mel(waveform[None], torch.tensor([len(waveform)]))
            with stages.charging("write"):
                np.save(folder / Path(member.name).stem, features[0, :, : int(lengths[0])].T.half().numpy())


WAYS = {"Cuarzo": our_path, "plain loop": plain_loop}


def measure(release: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of processor by way and stage; the ways take turns."""
    torch.set_num_threads(1)
    seen: dict[str, list[Counter[str]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, run in WAYS.items():
            stages = Stages()
            with tempfile.TemporaryDirectory() as name, stages.charging("whole"):
                run(release, Path(name) / "features", stages)
            stages.spent["rest"] = 2 * stages.spent["whole"] - stages.spent.total()
            seen[way].append(stages.spent)
    return {way: {stage: statistics.median(spent[stage] for spent in found) for stage in (*STAGES, "whole")}
            for way, found in seen.items()}


def table(spent: dict[str, dict[str, float]], audio_s: float) -> Iterator[str]:
    """Markdown: times real time and share of the whole by stage and way."""
    yield f"| stage | {' | '.join(f'{way}, h/min | share' for way in spent)} |"
    yield "|---" * (1 + 2 * len(spent)) + "|"
    for stage in (*STAGES, "whole"):
        cells = []
        for seconds in spent.values():
            hours = audio_s / 60 / seconds[stage] if seconds[stage] > 0 else float("inf")
            cells.append(f"{hours:,.1f} | {100 * seconds[stage] / seconds['whole']:.0f} %")
        yield f"| {stage} | {' | '.join(cells)} |"
    times = {way: audio_s / seconds["whole"] for way, seconds in spent.items()}
    yield ""
    yield (f"a core: Cuarzo {times['Cuarzo']:,.0f} times real time, the plain loop {times['plain loop']:,.0f}; "
           f"{times['Cuarzo'] / times['plain loop']:.2f} times as fast")


# --- on Ray ---------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """The most memory that this process and all that it started held at a time, shared pages counted once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most_bytes = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Until the end."""
        while not self.ended.wait(0.5):
            self.most_bytes = max(self.most_bytes, sum(map(pss_bytes, family(os.getpid()))))


def on_ray(release: Path, folder: Path, audio_s: float) -> dict[str, float]:
    """A study's features, made on a local Ray: times real time by the wall, and the most memory of all processes."""
    watch = Watch()
    with cluster.connected():
        watch.start()
        begin = time.perf_counter()
        prepare_features(join_corpora([str(release)]), LIMITS, folder)
        wall_s = time.perf_counter() - begin
        watch.ended.set()
        watch.join()
    return {"cpus": os.cpu_count() or 1, "wall_s": wall_s, "times_real_time": audio_s / wall_s,
            "memory_gb": watch.most_bytes / 1e9}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.2, help="of audio in the release (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="a Common Voice tarball whose clips are taken")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--ray", action="store_true", help="our path alone, with all CPUs")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    return parser.parse_args(given)


def main() -> None:
    """Measure, print."""
    given = arguments()
    with tempfile.TemporaryDirectory() as name:
        release = Path(name) / "cv-corpus-0.0-es.tar.gz"
        clips = clips_of(given.corpus) if given.corpus else generated_clips(64, given.seed)
        audio_s = write_release(release, given.hours, clips)
        figures: dict[str, Any] = {"audio_s": audio_s, "num_bytes": release.stat().st_size}
        print(json.dumps(figures), flush=True)
        if given.ray:
            figures |= on_ray(release, Path(name) / "cache", audio_s)
            print(json.dumps(figures))
        else:
            figures["spent"] = measure(release, given.rounds)
            print("\n".join(table(figures["spent"], audio_s)))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
