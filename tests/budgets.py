"""Budgets whose clock a test moves."""

from pathlib import Path
from typing import Any

from search.config import StudyConfig
from search.trials.budget import Budget

HOUR = 3600.0


class Clock:
    """Seconds that pass when a test says so; a restarted driver's begin anywhere."""

    def __init__(self, start: float = 1e6) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def study(**changes: Any) -> StudyConfig:
    options: dict[str, Any] = {"corpus": ("es.tar.gz",), "source": "en.nemo"}
    return StudyConfig(**(options | changes)).resolved()


def opened(folder: Path, now: Clock, resume: bool = False, **changes: Any) -> Budget:
    return Budget.open(study(**changes), folder, resume, now)
