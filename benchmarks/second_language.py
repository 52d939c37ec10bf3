"""What a warm start saves: Spanish, then Italian from nothing and from what Spanish found, on synthetic corpora.

    python benchmarks/second_language.py            # three seeds of ten trials after forty: 15 minutes on two cores

The Spanish study is the embedded default's corpus and source. Each Italian study trains the same English source on 300
clips of another synthetic corpus; cold and warm studies of a seed differ in `warm_start` alone. *Found* is the first
trial, in the order in which they began, that comes within 2 % relative of the lowest dev WER of all Italian studies.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from corpora.synthetic import write_synthetic
from search import cluster
from search.config import StudyConfig
from search.speech.embedded_study import CORPUS_SEED, NUM_UTTERANCES, make_source
from search.study import StudyResult, run_study

WITHIN = 0.02

LOOKS = (2, 4, 6)
"""Numbers of trials after which the best so far is shown; two are the hand recipes."""


def best_so_far(study: StudyResult) -> list[float]:
    """The lowest dev WER after each trial, in the order in which they began."""
    found, best = [], float("inf")
    for row in study.trials:
        best = min(best, row["best_wer"] if row["best_wer"] is not None else best)
        found.append(best)
    return found


def table(cold: Sequence[StudyResult], warm: Sequence[StudyResult]) -> Iterator[str]:
    """Markdown: a row for each study."""
    curves = {"cold": [best_so_far(study) for study in cold], "warm": [best_so_far(study) for study in warm]}
    good = (1 + WITHIN) * min(min(curve) for of_kind in curves.values() for curve in of_kind)
    yield f"| study | {' | '.join(f'best of {count}' for count in LOOKS)} | best of all | found by trial |"
    yield "|---" * (len(LOOKS) + 3) + "|"
    for kind, of_kind in curves.items():
        for seed, curve in enumerate(of_kind):
            first = next((str(i) for i, wer in enumerate(curve, 1) if wer <= good), "not found")
            values = [f"{curve[count - 1]:.1%}" for count in LOOKS]
            yield f"| {kind}, seed {seed} | {' | '.join(values)} | {curve[-1]:.1%} | {first} |"
        medians = [f"{statistics.median(curve[count - 1] for curve in of_kind):.1%}" for count in LOOKS]
        yield f"| {kind}, median | {' | '.join(medians)} | {statistics.median(c[-1] for c in of_kind):.1%} | |"


def main() -> int:
    """Run the studies and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="Italian studies of each kind (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=10, help="trials of an Italian study (default: %(default)s)")
    parser.add_argument("--past-trials", type=int, default=40, help="of the Spanish study (default: %(default)s)")
    parser.add_argument("--cache", help="as for search/run.py")
    given = parser.parse_args()
    if given.seeds < 1 or given.trials < max(LOOKS):
        parser.error(f"--seeds is {given.seeds} and --trials {given.trials}; they must be at least 1 and {max(LOOKS)}.")
    with tempfile.TemporaryDirectory(prefix="cuarzo-second-") as folder, cluster.connected():
        spanish = StudyConfig(out=f"{folder}/spanish", trials=given.past_trials, confirm=1, seeds=1, ablation=False,
                              wandb="off", cache=given.cache)
        run_study(spanish)
        corpus = write_synthetic(spanish.cache_folder / "synthetic", "it", NUM_UTTERANCES["es"], CORPUS_SEED)
        italian = replace(spanish.resolved(), corpus=(str(corpus),), language="it", source=str(make_source(spanish)),
                          trials=given.trials, concurrency=2)
        studies: dict[str, list[StudyResult]] = {"cold": [], "warm": []}
        for seed in range(given.seeds):
            for kind, past in (("cold", ()), ("warm", (str(Path(folder) / "spanish"),))):
                config = replace(italian, out=f"{folder}/{kind}-{seed}", seed=seed, warm_start=past)
                studies[kind].append(run_study(config))
    print("\n".join(table(studies["cold"], studies["warm"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
