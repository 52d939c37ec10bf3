"""Whether training waits for its batches: their time compared with a step's, their padding, and memory by process.

    python benchmarks/loading.py               # the tables of benchmarks/README.md
    python benchmarks/loading.py --hours 20 --networks 5x5 --repeat 20

The store is synthetic: noise in clips as long as those of Common Voice. Everything runs in one process without extra
threads, as in a trial; batches and steps are timed in turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import network
import numpy as np
import torch
from processes import mapped_bytes, pss_bytes

from corpora.batches import PAD_FRAMES_TO, Batch, Share, SpeechData, plan_epoch
from corpora.features import FRAMES_PER_S, FeatureRow, FeatureStore, finish_store, write_shard
from corpora.speed import draw_tenths, frames_at
from models.augment import SpecAugment
from models.precision import choose_precision
from models.quartznet import AcousticModel, named_network

MEAN_LOG_S, DEVIATION_LOG_S = 1.50, 0.40
"""Of the logarithm of a clip's seconds: 64 clips of Common Voice's Spanish release 6.1, 1.3 to 8.1 s, mean 4.8 s."""

CLIPS_PER_SHARD = 256
"""As many of mean length fill a shard."""

LIMITS_S = (1.0, 20.0)

LETTERS_PER_S = 12

STEPS_S = (30, 60, 120, 240, 480)
"""Padded seconds of a step: what `spaces/spanish.py` draws from."""

PADDING_HOURS = 50.0

LONGEST_CORPUS_H = 600.0


def lengths_like_common_voice(hours: float, seed: int = 0) -> np.ndarray:
    """Frames of clips, `hours` in all."""
    generator = np.random.default_rng(seed)
    mean_s = np.exp(MEAN_LOG_S + DEVIATION_LOG_S**2 / 2)
    seconds = generator.lognormal(MEAN_LOG_S, DEVIATION_LOG_S, size=max(2, int(hours * 3600 / mean_s)))
    return (FRAMES_PER_S * seconds.clip(*LIMITS_S)).astype(np.int64)


def write_store(folder: Path, hours: float) -> FeatureStore:
    """A store of noise, in shards as those of a study."""
    generator = np.random.default_rng(1)
    lengths = lengths_like_common_voice(hours)
    noise = generator.standard_normal((int(lengths.max()) + FRAMES_PER_S, 64)).astype(np.float16)
    rows = []
    for clip, num_frames in enumerate(lengths.tolist()):
        first = int(generator.integers(len(noise) - num_frames))
        letters = generator.integers(26, size=max(1, num_frames * LETTERS_PER_S // FRAMES_PER_S))
        rows.append(FeatureRow(id=str(clip), split="train" if clip else "dev", speaker=str(clip), duration_s=num_frames
                               / FRAMES_PER_S, text=bytes(97 + letters.astype(np.uint8)).decode(),
                               features=noise[first : first + num_frames]))
    num_shards = -(-len(rows) // CLIPS_PER_SHARD)
    for number in range(num_shards):
        write_shard(folder, number, rows[number * CLIPS_PER_SHARD : (number + 1) * CLIPS_PER_SHARD], [])
    finish_store(folder, num_shards, {})
    return FeatureStore(folder)


def data(store: FeatureStore, audio_s: float, perturbs_speed: bool) -> SpeechData:
    """Batches for one worker."""
    return SpeechData(store, lambda text: [ord(letter) - 97 for letter in text], audio_s_per_step=audio_s,
                      is_usable=lambda labels, frames: frames >= 2 * len(labels), share=Share(), seed=0,
                      perturbs_speed=perturbs_speed)


# --- time -----------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], into: list[float]) -> Any:
    """What `work` gives; its milliseconds are kept."""
    start = time.perf_counter()
    result = work()
    into.append(1000 * (time.perf_counter() - start))
    return result


def loading_times(store: FeatureStore, audio_s: float, networks: dict[str, torch.nn.Module], repeat: int
                  ) -> dict[str, float]:
    """Median milliseconds for a batch of `audio_s`: `as it is`, with `speed`, its `SpecAugment`, and a step of each."""
    loaders = {name: endless(data(store, audio_s, name == "speed")) for name in ("as it is", "speed")}
    augment = SpecAugment("cutout", 1.0, 0).train()
    dtype = choose_precision("auto", "cpu")
    optimizers = {name: torch.optim.AdamW(module.parameters(), lr=1e-5, foreach=True)
                  for name, module in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in ("as it is", "speed", "SpecAugment", *networks)}
    for _ in range(repeat + 1):  # the first turn is not counted
        timed(lambda: next(loaders["as it is"]), times["as it is"])
        batch: Batch = timed(lambda: next(loaders["speed"]), times["speed"])
        features = timed(lambda batch=batch: augment(batch.features, batch.feature_lengths), times["SpecAugment"])
        work = network.Batch(features, batch.feature_lengths, batch.targets, batch.target_lengths)
        for name, module in networks.items():
            def step(name: str = name, module: torch.nn.Module = module, work: network.Batch = work) -> None:
                optimizers[name].zero_grad()
                network.train(module, work, dtype)
                optimizers[name].step()

            timed(step, times[name])
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def endless(speech: SpeechData) -> Iterator[Batch]:
    """One epoch after the other."""
    while True:
        yield from speech.train_dataloader()


def report_times(store: FeatureStore, sizes: list[int], names: list[str], repeat: int) -> Iterator[str]:
    """Markdown: what a batch and a step take, and loading's share."""
    networks: dict[str, torch.nn.Module] = {name: AcousticModel(named_network(name), 27) for name in names}
    yield (f"| s a pass | batches/s | a batch, ms | with speed perturbation | SpecAugment | "
           f"{' | '.join(f'step of a {name}, ms' for name in names)} | "
           f"{' | '.join(f'all of loading, of the {name}' for name in names)} |")
    yield "|---" * (5 + 2 * len(names)) + "|"
    for audio_s in sizes:
        times = loading_times(store, audio_s, networks, repeat)
        loading = times["speed"] + times["SpecAugment"]
        yield (f"| {audio_s} | {1000 / loading:.0f} | {times['as it is']:.2f} | {times['speed']:.2f} | "
               f"{times['SpecAugment']:.2f} | {' | '.join(f'{times[name]:.0f}' for name in names)} | "
               f"{' | '.join(f'{100 * loading / (loading + times[name]):.2f} %' for name in names)} |")


