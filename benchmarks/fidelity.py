"""How well a rung predicts the end: by which weights, and by which error rate.

    python benchmarks/fidelity.py benchmarks/curves/embedded.json.gz [OTHER…]

For each rung and each way to judge there it prints Spearman's correlation with the end, over all recipes of a
recording and over the third that ends best, which a search must distinguish; 95 % intervals (over resampled recipes)
and the paired gain over the latest weights; what is lost when the best third of a rung continues; and the cost of
judging, as a share of the training until then. The end is the lowest word error rate of a training, of the latest or of
the averaged weights.

A second table compares error rates of the averaged weights at the rung: WER, CER, and the mean of both, which is what
studies rank by. Its ends are the lowest WER and the lowest CER of a training. Rates above 1 count as 1.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from curves import CurvesError, Recording, load_recording
from scipy.stats import rankdata

WAYS = ("raw", "averaged", "annealed")

NUM_RESAMPLES = 2000

LEAST_RECIPES = 5


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, 0 where one of them is constant."""
    ranks = np.array([rankdata(first), rankdata(second)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(axis=1).min() > 0 else 0.0


def interval(values: list[float]) -> str:
    """Of 95 % of the resamples."""
    low, high = np.quantile(values, [0.025, 0.975])
    return f"({low:.2f} to {high:.2f})"


def lost(at_rung: np.ndarray, end: np.ndarray, reduction_factor: int) -> float:
    """The best end of those that continue, minus the best of all."""
    kept = np.argsort(at_rung, kind="stable")[: max(1, len(end) // reduction_factor)]
    return float(end[kept].min() - end.min())


def cost(trials: list[dict[str, Any]], rung: int, way: str) -> float:
    """Seconds that judging takes, over those of the training until the rung; the median over the trials."""
    shares = []
    for trial in trials:
        epoch = trial["epochs"][rung - 1]
        seconds = {"raw": 0.0, "averaged": epoch["look_s"] * rung, "annealed": epoch["branch_s"] + epoch["look_s"]}[way]
        shares.append(seconds / (epoch["train_s"] - epoch["look_s"] * rung))  # two looks were taken after each epoch
    return statistics.median(shares)


def distinct(curves: Recording) -> list[dict[str, Any]]:
    """One training of each recipe that was trained to the end, that of the first seed."""
    return list({repr(sorted(trial["params"].items())): trial for trial in reversed(curves.whole)}.values())


def table(curves: Recording) -> Iterator[str]:
    """Markdown: a row for each rung and way."""
    trials = distinct(curves)
    if len(trials) < LEAST_RECIPES:
        raise CurvesError(f"{len(trials)} recipes were trained to the end; a correlation needs {LEAST_RECIPES}.")
    ends = {way: np.array([min(epoch[way] for epoch in trial["epochs"]) for trial in trials])
            for way in ("raw", "averaged")}
    yield (f"{', '.join(curves.corpus)}: {len(trials)} recipes of {curves.max_epochs} epochs; at the end the best WER "
           f"is {ends['raw'].min():.1%} by the latest weights and {ends['averaged'].min():.1%} by the averaged ones, "
           f"the median {np.median(ends['raw']):.1%} and {np.median(ends['averaged']):.1%}.\n")
    end = np.minimum(ends["raw"], ends["averaged"])
    best = np.argsort(end, kind="stable")[: max(LEAST_RECIPES, len(end) // 3)]
    yield (f"| after epoch | judged by | all recipes | more than raw | the {len(best)} best | more than raw "
           "| WER lost, points | cost |")
    yield "|---" * 8 + "|"
    for rung in curves.rungs:
        seen = {way: np.array([trial["epochs"][rung - 1][way] for trial in trials], dtype=float) for way in WAYS}
        for way in WAYS:
            cells = [*cells_of(seen, way, end, "raw"),
                     *cells_of({name: wers[best] for name, wers in seen.items()}, way, end[best], "raw")]
            points = 100 * lost(seen[way], end, curves.reduction_factor)
            yield f"| {rung} | {way} | {' | '.join(cells)} | {points:.1f} | {cost(trials, rung, way):.0%} |"


def table_of_rates(curves: Recording) -> Iterator[str]:
    """Markdown: a row for each rung and error rate; nothing where no character error rates were recorded."""
    trials = [trial for trial in distinct(curves) if all("cer" in epoch for epoch in trial["epochs"])]
    if len(trials) < LEAST_RECIPES:
        return
    rates = {name: np.minimum(1.0, [[epoch[key] for epoch in trial["epochs"]] for trial in trials])
             for name, key in (("WER", "averaged"), ("CER", "cer"))}
    ends = {name: values.min(axis=1) for name, values in rates.items()}
    rates["both"] = (rates["WER"] + rates["CER"]) / 2
    yield (f"{len(trials)} recipes; {np.sum(ends['WER'] >= 1)} of them end at a WER of 100 % or more.\n")
    yield "| after epoch | ranked by | " + " | ".join(
        f"{name} at the end, {of} | more than WER" for name in ends for of in ("all", "the best third")) + " |"
    yield "|---" * (2 + 4 * len(ends)) + "|"
    for rung in curves.rungs:
        seen = {name: values[:, rung - 1] for name, values in rates.items()}
        for name in seen:
            cells = list[str]()
            for end in ends.values():
                best = np.argsort(end, kind="stable")[: max(LEAST_RECIPES, len(end) // 3)]
                cells += cells_of(seen, name, end, "WER")
                cells += cells_of({rate: values[best] for rate, values in seen.items()}, name, end[best], "WER")
            yield f"| {rung} | {name} | {' | '.join(cells)} |"


def cells_of(seen: dict[str, np.ndarray], way: str, end: np.ndarray, plain: str) -> tuple[str, str]:
    """The correlation of a way with the end, and how much more that is than the plain way's."""
    draws = np.random.default_rng(0).integers(len(end), size=(NUM_RESAMPLES, len(end)))
    drawn = [correlation(seen[way][rows], end[rows]) for rows in draws]
    more = [value - correlation(seen[plain][rows], end[rows]) for value, rows in zip(drawn, draws, strict=True)]
    difference = correlation(seen[way], end) - correlation(seen[plain], end)
    return (f"{correlation(seen[way], end):.2f} {interval(drawn)}",
            "" if way == plain else f"{difference:+.2f} {interval(more)}")


def main() -> int:
    """Print a table for each recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="recordings of benchmarks/record.py")
    try:
        for file in parser.parse_args().files:
            curves = load_recording(file)
            print("\n".join([*table(curves), "", *table_of_rates(curves)]) + "\n")
    except CurvesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
