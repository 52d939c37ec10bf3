"""Budget: the wall time, GPU hours and money that a study may spend, and has spent over all its resumes."""

import contextlib
import heapq
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from search.config import ConfigError, StudyConfig
from search.records.files import write_json
from search.records.measured import Allowed, Spent
from spaces.typed import build

SAVE_EVERY_S = 2.0
"""A killed study loses at most this much of its record of spending."""

MAX_RESERVED = 0.5
"""Largest share of a budget that is reserved for the confirmation."""

CONFIRMED = 3
"""Number of trials whose pace counts, those that got furthest and then the best: a slow recipe that was stopped will
not be trained again."""

ENDING_S = 10.0
"""Wall seconds after the search that are not training: starting and stopping Ray Tune, the export, the report."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Amounts spent, needed or allowed."""

    wall_s: float = 0.0
    """Seconds in which a driver of the study was alive."""
    gpu_s: float = 0.0
    """GPUs of each trial times its seconds from start to end."""
    cost: float = 0.0
    """Wall hours times their price, in the price's currency; 0 without a price."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ConfigError(f"{name} is {value}; it must be at least 0.")


class Budget:
    """Counts what a study spends and says what it can still afford.

    `kept` writes the file in the run's folder every few seconds; a resumed study counts on from there. `now` returns
    monotonic seconds.
    """

    def __init__(self, path: Path, limits: Amounts, *, cost_per_hour: float | None = None,
                 earlier: Amounts | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.cost_per_hour = limits, cost_per_hour
        self.furthest = 0
        """Epochs of the longest training seen so far."""
        self._path, self._now, self._started_at = path, now, now()
        self._earlier = earlier or Amounts()
        if not self._earlier.cost:  # hours before the first price cost that price
            self._earlier = replace(self._earlier, cost=self._cost(self._earlier.wall_s))
        # Seconds until some moment, GPUs held since, that moment: one tuple, as `kept` reads it from its own thread.
        self._gpus = (0.0, 0.0, self._started_at)
        self._paces: dict[str, tuple[int, float, float, float]] = {}

    @classmethod
    def open(cls, config: StudyConfig, folder: Path, resume: bool,
             now: Callable[[], float] = time.monotonic) -> "Budget":
        """The budget of a new study, or of a resumed one with what it has spent.

        Raises:
            ConfigError: what was spent cannot be read.
        """
        limits = Amounts(wall_s=config.budget_s, cost=_or_infinite(config.budget_cost),
                         gpu_s=3600 * _or_infinite(config.budget_gpu_h))
        path = folder / "spent.json"
        return cls(path, limits, cost_per_hour=config.cost_per_hour, earlier=_load(path) if resume else None, now=now)

    # --- what is spent ----------------------------------------------------------------------------------------------

    def spent(self) -> Amounts:
        """All that the study's drivers have spent until now."""
        now, (gpu_s, held, since) = self._now(), self._gpus
        wall_s = now - self._started_at
        return Amounts(wall_s=self._earlier.wall_s + wall_s, cost=self._earlier.cost + self._cost(wall_s),
                       gpu_s=self._earlier.gpu_s + gpu_s + held * (now - since))

    def hold(self, gpus: float) -> None:
        """From now on, trials hold this many GPUs."""
        gpu_s, held, since = self._gpus
        if gpus != held:
            now = self._now()
            self._gpus = (gpu_s + held * (now - since), gpus, now)

    def save(self) -> None:
        """Write what is spent to a temporary file and rename it."""
        write_json(self._path, asdict(self.spent()))

    @contextlib.contextmanager
    def kept(self, every_s: float = SAVE_EVERY_S) -> Iterator["Budget"]:
        """Inside the block, save what is spent every few seconds, and once more at its end."""
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(every_s):
                with contextlib.suppress(OSError):  # a full disk is reported when a result cannot be written
                    self.save()

        self.save()
        keeper = threading.Thread(target=keep, name="budget", daemon=True)
        keeper.start()
        try:
            yield self
        finally:
            ended.set()
            keeper.join()
            self.save()

    # --- what is left -----------------------------------------------------------------------------------------------

    def observe(self, trial: str, epochs: int, value: float, train_s: float, outside_s: float) -> None:
        """Learn the pace from a trial: seconds of its epochs so far, and of its start and end."""
        self.furthest = max(self.furthest, epochs)
        self._paces[trial] = -epochs, value, train_s / epochs, outside_s

    def _pace(self) -> tuple[float, float]:
        """Seconds of an epoch, and outside epochs: the slowest of the trials that would be confirmed now."""
        best = sorted(self._paces.values())[:CONFIRMED]
        return max(epoch_s for _, _, epoch_s, _ in best), max(outside_s for *_, outside_s in best)

    def need(self, stages: Sequence[Sequence[int]], *, concurrency: int, gpus: float) -> Amounts:
        """What trainings would take at the pace of the best so far, including the evaluation on test and the report.

        Each number is the epochs of a training; stages follow each other, and inside a stage `concurrency` trainings of
        `gpus` GPUs run at once. Zero before the first epoch.
        """
        if not self._paces:
            return Amounts()
        epoch_s, outside_s = self._pace()
        wall_s, gpu_s = epoch_s + ENDING_S, 0.0
        for stage in stages:
            ends = [0.0] * concurrency
            for epochs in stage:
                seconds = epochs * epoch_s + outside_s
                heapq.heapreplace(ends, ends[0] + seconds)
                gpu_s += gpus * seconds
            wall_s += max(ends)
        return Amounts(wall_s=wall_s, gpu_s=gpu_s, cost=self._cost(wall_s))

    def has_room(self, need: Amounts) -> bool:
        """Whether all of it can still be spent."""
        return all(spent + more <= limit for _, spent, more, limit in self._rows(need))

    def search_end(self, reserve: Amounts) -> str | None:
        """Why the search must end now to leave the reserve; None while it may continue."""
        for name, spent, more, limit in self._rows(reserve):
            if spent + min(more, MAX_RESERVED * limit) >= limit:
                why = "is spent" if spent >= limit else "is spent, and the rest is for confirming"
                return f"{_said(name, spent, limit)} {why}: the search ends"
        return None

    def line(self) -> str:
        """What is spent and left of each limited amount, in words; empty if nothing is limited."""
        return ", ".join(f"{_said(name, spent, limit)} ({_WORDS[name][1](max(0.0, limit - spent))} left)"
                         for name, spent, _, limit in self._rows(Amounts()) if limit < math.inf)

    def amount_spent(self) -> Spent:
        """What was spent so far, for the summary."""
        spent = self.spent()
        return Spent(wall_s=round(spent.wall_s, 1), gpu_h=round(spent.gpu_s / 3600, 4),
                     cost=round(spent.cost, 4) if self.cost_per_hour else None)

    def amount_allowed(self) -> Allowed:
        """What may be spent, for the summary."""
        return Allowed(wall_s=_finite(self.limits.wall_s), gpu_h=_finite(self.limits.gpu_s / 3600),
                       cost=_finite(self.limits.cost), cost_per_hour=self.cost_per_hour)

    def _rows(self, more: Amounts) -> list[tuple[str, float, float, float]]:
        """Name, spent, more and limit of each amount."""
        spent, limits = asdict(self.spent()), asdict(self.limits)
        return [(name, spent[name], value, limits[name]) for name, value in asdict(more).items()]

    def _cost(self, wall_s: float) -> float:
        return wall_s / 3600 * (self.cost_per_hour or 0.0)


def format_duration(seconds: float) -> str:
    """A duration for display: 45s, 12m30s, 8h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{whole % 60:02d}s"


_WORDS: dict[str, tuple[str, Callable[[float], str]]] = {
    "wall_s": ("wall time", format_duration), "gpu_s": ("GPU hours", lambda seconds: f"{seconds / 3600:.2f}"),
    "cost": ("cost", lambda money: f"{money:.2f}")}


def _said(name: str, spent: float, limit: float) -> str:
    words, form = _WORDS[name]
    return f"{words} {form(spent)} of {form(limit)}"


def _finite(limit: float) -> float | None:
    return limit if limit < math.inf else None


def _or_infinite(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _load(path: Path) -> Amounts:
    if not path.exists():  # killed before it was first written
        return Amounts()
    try:
        return build(Amounts, json.loads(path.read_text(encoding="utf-8")), ConfigError)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: what the study has spent cannot be read ({error}). Fix the file, or delete it to "
                          "count from zero.") from None
