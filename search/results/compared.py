"""A finished study or production training, loaded for comparison."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpora.reference import Reference
from models.metrics import word_edits
from search.config import ConfigError
from search.records.files import damage_named, read_json
from search.records.run_folder import kind_of
from search.records.trial_record import TrialRecord
from search.results.run_summary import RunSummary, StudySummary, TrainingSummary, summary_of
from spaces.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A finished run and its result."""

    path: Path
    name: str
    trial: str
    """The winner of a study, or the one training of a production run."""
    num_trainings: int
    """Seeds averaged in its dev figure."""
    summary: RunSummary
    reference: Reference

    @property
    def dev_wer(self) -> float:
        """The word error rate on the development split."""
        return self.summary.dev.wer

    @property
    def made_of(self) -> dict[str, Any]:
        """Its recipe, corpus and source; fields that came after the run have their defaults."""
        return {"language": self.summary.language, "source": self.summary.source,
                "corpus": ", ".join(self.summary.corpus)} | Recipe.from_flat(self.summary.recipe).flat()

    def edits(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Word edits of its trainings, (seeds, utterances), and words, with the utterances in an order that all runs on
        one reference share; None if its transcripts no longer exist."""
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
    """Load a finished run.

    Raises:
        ConfigError: it holds no finished run, or a damaged one.
        CorpusError: its reference cannot be read.
    """
    path, kind = run / "summary.json", kind_of(run)
    if not path.exists():
        held = f"the {kind.name} in it has not ended; resume it with {kind.going_on(run)}" if kind else (
            "check the path: it is the folder of a study or of a production training")
        raise ConfigError(f"{run}: there is no finished run here (summary.json is missing): {held}.")
    again = f", or write it again by {kind.going_on(run)}" if kind else ""
    values: dict[str, Any] = read_json(path)
    with damage_named(path, f"Restore the file from a copy{again}."):
        summary: RunSummary
        if "training" in values:
            summary = summary_of(TrainingSummary, values)
            name, trial, num_trainings = summary.training, summary.exported, 1
        else:
            summary = summary_of(StudySummary, values)
            name, trial, num_trainings = summary.study, summary.winner, len(summary.dev.wer_by_seed)
        key = summary.reference.key
        Recipe.from_flat(summary.recipe)
    reference = Reference.load(run / "reference.parquet")
    if reference.key != key:
        raise ConfigError(f"{run}: reference.parquet (key {reference.key[:12]}) is not what the run was scored on (key "
                          f"{key[:12]} in summary.json). Restore the file from a copy.")
    return Compared(path=run, name=name, trial=trial, num_trainings=num_trainings, summary=summary, reference=reference)
