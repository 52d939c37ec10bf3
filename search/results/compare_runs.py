"""Finished studies and production trainings side by side, on one reference: `python search/compare.py RUN RUN`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.metrics import bootstrap_difference
from search.config import ConfigError
from search.records.files import damage_named
from search.results.compared import Compared, load
from search.results.statistics import Difference, changes, with_interval
from search.results.summary import earlier_winner

_COLUMNS = ("run", "trial", "dev WER", "dev CER", "test WER", "test CER")


def compare(runs: Sequence[Path]) -> str:
    """A table of the runs' figures, and for each run after the first, how it compares and what it changed.

    Raises:
        ConfigError: a folder holds no finished run, or one that was judged by other texts than the first.
        CorpusError: a run's reference cannot be read.
    """
    found = [load(run) for run in runs]
    if len({run.name for run in found}) < len(set(runs)):  # two folders of the same name
        found = [replace(run, name=str(run.path)) for run in found]
    first, *others = found
    for run in others:
        if said := first.reference.differences(run.reference):
            raise ConfigError(f"{first.path} and {run.path} were scored on different texts: {said}. Their error rates "
                              "cannot be compared; let both runs have the same dev and test splits, and the same "
                              "Cuarzo.")
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for run in found:
        with damage_named(run.path / "summary.json"):
            rows.append(_row(run))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    edits = first.edits()
    for run in others:
        lines.append(_beside(first, run, edits, run.edits()))
        lines.append(f"  {run.name} has {changes(first.made_of, run.made_of) or 'the same recipe, corpus and source'}")
    return "\n".join([*lines, "95 % in brackets. A study's winner was chosen on dev, and so was the epoch of each: it "
                              "flatters them. On test there are only the figures above: transcripts are not kept."])


def _row(run: Compared) -> tuple[str, ...]:
    dev, tested = run.summary.dev, run.summary.test and run.summary.test.winner
    rates = [with_interval(of, name, label="") for of in (dev, tested) if of for name in ("wer", "cer")]
    if not tested:
        rates += ["none", ""]
    if earlier := earlier_winner(run.summary):
        rates[2:] = [f"not read, but for {earlier}", ""]
    return (run.name, run.trial, *rates)


def _beside(first: Compared, other: Compared, first_edits: tuple[np.ndarray, np.ndarray] | None,
            other_edits: tuple[np.ndarray, np.ndarray] | None) -> str:
    difference = other.dev_wer - first.dev_wer
    if first_edits is None or other_edits is None:
        return (f"on dev {other.name} less {first.name} is {difference:+.1%} absolute; whether that is noise is not "
                "known, because the transcripts of one of them (trials/) are missing")
    (edits, _), (against, words) = other_edits, first_edits
    found = Difference(value=difference, interval=bootstrap_difference(edits, against, words, seed=0),
                       num_seeds=(len(edits), len(against)), num_utterances=len(words))
    return f"on dev {other.name} is {found.said(first.name)}"
