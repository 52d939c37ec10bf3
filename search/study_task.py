"""What a study needs from its task outside trials: its identity, preparation, scoring and export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from search.candidate import Candidate
from search.config import ResolvedConfig, StudyConfig
from search.records.fingerprints import Identity
from search.records.measured import Look
from search.records.run_folder import RunFolder
from search.trials.context import TrialContext
from search.tuning.warm_start import PastRun


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the search works with."""

    context: TrialContext
    """Shared by all trials; its `task` samples the recipes and builds their data and modules."""
    concurrency: int
    past: Sequence[PastRun] = ()
    """Other studies to begin from."""


class StudyTask(Protocol):
    """A task from a study's configuration to its exported model; `speech/` has the first one."""

    @staticmethod
    def locate(config: StudyConfig) -> StudyConfig:
        """The configuration with its paths made absolute, before anything is written."""

    @classmethod
    def open(cls, config: ResolvedConfig) -> Self:
        """Open what the user named, before Ray is started.

        Raises:
            ValueError: it cannot be opened.
        """

    def identify(self) -> Identity:
        """What the study is made of now; a resumed one compares it with what it began with."""

    def prepare(self, run: RunFolder) -> Prepared:
        """Make everything that trials need, or find it in the cache, and write a report on it into the run's folder."""

    def evaluate_test(self, run: RunFolder, context: TrialContext, winner: Candidate,
                      look_again: bool) -> Look | None:
        """Score the winner on the test split, once per study; `look_again` reads it once more."""

    def export(self, run: RunFolder, context: TrialContext, winner: Candidate, cards: Mapping[str, str]) -> None:
        """Write `best/`: the winner's model, and texts by file name."""
