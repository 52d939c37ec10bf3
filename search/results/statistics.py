"""Compare recipes on the development split: differences with intervals, and the optimism of a choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.metrics import (
    EDITS,
    MIN_UTTERANCES,
    bootstrap_difference,
    selection_optimism,
)
from search.candidate import Candidate
from search.records.job import is_part
from search.records.measured import Rates
from search.records.trial_record import records
from search.wording import counted


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Error rate of one recipe minus another's on the development split, each the mean over its seeds."""

    value: float
    interval: tuple[float, float] | None
    """95 % interval by paired bootstrap over utterances and seeds; None if there are too few utterances."""
    num_seeds: tuple[int, int]
    num_utterances: int
    """The utterances that have words."""

    @classmethod
    def between(cls, one: Candidate, other: Candidate, seed: int) -> "Difference":
        """Compare two recipes on their seeds, by what their study minimises."""
        name = one.objective
        (edits, words), (other_edits, _) = one.edits(name), other.edits(name)
        return cls(value=one.rate(name) - other.rate(name),
                   interval=bootstrap_difference(edits, other_edits, words, seed),
                   num_seeds=(len(edits), len(other_edits)), num_utterances=len(words))

    def said(self, other: str) -> str:
        """The comparison with the second recipe, called `other`, in words."""
        if self.interval is None:
            return f"not told apart from {other}: the difference is {self.value:+.1%} absolute, and " + too_few(
                self.num_utterances, "development")
        low, high = self.interval
        how = f"(95 %, paired bootstrap over {covered(*self.num_seeds)})"
        if high < 0:
            return f"better than {other} by {-high:.1%} to {-low:.1%} absolute {how}"
        if low > 0:
            return f"worse than {other} by {low:.1%} to {high:.1%} absolute {how}"
        return f"a tie with {other} within noise: the difference is {low:+.1%} to {high:+.1%} absolute {how}"

    def figures(self) -> dict[str, Any]:
        """The fields of `Compared` and `Transfer` that tell it; `is_tie` is None if unknown."""
        low, high = self.interval or (None, None)
        return {"difference": self.value, "difference_low": low, "difference_high": high,
                "is_tie": None if low is None or high is None else low <= 0 <= high}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two recipes, or other objects with the same fields, differ, in words; empty if they do not."""
    return ", ".join(f"{name} {now.get(name)} instead of {before.get(name)}" for name in {**before, **now}
                     if before.get(name) != now.get(name))


def covered(*num_seeds: int) -> str:
    """What a bootstrap over utterances and these numbers of seeds covers."""
    if max(num_seeds) == 1:
        return "utterances alone, as there is one seed"
    if len(set(num_seeds)) == 1:
        return f"utterances and {num_seeds[0]} seeds"
    return "utterances and seeds, " + " against ".join(map(str, num_seeds))


def with_interval(rates: Rates, name: str, label: str = "95 %: ") -> str:
    """A rate, and its 95 % interval if it has one."""
    interval = rates.interval(name)
    return f"{rates.rate(name):.1%}" + (f" ({label}{interval[0]:.1%} to {interval[1]:.1%})" if interval else "")


def interval_or_why(rates: Rates, num_utterances: int, split: str) -> str:
    """The 95 % interval of a word error rate in words, or why there is none."""
    interval = rates.interval("wer")
    return f"95 % interval {interval[0]:.1%} to {interval[1]:.1%}" if interval else too_few(num_utterances, split)


def too_few(num_utterances: int, split: str) -> str:
    """Why there is no interval."""
    are = "is" if num_utterances == 1 else "are"
    return f"{counted(num_utterances, f'{split} clip')} {are} too few for an interval, which takes {MIN_UTTERANCES}"


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """How optimistic a winner's figure is, because the winner was chosen by it."""

    value: float | None
    """To be added to the error rate."""
    num_trials: int
    """Trials among which the winner was chosen."""
    why_none: str | None = None


def optimism(trials: Path, dev_texts: Sequence[str], seed: int) -> Optimism:
    """Estimate the optimism of choosing the best of the trials that were trained to the end, on one seed each, those
    of the ablation included.

    It covers the luck of the utterances, and too much of it if the winner's figure is a mean over several seeds. It
    does not cover the luck of the first seed, which dominates if there are many utterances, nor the choice of the best
    epoch in each trial, nor trials stopped earlier.
    """
    ended = [record for record in records(trials)
             if record.is_complete and "-seed" not in record.id and not is_part(record.id)]
    if len(ended) < 2:
        return Optimism(value=None, num_trials=len(ended), why_none=f"{len(ended)} of the trials ran to the end, and a "
                        "choice takes two")
    edits, words = EDITS[ended[0].metric](dev_texts, [record.dev_hypotheses() for record in ended])
    value = selection_optimism(edits, words, seed)
    return Optimism(value=value, num_trials=len(ended),
                    why_none=too_few(len(words), "development") if value is None else None)
