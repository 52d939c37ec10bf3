"""The cost of finding the best recipe: random search, TPE, ASHA as in Ray and Optuna, and Cuarzo.

    python benchmarks/search.py --curves FILE                      # 40 seeds of each searcher, a Markdown table
    python benchmarks/search.py --curves FILE --plot cost.html     # and best so far against cost

Trainings are played from a surrogate of recorded curves (surrogate.py), on several lanes in simulated time. The
searchers are driven by direct calls as Ray Tune drives them; no cluster is started.

*Found*: the incumbent is, of the trials trained to the full budget, the one with the lowest word error rate that the
searcher saw. The best recipe is found when the incumbent's own word error rate, without noise, is within 2 % relative
of the lowest one known: a recipe that good was trained, and the searcher takes it for its best. The cost is the
seconds of all lanes until then, open trials included.
"""

import argparse
import heapq
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from contenders import CONTENDERS, PLAIN, Contender, RandomSearch
from curves import CurvesError
from surrogate import VALUES, Curves, Floats, Surrogate

WITHIN = 0.02
"""How much worse than the best one known, relative, a recipe may be to be found."""

MAX_TRAININGS = 150
"""Seconds of so many full trainings, after which a search is given up; random search, which is cheap to play, goes on
for MAX_RANDOM."""

MAX_RANDOM = 5000


# --- a search in simulated time -------------------------------------------------------------------------------------


@dataclass
class Search:
    """What one searcher found with one seed."""

    costs_s: list[float] = field(default_factory=list)
    """Seconds of all lanes at each change of the incumbent."""
    true_wers: list[float] = field(default_factory=list)
    """The incumbent's own word error rate from then on."""
    found_s: float = float("inf")
    """The cost at which the best recipe was found; infinite where it was not."""
    num_trials: int = 0
    """Trials begun until the end."""


def search(contender: Contender, surrogate: Surrogate, *, lanes: int, seed: int, limit_s: float,
           value: str = "averaged") -> Search:
    """Play trials on all lanes until the best recipe is found, or the seconds of all lanes reach the limit.

    Searchers that see only the latest weights do not pay for validating the averaged ones.
    """
    random, found, lowest = np.random.default_rng(seed), Search(), float("inf")
    row, good = VALUES.index(value), (1 + WITHIN) * surrogate.best_wer
    spared_s = surrogate.curves.look_s if value == "raw" else 0.0
    ends: list[tuple[float, int, int, float, Any]] = []  # of epochs: when, of which trial, which one, its beginning

    def begin(at_s: float) -> None:
        training = surrogate.train(contender.begin(str(found.num_trials)), random)
        heapq.heappush(ends, (at_s + training.seconds[0] - spared_s, found.num_trials, 1, at_s, training))
        found.num_trials += 1

    for _ in range(lanes):
        begin(0.0)
    while lanes * ends[0][0] < limit_s:
        now_s, number, epoch, began_s, training = heapq.heappop(ends)
        wers = training.wers[row]
        if contender.report(str(number), epoch, float(wers[epoch - 1])):
            heapq.heappush(ends, (began_s + training.seconds[epoch] - spared_s * (epoch + 1), number, epoch + 1,
                                  began_s, training))
            continue
        if epoch == len(wers) and wers.min() < lowest:
            lowest = wers.min()
            found.costs_s.append(lanes * now_s)
            found.true_wers.append(training.true_wer)
            if training.true_wer <= good:
                found.found_s = lanes * now_s
                break
        begin(now_s)
    return found


# --- what is shown --------------------------------------------------------------------------------------------------


def table(searches: dict[str, list[Search]]) -> list[str]:
    """A Markdown table: a row for each searcher, its cost beside that of the first one."""
    lines = ["| searcher | found by | seconds of all lanes: median | quartiles | of the first row | trials, median |",
             "|---|---|---|---|---|---|"]
    first = None
    for title, found in searches.items():
        low, middle, high = np.quantile([one.found_s for one in found], [0.25, 0.5, 0.75], method="inverted_cdf")
        first = first or middle
        share = f"{middle / first:.2f}" if np.isfinite(middle) and np.isfinite(first) else "?"
        lines.append(f"| {title} | {sum(np.isfinite(one.found_s) for one in found)} of {len(found)} | {_cost(middle)} "
                     f"| {_cost(low)} to {_cost(high)} | {share} "
                     f"| {statistics.median(one.num_trials for one in found):.0f} |")
    return lines


def _cost(seconds: float) -> str:
    return f"{seconds:,.0f}" if np.isfinite(seconds) else "not found"


COLOURS = ("99,110,250", "239,85,59", "255,161,90", "0,204,150", "171,99,250")


