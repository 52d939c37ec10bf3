"""The faults: what is killed, stopped or filled up, and how a study is set up for it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

from faulty_run import FLAG, REASON
from processes import family, title
from watched_study import Plan, Study, kill, started, trial_processes_of, wait_for

from search.config import StudyConfig
from search.environment import set_up_ray

GONE_AFTER_S = 60.0
"""Ray's processes see within seconds that their driver is gone."""

RAYS_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a driver that is killed while Ray starts they may stay. They hold no CPUs, and a resumed study is not in their
way."""

DISK_MB = 600
"""Trials of the narrow network keep 7 MB each; the large file takes the rest."""

MAX_MEMORY = 4_000_000_000
"""Bytes that are taken at most to let a trial run out of memory."""

STUDY_MEMORY = 2_500_000_000
"""What a study of two trials takes itself."""

HANG_LIMIT_S = 20

HOG = """
import sys, time
blocks = []
while sum(map(len, blocks)) < int(sys.argv[1]):
    blocks.append(b"x" * 100_000_000)
    time.sleep(0.1)
time.sleep(20)
"""


class FaultError(RuntimeError):
    """A fault that could not be caused, or a study that did not handle it correctly."""


class Fault:
    """One kind of fault; as it stands, none."""

    resumes = False
    """Whether the study ends by it and is resumed."""
    may_fail: str | None = None
    """Text in the reason of a trial that fails because of it."""
    trained_s = (0.0, 2.5)
    """It comes after this many seconds of training, at least and at most."""
    starting_s: tuple[float, float] | None = None
    """Every third one comes so long after the driver's start instead, whatever it does then."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def why_not(self) -> str | None:
        """Why it cannot be caused here; None if it can."""
        return None

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """Around a whole study: what it needs."""
        yield plan

    def running(self, study: Study) -> dict[int, str]:
        """The processes that run trials now, and the names of these."""
        return trial_processes_of(study.pid)

    def strike(self, study: Study) -> set[str] | None:
        """Cause it; returns the trials that must resume after it, or None if there was nothing to hit."""
        raise NotImplementedError

    def after(self, study: Study) -> None:
        """Once the study has ended by it, before it is resumed."""


class Driver(Fault):
    """kill -9 of the driver, alone or with its process group; every third time while it starts."""

    resumes = True
    starting_s = (0.0, 20.0)

    def strike(self, study: Study) -> set[str] | None:
        """Kill, and wait until Ray's processes are gone."""
        trials = set(self.running(study).values())
        those = {(pid, at) for pid in family(study.pid) if (at := started(pid))}
        if self.random.random() < 0.5:
            os.killpg(study.pid, signal.SIGKILL)
        else:
            os.kill(study.pid, signal.SIGKILL)
        study.wait(limit_s=30)
        wait_for(lambda: all(started(pid) != at for pid, at in those), GONE_AFTER_S)
        left = {pid: title(pid).rstrip("\0")[:40] for pid, at in those if started(pid) == at}
        for pid in left:
            kill(pid)
        if others := {pid: name for pid, name in left.items() if name not in RAYS_AGENTS}:
            raise FaultError(f"of a killed driver there was left after {GONE_AFTER_S:.0f} s: {others}")
        return trials


class Actor(Fault):
    """kill -9 of a trial's process."""

    def strike(self, study: Study) -> set[str] | None:
        """Kill one of those that run."""
        return {victim[1]} if (victim := self.choose(study)) and kill(victim[0]) else None

    def choose(self, study: Study) -> tuple[int, str] | None:
        """A process and its trial."""
        found = sorted(self.running(study).items())
        return self.random.choice(found) if found else None


class Worker(Actor):
    """kill -9 of one of a trial's two workers, which are all that two cores hold."""

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """Trials of two workers."""
        yield replace(plan, flags=(*plan.flags, "--workers-per-trial", "2", "--concurrency", "1"))

    def choose(self, study: Study) -> tuple[int, str] | None:
        """A worker, which Ray runs in its group's folder, and the trial of the process beside it."""
        workers = sorted(pid for pid in family(study.pid) if title(pid).startswith("ray::RayTrainWorker"))
        trials = list(self.running(study).values())
        return (self.random.choice(workers), trials[0]) if workers and trials else None


class Node(Fault):
    """One node of a Ray cluster dies, and another one joins."""

    _cluster: Any

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """A head without trials and two nodes of one CPU each, all on this machine."""
        from ray.cluster_utils import Cluster

        set_up_ray()
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                self._cluster.add_node(num_cpus=1)
            yield replace(plan, environment={**plan.environment, "RAY_ADDRESS": self._cluster.address})
        finally:
            self._cluster.shutdown()

    def running(self, study: Study) -> dict[int, str]:
        """The nodes are ours, not the driver's."""
        return trial_processes_of(os.getpid())

    def strike(self, study: Study) -> set[str] | None:
        """Kill a node that trains, and add one."""
        nodes = [(node, pid) for node in self._cluster.worker_nodes
                 for pid in [node.all_processes["raylet"][0].process.pid] if trial_processes_of(pid)]
        if not nodes:
            return None
        node, pid = self.random.choice(sorted(nodes, key=lambda pair: pair[1]))
        trials = set(trial_processes_of(pid).values())
        self._cluster.remove_node(node, allow_graceful=False)
        time.sleep(self.random.uniform(0, 3))
        self._cluster.add_node(num_cpus=1)
        return trials


