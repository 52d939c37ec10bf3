"""What it costs to find a good recipe, for real: searchers that train on the embedded default, side by side.

    python benchmarks/search_for_real.py runs.json                # 20 seeds of each searcher; hours on two cores
    python benchmarks/search_for_real.py runs.json --seeds 5 --seconds 120 --plot cost.html

Each search trains one trial after the other on one core until its seconds of processor time are spent; as many searches
run at a time as there are cores, the searchers taking turns. *Found* is a dev word error rate, seen by the searcher at
a full training, within 2, 5 or 10 % relative of the lowest of all searches: another seed alone moves one by some
percent. An interrupted recording resumes where it stopped.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
import ray
from contenders import CONTENDERS, PLAIN, Contender
from optuna.trial import FixedTrial
from searchers import Search, draw_plot, table

from search import cluster
from search.config import StudyConfig
from search.records.files import write_json
from search.records.job import Job
from search.records.run_folder import RunFolder
from search.records.trial_record import first_line, read_failure
from search.speech import embedded_study
from search.speech.search_space import load_space
from search.speech.study_inputs import prepare
from search.trials.context import Link, TrialContext
from search.trials.train_worker import train

WITHIN = (0.02, 0.05, 0.1)
"""Of the lowest word error rate of all searches, relative."""


class Ground:
    """What searchers need to know of a study: the space, its hand recipes and its rungs."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config.resolved()
        options = {"max_epochs": self._config.max_epochs, "has_source": True}
        space = load_space(self._config.space)
        self.curves = SimpleNamespace(
            sample=partial(space.sample, **options), hand_recipes=list(space.baseline(**options).values()),
            grace_epochs=self._config.grace_epochs, reduction_factor=self._config.reduction_factor,
            max_epochs=options["max_epochs"])

    def draw(self, random: np.random.Generator, count: int) -> list[dict[str, Any]]:
        """Random recipes, as parameters."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(random.integers(2**31))))
        found = []
        for _ in range(count):
            trial = study.ask()
            self.curves.sample(trial)
            found.append(trial.params)
        return found


@dataclass
class Judged(Link):
    """A trial that reports its epochs to a searcher, which may stop it."""

    contender: Contender
    name: str
    epochs: int
    """Of a full training."""
    is_plain: bool
    dev_audio_s: float
    spared: float = 0.0
    """Share of its time for looks with the averaged weights, which who sees the latest alone would not take."""
    lowest: float = float("inf")
    is_whole: bool = False

    def report(self, metrics: dict[str, Any]) -> None:
        """Pass an epoch on, and leave the trial where it was stopped."""
        epoch, wer = metrics["epoch"], metrics["latest_wer" if self.is_plain else "wer"]
        if self.is_plain:
            self.spared = epoch * self.dev_audio_s / metrics["times_real_time"] / metrics["train_s"]
        self.lowest = min(self.lowest, wer)
        if not self.contender.report(self.name, epoch, wer):
            self.is_whole = epoch == self.epochs
            sys.exit(0)


@ray.remote(num_cpus=1)
def play(title: str, seed: int, limit_s: float, context: TrialContext, config: StudyConfig,
         dev_audio_s: float) -> tuple[str, int, list[tuple[float, float]], int]:
    """One search: (processor seconds, lowest word error rate of a full training) at changes, and the trials begun."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ground: Any = Ground(config)
    make = CONTENDERS[title]
    contender, spent_s, best, changes, number = make(ground, seed), 0.0, float("inf"), [], 0
    while spent_s < limit_s:
        name = str(number)
        recipe = ground.curves.sample(FixedTrial(contender.begin(name)))
        link = Judged(contender, name, recipe.training.epochs, make in PLAIN, dev_audio_s)
        job = Job(id=f"{list(CONTENDERS).index(title)}-{seed:02d}-{number:04d}", recipe=recipe, seed=seed)
        began_s = time.process_time()
        try:
            train(job, context, link, time.time())
        except SystemExit:
            pass
        except Exception as error:  # a loss that is not finite: the searcher gets the worst value
            print(first_line(error), read_failure(context.folder / job.id))
            contender.report(name, recipe.training.epochs, 1.0)
        spent_s, number = spent_s + (time.process_time() - began_s) * (1 - link.spared), number + 1
        if link.is_whole and link.lowest < best:
            best = link.lowest
            changes.append((spent_s, best))
    return title, seed, changes, number


