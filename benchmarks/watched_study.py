"""A study in a process of its own, watched from outside: its lines as they come, its trials' records as they grow."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import family, title

ROOT = Path(__file__).resolve().parents[1]

LOOK_EVERY_S = 0.03
"""Far below an epoch, so that two epochs of a trial are hardly ever seen at once."""

LINE = re.compile(r"trial (\d{4})  epoch (\d+)/\d+ ")

JOB = re.compile(r"/working_dirs/.*[_,]id=(\d{4}),")
"""In the name of the folder that Ray Tune runs a trial in."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a study is started."""

    out: Path
    corpus: Path
    cache: Path
    trials: int
    epochs: int = 27
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    script: tuple[str, ...] = ("search/run.py",)
    """What Python runs."""
    log: Path
    """Where all that its drivers print is kept, each line with its time."""

    def command(self, resume: bool) -> list[str]:
        """A study of the narrow network from random weights, two trials at a time; an epoch takes half a second."""
        if resume:
            return [sys.executable, *self.script, "--resume", str(self.out)]
        return [sys.executable, *self.script, "--corpus", str(self.corpus), "--source", "none", "--space", "synthetic",
                "--cache", str(self.cache), "--out", str(self.out), "--trials", str(self.trials), "--max-epochs",
                str(self.epochs), "--grace-epochs", "1", "--confirm", "1", "--seeds", "1", "--no-ablation",
                "--wandb", "off", "--precision", "float32", "--cpus-per-worker", "1", "--concurrency", "2", *self.flags]


@dataclass(frozen=True)
class Recorded:
    """An epoch as a trial's record has it, and when it came there."""

    values: dict[str, Any]
    at: float


class Ledger(threading.Thread):
    """Reads the trials' records as they grow and complains of an epoch that is lost, or recorded twice."""

    def __init__(self, trials: Path) -> None:
        super().__init__(daemon=True)
        self._trials, self._ended = trials, threading.Event()
        self._looking, self._seen_at = threading.Lock(), dict[str, int]()
        self.epochs: dict[str, list[Recorded]] = {}
        self.complaints: list[str] = []

    def run(self) -> None:
        """Until the end."""
        while not self._ended.wait(LOOK_EVERY_S):
            self.look()

    def end(self) -> None:
        """A last look."""
        self._ended.set()
        self.join()
        self.look()

    def look(self) -> None:
        """Read the records that have changed."""
        with self._looking:
            for path in self._trials.glob("*/record.json"):
                try:
                    at = path.stat().st_mtime_ns
                    if self._seen_at.get(path.parent.name) == at:
                        continue
                    epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
                except OSError:  # being replaced
                    continue
                self._seen_at[path.parent.name] = at
                self._compare(path.parent.name, epochs, at / 1e9)

    def _compare(self, trial: str, epochs: list[dict[str, Any]], at: float) -> None:
        known = self.epochs.setdefault(trial, [])
        if len(epochs) < len(known):
            self.complaints.append(f"trial {trial} had {len(known)} epochs recorded, and then {len(epochs)}")
        for before, after in zip(known, epochs, strict=False):
            if before.values != after:  # its seconds alone tell one training of an epoch from another
                self.complaints.append(f"trial {trial}, epoch {after['epoch']} was recorded twice")
        self.epochs[trial] = [*known[: len(epochs)], *(Recorded(values, at) for values in epochs[len(known):])]

    def count(self, trial: str) -> int:
        """Epochs that a trial has recorded."""
        return len(self.epochs.get(trial, ()))

    def best(self) -> float:
        """Lowest word error rate of all."""
        return min((row.values["wer"] for rows in list(self.epochs.values()) for row in rows), default=float("inf"))


class Study:
    """One study over all its drivers."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.ledger = plan, Ledger(plan.out / "trials")
        self.history: list[tuple[str, int] | dict[str, int]] = []
        """In the driver's order: each epoch it printed; at each start the epochs that the trials had recorded."""
        self.text = ""
        """What the present driver has printed."""
        self._driver: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.started_at = 0.0
        self.ledger.start()

    @property
    def pid(self) -> int:
        """Of the driver, which leads its process group."""
        assert self._driver is not None
        return self._driver.pid

    @property
    def code(self) -> int | None:
        """The driver's exit code; None while it lives."""
        assert self._driver is not None
        return self._driver.poll()

    def start(self) -> None:
        """Start the driver, or go on where there is something to go on with."""
        self.ledger.look()
        self.history.append({trial: len(rows) for trial, rows in self.ledger.epochs.items()})
        paths = [str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **self.plan.environment, "PYTHONPATH": os.pathsep.join(paths)}
        self.text, self.started_at = "", time.time()
        self._driver = subprocess.Popen(
            self.plan.command(resume=(self.plan.out / "config.yaml").exists()), cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self._driver,), daemon=True)
        self._reader.start()

    @property
    def printed(self) -> bool:
        """Whether the present driver has printed an epoch."""
        return not isinstance(self.history[-1], dict)

    def _read(self, driver: "subprocess.Popen[str]") -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            self.text += line
            with self.plan.log.open("a", encoding="utf-8") as log:
                log.write(f"{time.time():.2f} {line}")
            if match := LINE.match(line):
                self.history.append((match[1], int(match[2])))

    def wait(self, limit_s: float) -> bool:
        """Wait for the driver's end; False where it does not come."""
        assert self._reader is not None
        if not wait_for(lambda: self.code is not None, limit_s):
            return False
        self._reader.join(timeout=10)  # a process that outlives the driver may hold its output open
        return True

    def state(self, trial: str) -> str | None:
        """What study.db says of a trial, such as RUNNING; None where it knows none."""
        return states(self.plan.out).get(trial)


def states(folder: Path) -> dict[str, str]:
    """State of each trial that study.db knows, read beside the driver that writes it."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True, timeout=30)) as base:
            return {f"{number:04d}": str(state) for number, state in base.execute("SELECT number, state FROM trials")}
    except sqlite3.OperationalError:  # not made yet
        return {}


def wait_for(condition: Callable[[], bool], limit_s: float) -> bool:
    """Look again and again; False where it never was so."""
    end = time.time() + limit_s
    while not condition():
        if time.time() > end:
            return False
        time.sleep(0.05)
    return True


def trial_processes_of(parent: int) -> dict[int, str]:
    """Processes under `parent` that run a trial, by its name."""
    return {pid: trial for pid in family(parent) if title(pid).startswith("ray::") and (trial := trial_of(pid))}


def trial_of(pid: int) -> str | None:
    """The trial that a process works for, by the folder that Ray runs it in."""
    try:
        match = JOB.search(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:  # the process has ended
        return None
    return match[1] if match else None


def started(pid: int) -> str | None:
    """When a process started, in ticks: with its number it names it for good. None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def kill(pid: int) -> bool:
    """kill -9; False where it was gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
