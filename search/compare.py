"""Finished studies side by side, on one reference alone. `python search/compare.py RUN RUN [RUN …]`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]  # in place of search/, where Python has put that
    sys.path[:1] = [str(root), *(path for path in sys.path[:1] if Path(path).resolve() != root / "search")]

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from corpora.reference import Reference
from models.metrics import bootstrap_difference, word_edits
from search.comparison import Difference, with_interval
from search.config import ConfigError
from search.final_look import TEST, earlier_winner
from search.record import TrialRecord

_COLUMNS = ("study", "winner", "dev WER", "dev CER", "test WER", "test CER")


def compare(runs: Sequence[Path]) -> str:
    """A table of the winners' figures, and for each study after the first how its winner does beside the first one's.

    Raises:
        ConfigError: a folder holds no finished study, or one that was judged by other texts than the first.
        CorpusError: a study's reference cannot be read.
    """
    summaries = [_summary(run) for run in runs]
    references = [_reference(run, summary) for run, summary in zip(runs, summaries, strict=True)]
    for run, reference in zip(runs[1:], references[1:], strict=True):
        if said := references[0].differences(reference):
            raise ConfigError(f"{runs[0]} and {run} were judged by different texts: {said}. Their error rates cannot "
                              "be compared; let both studies have the same dev and test splits, and the same Cuarzo.")
    rows = [_COLUMNS, *(_row(summary) for summary in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    edits = [_edits(run, summary, reference)
             for run, summary, reference in zip(runs, summaries, references, strict=True)]
    lines += [_beside(summaries[0], summary, edits[0], other)
              for summary, other in zip(summaries[1:], edits[1:], strict=True)]
    return "\n".join([*lines, "95 % in brackets. Each winner was chosen on dev, which flatters it. On test there are "
                              "only the figures above: what was heard is not kept."])


def _summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    if not path.exists():
        raise ConfigError(f"{run}: there is no finished study here (summary.json is missing). Check the path, or go on "
                          f"with the study by --resume {run}.")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        summary["reference"]["key"], summary["dev"]["wer_by_seed"], summary["winner"], summary["exported"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no summary that names its reference ({error}). Restore the file from a copy, or "
                          f"write it again by --resume {run}.") from None
    return summary


def _reference(run: Path, summary: dict[str, Any]) -> Reference:
    reference = Reference.load(run / "reference.parquet")
    if reference.key != summary["reference"]["key"]:
        raise ConfigError(f"{run}: reference.parquet (key {reference.key[:12]}) is not what the study was judged by "
                          f"(key {summary['reference']['key'][:12]} in summary.json). Restore the file from a copy.")
    return reference


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    dev, tested = summary["dev"], summary[TEST].get("winner")
    rates = [with_interval(of, name, label="") for of in (dev, tested) if of for name in ("wer", "cer")]
    if not tested:
        rates += ["none", ""]
    if earlier := earlier_winner(summary):
        rates[2:] = [f"not read, but for {earlier}", ""]
    return (summary["study"], summary["winner"], *rates)


def _edits(run: Path, summary: dict[str, Any], reference: Reference) -> tuple[np.ndarray, np.ndarray] | None:
    """Word edits of the winner's trainings, (seeds, utterances), and words, the utterances in an order that all studies
    on one reference share; None where what it heard is no longer there."""
    winner, rows = summary["winner"], [row for row in reference.rows if row[0] == "dev"]
    folders = [run / "trials" / winner, *sorted((run / "trials").glob(f"{winner}-seed*"))]
    found = [TrialRecord.load(folder) for folder in folders
             if (folder / "record.json").exists() and (folder / "dev.json").exists()]
    heard = [record.dev_hypotheses() for record in found if record.is_complete or record.id == winner]
    if len(heard) != len(summary["dev"]["wer_by_seed"]) or any(len(texts) != len(rows) for texts in heard):
        return None
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return word_edits([rows[i][2] for i in order], [[texts[i] for i in order] for texts in heard])


def _beside(first: dict[str, Any], other: dict[str, Any], first_edits: tuple[np.ndarray, np.ndarray] | None,
            other_edits: tuple[np.ndarray, np.ndarray] | None) -> str:
    difference = other["dev"]["wer"] - first["dev"]["wer"]
    if first_edits is None or other_edits is None:
        return (f"on dev {other['study']} less {first['study']} is {difference:+.1%} absolute; whether that is noise "
                "is not known, as what one of them heard (trials/) is not there")
    (edits, _), (against, words) = other_edits, first_edits
    found = Difference(wer=difference, interval=bootstrap_difference(edits, against, words, seed=0),
                       num_seeds=(len(edits), len(against)), num_utterances=len(words))
    return f"on dev {other['study']} is {found.said(first['study'])}"


if __name__ == "__main__":
    from search.commands import compare as command

    sys.exit(command())
