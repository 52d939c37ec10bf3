"""How many times faster than real time audio files are transcribed: many short clips, and one long file.

    python benchmarks/transcribe.py                                      # random weights: a minute on two cores
    python benchmarks/transcribe.py --model runs/NAME/best/model.nemo
    python benchmarks/transcribe.py --clips 200 --minutes 60 --repeat 5

The files are MP3 at 48 kHz, of noise that swells and fades like speech with pauses; what is timed runs from the files
to their words. The contestants take turns in one run; medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from corpora.audio import AudioError, decode_blocks
from models.export import export_onnx
from models.frontend import FrontendConfig
from models.onnx_runtime import load_onnx
from models.quartznet import AcousticModel, named_network
from models.recognizer import Recognizer
from models.transcription import Transcriber
from models.vocabulary import CharacterVocabulary

FILE_RATE_HZ = 48_000
CLIP_LIMITS_S = (2.0, 9.0)
"""As Common Voice's."""
PRECISIONS = ("float32", "bf16")
ONNX = "ONNX Runtime"

Contestants = dict[str, Callable[[list[Path]], None]]


def contestants(recognizer: Recognizer, folder: Path, threads: int = 1) -> Contestants:
    """What transcribes, by name; `decoding` only reads the sound, which is a part of all the others. The exported model
    is written into the folder."""
    export_onnx(recognizer, folder / "model.onnx", frontend=True)

    def decoding(files: list[Path]) -> None:
        for file in files:
            for _ in decode_blocks(file):
                pass

    def by(transcriber: Transcriber) -> Callable[[list[Path]], None]:
        def transcribe(files: list[Path]) -> None:
            for transcript in transcriber.transcribe(files):
                if isinstance(transcript, AudioError):
                    raise transcript
        return transcribe

    return {"decoding": decoding, **{
        name: by(Recognizer(recognizer.frontend.config, recognizer.acoustic, recognizer.vocabulary, name).transcriber)
        for name in PRECISIONS}, ONNX: by(load_onnx(folder / "model.onnx", threads))}


def write_sound(path: Path, duration_s: float, seed: int) -> None:
    """Noise with four swells a second, in sentences of a few seconds with pauses between."""
    generator = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", FILE_RATE_HZ, 1) as file:
        left = round(duration_s * FILE_RATE_HZ)
        while left > 0:
            count = min(left, round(generator.uniform(3, 8) * FILE_RATE_HZ))
            at_s = np.arange(count) / FILE_RATE_HZ
            swell = np.sin(2 * np.pi * 4 * at_s) ** 2 * (at_s < 0.85 * count / FILE_RATE_HZ)
            file.write((0.1 * swell * generator.standard_normal(count)).astype(np.float32))
            left -= count


def medians(turns: Contestants, files: list[Path], repeat: int, on_turn: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each; they take turns, and the first turn of each is not counted."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeat + 1):
        for name, turn in turns.items():
            began = time.perf_counter()
            turn(files)
            times[name].append(time.perf_counter() - began)
            on_turn()
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def table(rows: list[tuple[str, float, dict[str, float]]]) -> Iterator[str]:
    """Markdown: seconds of each, times real time, and bf16 beside float32."""
    names = list(rows[0][2])
    yield (f"| sound | {' | '.join(f'{name}, s' for name in names)} | "
           f"{' | '.join(f'times real time, {name}' for name in names[1:])} | bf16 than float32 |")
    yield "|---" * (2 * len(names) + 1) + "|"
    for what, seconds, times in rows:
        yield (f"| {what} | {' | '.join(f'{times[name]:.2f}' for name in names)} | "
               f"{' | '.join(f'{seconds / times[name]:.0f}' for name in names[1:])} | "
               f"{times['float32'] / times['bf16']:.2f} times faster |")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a .nemo file (default: --network with random weights)")
    parser.add_argument("--network", default="15x5", help="(default: %(default)s)")
    parser.add_argument("--clips", type=int, default=64, help="short ones (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=6.0, help="of the long file (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="timed turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    given = parser.parse_args()
    if min(given.clips, given.repeat, given.threads) < 1 or given.minutes <= 0:
        parser.error("--clips, --repeat and --threads must be 1 or more, --minutes above 0.")
    return given


def main() -> None:
    """Write the sound, measure, print."""
    given = arguments()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    vocabulary = CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    recognizer = Recognizer.load(given.model) if given.model else Recognizer(
        FrontendConfig(), AcousticModel(named_network(given.network), vocabulary.size + 1), vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        turns = contestants(recognizer, Path(folder), given.threads)
        clips = [Path(folder) / f"{number}.mp3" for number in range(given.clips)]
        durations_s = np.random.default_rng(0).uniform(*CLIP_LIMITS_S, given.clips)
        for seed, (clip, duration_s) in enumerate(zip(clips, durations_s, strict=True)):
            write_sound(clip, duration_s, seed)
        long = Path(folder) / "long.mp3"
        write_sound(long, 60 * given.minutes, 0)
        clips_s = float(durations_s.sum())
        work = [(f"{given.clips} clips, {clips_s:.0f} s", clips_s, clips),
                (f"one file of {given.minutes:g} minutes", 60 * given.minutes, [long])]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as progress:
            bar = progress.add_task("", total=len(work) * len(turns) * (given.repeat + 1))
            rows = []
            for what, seconds, files in work:
                progress.update(bar, description=what)
                rows.append((what, seconds, medians(turns, files, given.repeat, lambda: progress.advance(bar))))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
