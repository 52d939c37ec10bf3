"""Ray's ASHA with rungs that outlive a killed study."""

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from search.config import ResolvedConfig
from search.records.job import Job
from search.records.trial_record import TrialRecord


class ResumableASHA(ASHAScheduler):
    """Ray's ASHA (arXiv 1810.05934), which knows trials by their own name, so its rungs outlive a killed study."""

    def __init__(self, *, metric: str, max_epochs: int, grace_epochs: int, reduction_factor: int) -> None:
        super().__init__(time_attr="epoch", metric=metric, mode="min", max_t=max_epochs,
                         grace_period=min(grace_epochs, max_epochs), reduction_factor=reduction_factor)

    @classmethod
    def of(cls, config: ResolvedConfig, metric: str) -> "ResumableASHA":
        """The scheduler of a study whose trials are ranked by `metric`."""
        return cls(metric=metric, max_epochs=config.max_epochs, grace_epochs=config.grace_epochs,
                   reduction_factor=config.reduction_factor)

    def replay(self, records: list[TrialRecord]) -> None:
        """Rebuild the rungs from the trials' own records."""
        for record in records:
            named = SimpleNamespace(trial_id=record.id)
            super().on_trial_add(None, named)
            for epoch in record.epochs:
                super().on_trial_result(None, named, epoch.flat())
            super().on_trial_remove(None, named)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial under its own name."""
        super().on_trial_add(tune_controller, _named(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether the trial stops or continues."""
        return str(super().on_trial_result(tune_controller, _named(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Close a trial."""
        super().on_trial_complete(tune_controller, _named(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Remove a trial that ended by itself."""
        super().on_trial_remove(tune_controller, _named(trial))


def _named(trial: Any) -> SimpleNamespace:
    return SimpleNamespace(trial_id=Job.of(trial.config).id)
