"""A recipe with its trainings, judged by their transcripts of the development split."""

from dataclasses import dataclass

import numpy as np

from models.metrics import EDITS, bootstrap_interval
from search.records.trial_record import TrialRecord
from spaces.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe with its trainings, one per seed."""

    recipe: Recipe
    trainings: list[TrialRecord]
    dev_texts: list[str]
    hand_recipe: str | None = None
    """Its name, if it is a hand recipe of the space."""

    @property
    def id(self) -> str:
        """The trial in which the recipe was found."""
        return self.trainings[0].id

    @property
    def objective(self) -> str:
        """The error rate that its study minimises: wer or cer."""
        return self.trainings[0].metric

    @property
    def score(self) -> float:
        """What the better of two recipes has less of: the mean of its trainings' scores."""
        return float(np.mean([training.best.score(training.metric) for training in self.trainings if training.best]))

    @property
    def is_collapsed(self) -> bool:
        """Whether the transcripts of its best training say nothing about the clips."""
        best = self.best_training.best
        return best is not None and best.metrics.get("collapsed", 0.0) > 0

    def rates(self, name: str) -> list[float]:
        """An error rate on the development split, per seed; `name` is wer or cer."""
        return [training.best[name] for training in self.trainings if training.best]

    def rate(self, name: str) -> float:
        """Its mean over the seeds."""
        return float(np.mean(self.rates(name)))

    @property
    def best_training(self) -> TrialRecord:
        """The training whose weights are exported."""
        return min(self.trainings,
                   key=lambda training: training.best.score(training.metric) if training.best else np.inf)

    def edits(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Edits, (seeds, utterances), and length, (utterances,), of the development utterances that have words: in
        words for wer, in characters for cer."""
        heard = [training.dev_hypotheses() for training in self.trainings]
        return EDITS[name](self.dev_texts, heard)

    def interval(self, name: str, seed: int) -> tuple[float, float] | None:
        """95 % interval of an error rate, over utterances and seeds; None if there are too few utterances."""
        return bootstrap_interval(*self.edits(name), seed)
