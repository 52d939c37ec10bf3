"""Watchdog: stops trials that hang, and gives up those that lose their process again and again."""

import errno
import os
import re
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from search.cluster import NOT_SHARED, ClusterError, free_orphaned_groups
from search.records.disk_space import says_full
from search.records.job import Job
from search.records.trial_record import ALIVE, write_failure
from search.trials.budget import format_duration
from search.trials.interrupt import Interrupt

LOSSES_FORGIVEN = 2
"""How often a trial may lose its process without an epoch in between and resume from its last checkpoint."""

START_PATIENCE_S = 300.0
"""Minimum time to allow for a trial's first sign of life, because a worker group may wait for its machines."""

LOOK_EVERY_S = 1.0

NODE_LOST = "its machine was lost"
NO_WORKERS = "its workers did not come"
"""Neither of the two says anything about the recipe, so they do not count as losses."""


class Watchdog(tune.Callback):
    """Checks what Tune does not: whether a trial still runs, why one was lost, and whether it makes progress.

    A trial is alive while the time of its file `alive` changes. A full disk, or a node without the study's folder, is
    not a trial's fault: the search stops, and all trials are left as they are.
    """

    def __init__(self, folder: Path, timeout_s: float, interrupt: Interrupt, has_groups: bool = False) -> None:
        self.error: OSError | ClusterError | None = None
        """Why the search must stop."""
        self._folder, self._timeout_s, self._interrupt = folder, timeout_s, interrupt
        self._has_groups = has_groups
        self._looked_at = 0.0
        self._beats: dict[str, tuple[float, float]] = {}
        """A trial's last beat by its file's time, and when we saw it by our own clock; machines' clocks may differ."""
        self._starting: set[str] = set()
        self._hung: set[str] = set()
        self._waiting: set[str] = set()
        """Hanging trials whose workers never started."""
        self._furthest: dict[str, int] = {}
        self._lost: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Start watching."""
        name = _name(trial)
        self._beats[name] = self._beat(name), time.monotonic()
        self._starting.add(name)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Kill the processes of trials without progress for too long, and free what dead ones hold."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if self._has_groups:
            free_orphaned_groups()
        for trial in trials:
            name = _name(trial)
            if trial.status != Trial.RUNNING or name in self._hung:
                continue
            beat = self._beat(name)
            limit_s = max(self._timeout_s, START_PATIENCE_S) if name in self._starting else self._timeout_s
            if beat != self._beats[name][0]:
                self._beats[name] = beat, now
                self._starting.discard(name)
            elif now - self._beats[name][1] > limit_s:
                self._hung.add(name)
                if self._has_groups and name in self._starting:
                    self._waiting.add(name)
                ray.kill(trial.temporary_state.ray_actor)

    def _beat(self, name: str) -> float:
        try:
            return (self._folder / name / ALIVE).stat().st_mtime
        except OSError:  # it has not started
            return 0.0

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any],
                        **info: Any) -> None:
        """Forget losses before a new epoch."""
        if result.get("is_new"):
            self._furthest[_name(trial)], self._lost[_name(trial)] = result["epoch"], 0

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Report a loss; Tune restarts the trial, which ends at once if it was given up."""
        name, text = _name(trial), _last_error(trial)
        if says_full(text):
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder / name))
        elif NOT_SHARED in text:
            said = next(line for line in text.splitlines() if NOT_SHARED in line)
            self.error = ClusterError(said.partition(f"{ClusterError.__name__}: ")[2] or said)
        if self.error:
            self._interrupt.set()
            return
        why = why_lost(text)
        if name in self._hung:
            why = NO_WORKERS if name in self._waiting else f"no training step for {format_duration(self._timeout_s)}"
        self._hung.discard(name)
        self._waiting.discard(name)
        if why not in (NODE_LOST, NO_WORKERS):
            self._lost[name] = self._lost.get(name, 0) + 1
        goes_on = f"it resumes after epoch {self._furthest.get(name, 0)}"
        if self._lost.get(name, 0) > LOSSES_FORGIVEN:
            write_failure(self._folder / name, f"{why}; {self._lost[name]} times without an epoch between")
            goes_on = "it is given up"
        if self._lost.get(name, 0) <= LOSSES_FORGIVEN + 1:  # it may be lost again before it reads that it was given up
            print(f"trial {name}: {why}; {goes_on}", flush=True)


def why_lost(text: str) -> str:
    """Why a trial's process was lost, in a few words."""
    if "node has died" in text:
        return NODE_LOST
    if "running low on memory" in text:
        return "its process was ended because the machine ran out of memory"
    if "actor died" in text:
        return "its process was lost"
    return re.sub(r"^search\.[\w.]+: ", "", text.strip().splitlines()[-1])[:300]


def _last_error(trial: Trial) -> str:
    """The text of a trial's last error; Tune writes all of them to the driver's disk, but keeps few as objects."""
    return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure # ")[2]


def _name(trial: Trial) -> str:
    return Job.of(trial.config).id