# --- padding --------------------------------------------------------------------------------------------------------


def padding(num_frames: np.ndarray, audio_s: int) -> tuple[float, float, int]:
    """Shares of the frames that are padding: to a batch's longest clip, and from there to the multiple; its steps."""
    batches = plan_epoch(num_frames, audio_s * FRAMES_PER_S, seed=0, epoch=0)
    longest = np.array([num_frames[batch].max() for batch in batches])
    clips = np.array([len(batch) for batch in batches])
    padded, rounded = (clips * longest).sum(), (clips * -(-longest // PAD_FRAMES_TO) * PAD_FRAMES_TO).sum()
    return (padded - num_frames.sum()) / rounded, (rounded - padded) / rounded, len(batches)


def report_padding() -> Iterator[str]:
    """Markdown: padding by the size of a step."""
    frames = lengths_like_common_voice(PADDING_HOURS)
    faster_slower = frames_at(frames, draw_tenths(len(frames), 0, 0))
    yield (f"| s a step | steps in {PADDING_HOURS:.0f} h | padding to the longest clip | to a multiple of "
           f"{PAD_FRAMES_TO} frames | both, with speed perturbation |")
    yield "|---|---|---|---|---|"
    for audio_s in STEPS_S:
        to_longest, to_multiple, steps = padding(frames, audio_s)
        yield (f"| {audio_s} | {steps} | {100 * to_longest:.1f} % | {100 * to_multiple:.1f} % | "
               f"{100 * sum(padding(faster_slower, audio_s)[:2]):.1f} % |")
    many = lengths_like_common_voice(LONGEST_CORPUS_H)
    took: list[float] = []
    timed(lambda: plan_epoch(many, 60 * FRAMES_PER_S, 0, 0), took)
    yield f"\nAn epoch of {LONGEST_CORPUS_H:.0f} h, {len(many):,} clips, is cut into batches in {took[0]:.0f} ms."


# --- memory ---------------------------------------------------------------------------------------------------------


def read_all(folder: Path) -> None:
    """Be a trial that reads an epoch, says so, and stays until its input ends."""
    speech = data(FeatureStore(folder), 60, perturbs_speed=True)
    num_clips = sum(len(batch.rows) for batch in speech.train_dataloader())
    print("read", flush=True)
    sys.stdin.read()
    assert num_clips + speech.num_left_out == len(speech.train_split), "the store stays mapped until here"


def report_memory(folder: Path) -> Iterator[str]:
    """Markdown: what one and two processes hold that have read the same store."""
    megabytes = sum(file.stat().st_size for file in folder.glob("*.npy")) / 1e6
    yield f"| processes | the store's {megabytes:.0f} MB in each, as a part | in all | a whole process, as a part |"
    yield "|---|---|---|---|"
    with ExitStack() as stack:
        readers: list[subprocess.Popen[str]] = []
        for number in (1, 2):
            reader = stack.enter_context(subprocess.Popen([sys.executable, __file__, "--read", str(folder)], text=True,
                                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            readers.append(reader)
            assert reader.stdout is not None and reader.stdout.readline() == "read\n"
            features = [mapped_bytes(each.pid, str(folder)) / 1e6 for each in readers]
            yield (f"| {number} | {' and '.join(f'{each:.0f}' for each in features)} MB | {sum(features):.0f} MB | "
                   f"{' and '.join(f'{pss_bytes(each.pid) / 1e6:.0f}' for each in readers)} MB |")
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10.0, help="of the synthetic store (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 80], metavar="SECONDS",
                        help="padded seconds of a pass; steps above 80 s are several on a CPU (default: 30 60 80)")
    parser.add_argument("--networks", nargs="+", default=["5x5", "15x5"], help="(default: 5x5 15x5)")
    parser.add_argument("--repeat", type=int, default=7, help="timed turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not 0 < given.hours <= LONGEST_CORPUS_H or given.repeat < 1 or min(given.sizes) < 1:
        parser.error(f"--hours must be in (0, {LONGEST_CORPUS_H:g}], --repeat and --sizes 1 or more.")
    return given


def main() -> None:
    """Measure and print."""
    given = arguments()
    torch.set_num_threads(given.threads)
    if given.read:
        read_all(given.read)
        return
    torch.manual_seed(0)
    print(*report_padding(), sep="\n", end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), given.hours)
        print(f"{given.hours:g} h, {len(store.split('train')):,} clips, {given.threads} threads:\n")
        for line in report_memory(Path(folder)):
            print(line, flush=True)
        print()
        for line in report_times(store, given.sizes, given.networks, given.repeat):
            print(line, flush=True)


if __name__ == "__main__":
    main()
