"""A finished study or production training, as it is put beside others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpora.reference import Reference
from models.metrics import word_edits
from search.config import ConfigError
from search.records.run_folder import kind_of
from search.records.trial_record import TrialRecord


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

    def edits(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Word edits of its trainings, (seeds, utterances), and words, the utterances in an order that all runs on one
        reference share; None where what it heard is no longer there."""
        rows, trials = [row for row in self.reference.rows if row[0] == "dev"], self.path / "trials"
        folders = [trials / self.trial, *sorted(trials.glob(f"{self.trial}-seed*"))]
        found = [TrialRecord.load(folder) for folder in folders
                 if (folder / "record.json").exists() and (folder / "dev.json").exists()]
        heard = [record.dev_hypotheses() for record in found if record.is_complete or record.id == self.trial]
        if len(heard) != self.num_trainings or any(len(texts) != len(rows) for texts in heard):
            return None
        order = sorted(range(len(rows)), key=rows.__getitem__)
        return word_edits([rows[i][2] for i in order], [[texts[i] for i in order] for texts in heard])


def load(run: Path) -> Compared:
    """What a folder holds, once it is finished.

    Raises:
        ConfigError: it holds no finished run, or a damaged one.
        CorpusError: its reference cannot be read.
    """
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
        summary["exported"], summary["recipe"]["optimizer.name"], float(summary["dev"]["wer"])
        summary.get("test", {}).get("winner")
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        again = f", or write it again by {kind.going_on(run)}" if kind else ""
        raise ConfigError(f"{path}: no summary that names its reference and figures ({error}). Restore the file from a "
                          f"copy{again}.") from None
    reference = Reference.load(run / "reference.parquet")
    if reference.key != key:
        raise ConfigError(f"{run}: reference.parquet (key {reference.key[:12]}) is not what the run was judged by (key "
                          f"{key[:12]} in summary.json). Restore the file from a copy.")
    return Compared(path=run, name=name, trial=trial, num_trainings=num_trainings, summary=summary, reference=reference)
