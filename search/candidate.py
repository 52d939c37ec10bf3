"""A recipe with its trainings, judged by their transcripts of the development split."""

from dataclasses import dataclass

import numpy as np

from models.metrics import bootstrap_interval, char_edits, word_edits
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
    def wers(self) -> list[float]:
        """Word error rate on the development split, per seed."""
        return [training.best["wer"] for training in self.trainings if training.best]

    @property
    def wer(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.wers))

    @property
    def best_training(self) -> TrialRecord:
        """The training whose weights are exported."""
        return min(self.trainings, key=lambda training: training.best["wer"] if training.best else np.inf)

    def edits(self) -> tuple[np.ndarray, np.ndarray]:
        """Word edits, (seeds, utterances), and words, (utterances,), of the development utterances that have words."""
        return word_edits(self.dev_texts, self._heard())

    def interval(self, seed: int) -> tuple[float, float] | None:
        """95 % interval of the word error rate, over utterances and seeds; None if there are too few utterances."""
        return bootstrap_interval(*self.edits(), seed)

    def char_interval(self, seed: int) -> tuple[float, float] | None:
        """The same for the character error rate."""
        return bootstrap_interval(*char_edits(self.dev_texts, self._heard()), seed)

    def _heard(self) -> list[list[str]]:
        """The transcripts of the development split, per seed."""
        return [training.dev_hypotheses() for training in self.trainings]