def record(file: Path, seeds: int, limit_s: float, cache: str | None) -> list[dict[str, Any]]:
    """Play what the file does not hold yet, and keep each search as it ends."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    folder = file.with_name(file.name + ".trials").resolve()
    run = RunFolder.open(StudyConfig(out=str(folder), wandb="off", cache=cache), resume=False)
    done = {(row["searcher"], row["seed"]) for row in known}
    left = [(title, seed) for seed in range(seeds) for title in CONTENDERS if (title, seed) not in done]
    with cluster.connected():
        prepared = prepare(run, embedded_study.make_inputs(run.config))
        context = replace(prepared.context, wandb="off")
        dev_s = prepared.store.split("dev").duration_s
        waiting = [play.remote(title, seed, limit_s, context, run.config, dev_s) for title, seed in left]
        while waiting:
            [ready], waiting = ray.wait(waiting)
            title, seed, changes, trials = ray.get(ready)
            known.append({"searcher": title, "seed": seed, "changes": changes, "trials": trials, "limit_s": limit_s})
            write_json(file, known)
            print(f"{title}, seed {seed}: {trials} trials, {len(waiting)} searches to go", flush=True)
    return known


def found(rows: Sequence[dict[str, Any]], limit: float) -> dict[str, list[Search]]:
    """The searches by searcher; one has found what it looks for with a word error rate of at most `limit`."""
    searches: dict[str, list[Search]] = {title: [] for title in CONTENDERS}
    for row in rows:
        good = [seconds for seconds, wer in row["changes"] if wer <= limit]
        searches[row["searcher"]].append(Search(
            costs_s=[seconds for seconds, _ in row["changes"]], true_wers=[wer for _, wer in row["changes"]],
            found_s=min(good, default=float("inf")), num_trials=row["trials"]))
    return {title: those for title, those in searches.items() if those}


def reached(searches: dict[str, list[Search]], seconds: Sequence[float]) -> list[str]:
    """A Markdown table: the lowest word error rate after so many seconds, median over the seeds."""
    lines = [f"| searcher | {' | '.join(f'{s:g} s' for s in seconds)} |", "|---" * (len(seconds) + 1) + "|"]
    for title, those in searches.items():
        cells = []
        for limit in seconds:
            wers = [min((wer for cost, wer in zip(one.costs_s, one.true_wers, strict=True) if cost <= limit),
                        default=1.0) for one in those]
            cells.append(f"{statistics.median(wers):.1%}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Play, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the searches, as they end: JSON")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each searcher (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=240.0, help="of a search, on one core (default: %(default)s)")
    parser.add_argument("--cache", help="folder of features, as of run.py")
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="draw best so far against cost")
    given = parser.parse_args()
    if given.seeds < 1 or given.seconds <= 0:
        parser.error("--seeds must be at least 1, --seconds above 0.")
    rows = record(given.file, given.seeds, given.seconds, given.cache)
    best = min(wer for row in rows for _, wer in row["changes"])
    print(f"lowest dev WER of all searches {best:.1%}")
    for share in WITHIN:
        searches = found(rows, (1 + share) * best)
        print(f"\nwithin {share:.0%}, {(1 + share) * best:.1%}:\n", *table(searches), sep="\n")
    print("", *reached(searches, [given.seconds * share for share in (0.125, 0.25, 0.5, 1)]), sep="\n")
    if given.plot:
        figure: go.Figure = draw_plot(searches, best)
        figure.update_xaxes(title="seconds of processor time")
        figure.update_yaxes(title="WER above the lowest of all searches, %")
        figure.write_html(given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
