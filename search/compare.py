"""Finished studies and production trainings side by side, on one reference: `python search/compare.py RUN RUN`."""

import sys
from pathlib import Path

if __name__ == "__main__":  # the root in place of search/, so that `models` and `spaces` are ours
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from corpora.reference import Reference
from models.metrics import bootstrap_difference, word_edits
from search.comparison import Difference, changes, with_interval
from search.config import ConfigError
from search.final_look import TEST, earlier_winner
from search.folder import kind_of
from search.record import TrialRecord

_COLUMNS = ("run", "trial", "dev WER", "dev CER", "test WER", "test CER")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A finished run, and what it handed over."""

    path: Path
    name: str
    trial: str
    """The winner of a study, or the one training of a production run."""
    num_trainings: int
    """Seeds that its dev figure is the mean of."""
    summary: dict[str, Any]
    reference: Reference

    @property
    def dev_wer(self) -> float:
        """The word error rate on the development split."""
        return float(self.summary["dev"]["wer"])

    @property
    def made_of(self) -> dict[str, Any]:
        """Its recipe, and what that was trained on and from."""
        about: dict[str, Any] = {name: self.summary.get(name) for name in ("language", "source")}
        return about | {"corpus": ", ".join(self.summary.get("corpus", []))} | dict(self.summary["recipe"])


def compare(runs: Sequence[Path]) -> str:
    """A table of the runs' figures, and for each after the first how it does beside the first, and what it changed.

    Raises:
        ConfigError: a folder holds no finished run, or one that was judged by other texts than the first.
        CorpusError: a run's reference cannot be read.
    """
    found = [_load(run) for run in runs]
    if len({run.name for run in found}) < len(set(runs)):  # two folders of one name
        found = [replace(run, name=str(run.path)) for run in found]
    first, *others = found
    for run in others:
        if said := first.reference.differences(run.reference):
            raise ConfigError(f"{first.path} and {run.path} were judged by different texts: {said}. Their error rates "
                              "cannot be compared; let both runs have the same dev and test splits, and the same "
                              "Cuarzo.")
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    edits = _edits(first)
    for run in others:
        lines.append(_beside(first, run, edits, _edits(run)))
        lines.append(f"  {run.name} has {changes(first.made_of, run.made_of) or 'the same recipe, corpus and source'}")
    return "\n".join([*lines, "95 % in brackets. A study's winner was chosen on dev, and so was the epoch of each: it "
                              "flatters them. On test there are only the figures above: what was heard is not kept."])


def _load(run: Path) -> Compared:
    path, kind = run / "summary.json", kind_of(run)
    if not path.exists():
        held = f"the {kind.name} in it has not ended; go on with it by {kind.going_on(run)}" if kind else (
            "check the path: it is the folder of a study or of a production training")
        raise ConfigError(f"{run}: there is no finished run here (summary.json is missing): {held}.")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_study = "training" not in summary
        key, name, trial = summary["reference"]["key"], summary["study" if is_study else "training"], summary[
            "winner" if is_study else "exported"]
        num_trainings = len(summary["dev"]["wer_by_seed"]) if is_study else 1
        summary["exported"], summary["recipe"]["optimizer.name"], summary["dev"]["wer"]
    except (ValueError, KeyError, TypeError) as error:
        again = f", or write it again by {kind.going_on(run)}" if kind else ""
        raise ConfigError(f"{path}: no summary that names its reference and figures ({error}). Restore the file from a "
                          f"copy{again}.") from None
    reference = Reference.load(run / "reference.parquet")
    if reference.key != key:
        raise ConfigError(f"{run}: reference.parquet (key {reference.key[:12]}) is not what the run was judged by (key "
                          f"{key[:12]} in summary.json). Restore the file from a copy.")
    return Compared(path=run, name=name, trial=trial, num_trainings=num_trainings, summary=summary, reference=reference)


def _row(run: Compared) -> tuple[str, ...]:
    dev, tested = run.summary["dev"], run.summary.get(TEST, {}).get("winner")
    rates = [with_interval(of, name, label="") for of in (dev, tested) if of for name in ("wer", "cer")]
    if not tested:
        rates += ["none", ""]
    if earlier := earlier_winner(run.summary):
        rates[2:] = [f"not read, but for {earlier}", ""]
    return (run.name, run.trial, *rates)


def _edits(run: Compared) -> tuple[np.ndarray, np.ndarray] | None:
    """Word edits of its trainings, (seeds, utterances), and words, the utterances in an order that all runs on one
    reference share; None where what it heard is no longer there."""
    rows, trials = [row for row in run.reference.rows if row[0] == "dev"], run.path / "trials"
    folders = [trials / run.trial, *sorted(trials.glob(f"{run.trial}-seed*"))]
    found = [TrialRecord.load(folder) for folder in folders
             if (folder / "record.json").exists() and (folder / "dev.json").exists()]
    heard = [record.dev_hypotheses() for record in found if record.is_complete or record.id == run.trial]
    if len(heard) != run.num_trainings or any(len(texts) != len(rows) for texts in heard):
        return None
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return word_edits([rows[i][2] for i in order], [[texts[i] for i in order] for texts in heard])


def _beside(first: Compared, other: Compared, first_edits: tuple[np.ndarray, np.ndarray] | None,
            other_edits: tuple[np.ndarray, np.ndarray] | None) -> str:
    difference = other.dev_wer - first.dev_wer
    if first_edits is None or other_edits is None:
        return (f"on dev {other.name} less {first.name} is {difference:+.1%} absolute; whether that is noise is not "
                "known, as what one of them heard (trials/) is not there")
    (edits, _), (against, words) = other_edits, first_edits
    found = Difference(wer=difference, interval=bootstrap_difference(edits, against, words, seed=0),
                       num_seeds=(len(edits), len(against)), num_utterances=len(words))
    return f"on dev {other.name} is {found.said(first.name)}"


if __name__ == "__main__":
    from search.commands import compare as command

    sys.exit(command())
