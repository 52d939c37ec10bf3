"""How fast a trial in small steps hears speech, compared with the bare network in small and in large steps.

    python benchmarks/small_steps.py             # both precisions, all threads
    python benchmarks/small_steps.py --threads 1 --precisions bf16

The trial is a study's own (`train_worker.train`, with Lightning, loading, SpecAugment and averaging), without Ray.
After every few of its steps the bare network takes its turns: forward, CTC loss, backward and AdamW on clips of equal
length. The trial's padding is not counted as speech, and it is stopped before it validates.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import network
import torch
from loading import write_store
from machine import FRAMES_PER_S, NUM_LABELS, PRECISIONS, seconds

from models.precision import Precision
from models.quartznet import AcousticModel, named_network
from models.vocabulary import CharacterVocabulary, vocabulary_path, vocabulary_to_bytes
from search.records.job import Job
from search.speech.task import SpeechTask
from search.task import Worker
from search.trials.context import Link, TrialContext, TrialStopped
from search.trials.train_worker import train
from spaces.recipe import Recipe, TrainingRecipe, TransferRecipe

CLIP_S = 5
"""Seconds of each clip of the bare network; a trial's have 4.8 on average."""

WARM_UP_STEPS = 2
"""First steps of a trial, which are not counted."""

CONTESTANTS = ("bare, large steps", "bare, small steps", "trial, small steps")


class Turns(Link):
    """Lets the bare network take its turns between a trial's steps, and stops the trial after the last turn."""

    def __init__(self, others: dict[str, Callable[[], None]], turns: int, steps: int) -> None:
        self.steps_per_turn = steps
        self.seconds: dict[str, list[float]] = {name: [] for name in (*others, CONTESTANTS[-1])}
        self._others, self._turns, self._steps = others, turns, -WARM_UP_STEPS
        self._since = 0.0

    def is_stopped(self) -> bool:
        """Asked by a trial after each step but an epoch's last."""
        self._steps += 1
        if self._steps > 0 and self._steps % self.steps_per_turn == 0:
            self.seconds[CONTESTANTS[-1]].append(time.perf_counter() - self._since)
        if self._steps % self.steps_per_turn == 0 and self._steps >= 0:
            for name, job in self._others.items():
                took = seconds(job, "cpu")
                if self._steps:  # the first is a warm-up
                    self.seconds[name].append(took)
            self._since = time.perf_counter()
        return self._steps >= self._turns * self.steps_per_turn


def recipe(given: argparse.Namespace) -> Recipe:
    """Small steps, everything else as it is by default; random weights take as long as a source's."""
    return Recipe(network=given.network, transfer=TransferRecipe(use_source=False),
                  training=TrainingRecipe(audio_s_per_step=given.small, epochs=1, gradient_clip=1.0))


def make_context(folder: Path, given: argparse.Namespace, precision: Precision) -> TrialContext:
    """What a study would tell its trials, with a store that holds more steps than are taken."""
    store = folder / "store"
    store.mkdir()
    num_steps = WARM_UP_STEPS + given.turns * given.steps + 1
    write_store(store, hours=2 * num_steps * given.small / 3600 + 0.05)
    path = vocabulary_path(store, recipe(given).vocabulary)
    path.write_bytes(vocabulary_to_bytes(CharacterVocabulary((" ", *ascii_lowercase, "'"))))
    task = SpeechTask(store=store, vocabularies=path.parent, precision=precision)
    return TrialContext(study="small_steps", folder=folder / "trials", task=task, num_workers=1,
                        cpus_per_worker=given.threads, gpus_per_worker=0.0, timeout_s=math.inf, wandb="off")


def bare_step(given: argparse.Namespace, audio_s: int, precision: str) -> Callable[[], None]:
    """A training step of the bare network."""
    module = AcousticModel(named_network(given.network), NUM_LABELS)
    batch = network.Batch.of(max(1, audio_s // CLIP_S), min(CLIP_S, audio_s), 64, "cpu")
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        network.train(module, batch, PRECISIONS[precision])
        optimizer.step()

    return step


def heard_s(context: TrialContext, job: Job, turns: Turns) -> list[float]:
    """Seconds of speech in each of the trial's turns, padding left out; the same plan gives the same batches."""
    data, _ = context.task.build(job.recipe, job.seed, Worker(device="cpu"))
    count = len(turns.seconds[CONTESTANTS[-1]]) * turns.steps_per_turn
    steps = [float(batch.feature_lengths.sum()) / FRAMES_PER_S
             for batch in islice(data.train_dataloader(), WARM_UP_STEPS, WARM_UP_STEPS + count)]
    return [sum(steps[i : i + turns.steps_per_turn]) for i in range(0, count, turns.steps_per_turn)]


def measure(given: argparse.Namespace, precision: Precision) -> dict[str, float]:
    """Seconds of speech heard in a second by each contestant, the median of its turns."""
    sizes = {CONTESTANTS[0]: given.large, CONTESTANTS[1]: given.small}
    turns = Turns({name: bare_step(given, audio_s, precision) for name, audio_s in sizes.items()}, given.turns,
                  given.steps)
    job = Job(id="0000", recipe=recipe(given), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        context = make_context(Path(folder), given, precision)
        with suppress(TrialStopped):
            train(job, context, turns, time.time())
        heard = heard_s(context, job, turns)
    speeds = {name: max(1, audio_s // CLIP_S) * min(CLIP_S, audio_s) / statistics.median(turns.seconds[name])
              for name, audio_s in sizes.items()}
    trial = [audio_s / took for audio_s, took in zip(heard, turns.seconds[CONTESTANTS[-1]], strict=True)]
    return speeds | {CONTESTANTS[-1]: statistics.median(trial)}


def table(given: argparse.Namespace) -> Iterator[str]:
    """Markdown: times real time of each, and the two shares of the large steps' speed."""
    yield (f"| numbers | {given.large} s bare | {given.small} s bare | {given.small} s in a trial | of the large "
           "steps: bare | in a trial |")
    yield "|---|---|---|---|---|---|"
    for precision in given.precisions:
        large, *small = measure(given, precision).values()
        yield (f"| {precision} | {' | '.join(f'{speed:.1f}' for speed in (large, *small))} | "
               f"{' | '.join(f'{100 * speed / large:.0f} %' for speed in small)} |")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="15x5", help="a published QuartzNet (default: %(default)s)")
    parser.add_argument("--small", type=int, default=15, help="seconds of a small step (default: %(default)s)")
    parser.add_argument("--large", type=int, default=160, help="seconds of a large step (default: %(default)s)")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--turns", type=int, default=7, help="timed turns of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of the trial in a turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parsed = parser.parse_args(given)
    if min(parsed.small, parsed.large, parsed.turns, parsed.steps, parsed.threads) < 1:
        parser.error("--small, --large, --turns, --steps and --threads must be 1 or more.")
    return parsed


def main() -> None:
    """Measure and print."""
    given = arguments()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    about: dict[str, Any] = {"threads": given.threads, "torch": torch.__version__}
    print(json.dumps(about))
    for line in table(given):
        print(line, flush=True)


if __name__ == "__main__":
    main()