class Disk(Fault):
    """The disk of the run's folder is full, and free again before the study is resumed."""

    resumes = True

    def why_not(self) -> str | None:
        """Only root can mount a small disk."""
        return None if os.geteuid() == 0 else "mounting a small tmpfs needs root"

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """The run's folder on a disk of its own."""
        plan.out.mkdir(parents=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(plan.out)],
                                 capture_output=True, text=True)
        if mounted.returncode:
            raise FaultError(f"mounting a tmpfs was refused: {mounted.stderr.strip()}")
        try:
            yield replace(plan, out=plan.out / "study")
        finally:
            subprocess.run(["umount", "-l", str(plan.out)], check=False)

    def strike(self, study: Study) -> set[str] | None:
        """Fill it, and wait until the study has ended."""
        trials = set(self.running(study).values())
        with contextlib.suppress(OSError), self.filler(study).open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65536)
        if not study.wait(limit_s=120):
            raise FaultError("the study went on for 120 s on a full disk; it was killed")
        if study.code != 1 or "the disk is full" not in study.text:
            last = study.text.strip().splitlines()[-1:]
            raise FaultError(f"on a full disk the study ended with code {study.code} and {last}")
        return trials

    def after(self, study: Study) -> None:
        """Free it."""
        self.filler(study).unlink()

    @staticmethod
    def filler(study: Study) -> Path:
        """The large file."""
        return study.plan.out.parent / "filler"


class Raise(Fault):
    """A trial raises in the middle of an epoch."""

    may_fail = REASON

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """Trials that raise when they are told to."""
        yield replace(plan, script=("-c", "import sys, faulty_run; sys.exit(faulty_run.main())"))

    def strike(self, study: Study) -> set[str] | None:
        """Tell them, and see which one did."""
        flag = study.plan.out / FLAG
        flag.touch()
        if wait_for(lambda: not flag.exists() or study.code is not None, 30) and not flag.exists():
            return set()
        flag.unlink(missing_ok=True)
        return None


class Hang(Actor):
    """A trial hangs for longer than --trial-timeout."""

    def why_not(self) -> str | None:
        """The flag may not be there."""
        return None if "trial_timeout" in {f.name for f in fields(StudyConfig)} else "there is no --trial-timeout"

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """A short patience."""
        yield replace(plan, flags=(*plan.flags, "--trial-timeout", f"{HANG_LIMIT_S}s"))

    def strike(self, study: Study) -> set[str] | None:
        """Stop a process, which the study must then kill."""
        victim = self.choose(study)
        if victim is None:
            return None
        pid, trial = victim
        at = started(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        if not wait_for(lambda: started(pid) != at, HANG_LIMIT_S + 60):
            kill(pid)
            raise FaultError(f"trial {trial} stood still for {HANG_LIMIT_S + 60} s and was not ended")
        return {trial}


class Memory(Fault):
    """Another process takes memory until Ray kills a trial."""

    @contextmanager
    def around(self, plan: Plan) -> Iterator[Plan]:
        """The share of the memory at which Ray acts: what is used now, and room for the study."""
        total, available = memory_bytes()
        share = (total - available + STUDY_MEMORY + 0.5 * MAX_MEMORY) / total
        if share > 0.95:
            raise FaultError(f"too little memory is free ({available / 1e9:.1f} GB)")
        yield replace(plan, environment={**plan.environment, "RAY_memory_usage_threshold": f"{share:.3f}"})

    def strike(self, study: Study) -> set[str] | None:
        """Take memory, and give it back once a trial's process has died."""
        before = {pid: (started(pid), trial) for pid, trial in self.running(study).items()}
        with subprocess.Popen([sys.executable, "-c", HOG, str(MAX_MEMORY)]) as hog:
            wait_for(lambda: hog.poll() is not None or any(started(pid) != at for pid, (at, _) in before.items()), 30)
            hog.kill()
        return {trial for pid, (at, trial) in before.items() if started(pid) != at} or None


KINDS: dict[str, type[Fault]] = {"driver": Driver, "actor": Actor, "worker": Worker, "node": Node, "disk": Disk,
                                 "raise": Raise, "memory": Memory, "hang": Hang}


def memory_bytes() -> tuple[int, int]:
    """Of this machine: in all, and available."""
    rows = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    return 1024 * int(rows["MemTotal:"]), 1024 * int(rows["MemAvailable:"])