def draw_plot(searches: dict[str, list[Search]], best_wer: float) -> go.Figure:
    """The incumbent's word error rate without noise, above the best known in percent, against cost; median, quartiles.
    """
    figure = go.Figure()
    seen_s = [cost for found in searches.values() for one in found for cost in one.costs_s]
    costs = np.geomspace(min(seen_s), 1.1 * max(seen_s), 200)
    for (title, found), colour in zip(searches.items(), cycle(COLOURS), strict=False):
        wers = np.array([_so_far(one, costs) for one in found])
        low, middle, high = 100 * (np.quantile(wers, [0.25, 0.5, 0.75], axis=0) / best_wer - 1)
        figure.add_scatter(x=[*costs, *costs[::-1]], y=[*high, *low[::-1]], fill="toself", line_width=0,
                           fillcolor=f"rgba({colour},0.15)", hoverinfo="skip", showlegend=False)
        figure.add_scatter(x=costs, y=middle, name=title, line_color=f"rgb({colour})")
    figure.add_hline(y=100 * WITHIN, line_dash="dot", annotation_text="found")
    figure.update_xaxes(type="log", title="seconds of all lanes")
    figure.update_yaxes(title="incumbent's WER above the best known, %, without noise", rangemode="tozero")
    return figure


def _so_far(found: Search, costs: Floats) -> list[float]:
    """The incumbent's word error rate at each cost; 1 before there is one."""
    known = [1.0, *found.true_wers]
    return [known[i] for i in np.searchsorted(found.costs_s, costs, side="right")]


# --- the command ----------------------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The cost of finding the best recipe, by searcher.")
    parser.add_argument("--curves", type=Path, required=True, help="recorded by benchmarks/record.py")
    parser.add_argument("--seeds", type=int, default=40, help="searches of each searcher (default: %(default)s)")
    parser.add_argument("--lanes", type=int, default=4, help="trials at a time (default: %(default)s)")
    parser.add_argument("--value", choices=VALUES,
                        help="which word error rate all see (default: the averaged weights' for Cuarzo, else the "
                             "latest weights')")
    parser.add_argument("--grace", type=int, help="epochs before a trial may be stopped (default: the file's)")
    parser.add_argument("--variants", action="store_true", help="play Cuarzo with one thing changed at a time too")
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="draw best so far against cost")
    found = parser.parse_args(given)
    for name in ("seeds", "lanes", "grace"):
        if getattr(found, name) is not None and getattr(found, name) < 1:
            parser.error(f"--{name} is {getattr(found, name)}; it must be at least 1.")
    return found


def run(surrogate: Surrogate, contenders: dict[str, Callable[[Surrogate, int], Contender]], *, seeds: int, lanes: int,
        value: str | None = None) -> dict[str, list[Search]]:
    """All searches, by searcher."""
    play = partial(search, surrogate=surrogate, lanes=lanes)
    full_s = float(np.median(surrogate.curves.seconds[:, -1]))
    return {title: [play(make(surrogate, seed), seed=seed, value=value or ("raw" if make in PLAIN else "averaged"),
                         limit_s=full_s * (MAX_RANDOM if make is RandomSearch else MAX_TRAININGS))
                    for seed in range(seeds)] for title, make in contenders.items()}


def main(command: Sequence[str] | None = None) -> int:
    """Read, search, print, draw; 1 with one line where the file cannot be used."""
    given = arguments(command)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        curves = Curves.load(given.curves)
    except CurvesError as reason:
        print(reason)
        return 1
    surrogate = Surrogate(replace(curves, grace_epochs=given.grace or curves.grace_epochs))
    print(describe(surrogate))
    contenders = dict(CONTENDERS)
    if given.variants:
        from variants import VARIANTS  # which are made of this file's

        contenders |= VARIANTS
    searches = run(surrogate, contenders, seeds=given.seeds, lanes=given.lanes, value=given.value)
    print("\n".join(table(searches)))
    if given.plot:
        draw_plot(searches, surrogate.best_wer).write_html(given.plot)
    return 0


def describe(surrogate: Surrogate) -> str:
    """What is searched, in a line or two."""
    some = surrogate.true_wers(surrogate.draw(np.random.default_rng(1), 4000))
    share = np.mean(some <= (1 + WITHIN) * surrogate.best_wer)
    noise = ("other seeds of the same recipes" if surrogate.has_repeats else
             "errors on recipes left out, the model's own among them, as none was recorded with another seed")
    return (f"{len(surrogate.curves.params)} recorded trials; best WER known {surrogate.best_wer:.1%}; {share:.2%} of "
            f"random recipes are within {WITHIN:.0%} of it; R² for recipes left out {surrogate.score:.2f}; "
            f"noise from {noise}.\n")
