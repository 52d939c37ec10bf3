"""What a study's trials share, and the link between a worker and its trial's process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from search.records.job import Job
from search.records.trial_record import TrialRecord, read_failure
from search.task import Device, Task, Worker


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a study share."""

    study: str
    """The study's name, which is W&B's group."""
    folder: Path
    """Where trials have their folders; on a cluster, on shared storage."""
    task: Task
    """What they train."""
    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    timeout_s: float
    """How long a trial may take without a training step."""
    wandb: str
    """Where W&B records the trials: online, offline or off."""
    wandb_variables: ray.ObjectRef | None = None
    """W&B's key and settings, from `wandb_run.variables`, passed through Ray's memory: a runtime environment is written
    to Ray's logs, and jobs to the run's folder."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the scheduler stops trials; W&B's runs say how many they have passed."""

    @property
    def gpus(self) -> float:
        """GPUs that one trial holds."""
        return self.num_workers * self.gpus_per_worker

    @property
    def threads(self) -> int:
        """Threads of a worker, for PyTorch, MKL, oneDNN and our own kernels."""
        return max(1, int(self.cpus_per_worker))

    @property
    def device(self) -> Device:
        """The device of the trials."""
        return "cuda" if self.gpus_per_worker else "cpu"

    def worker(self, link: "Link") -> Worker:
        """What a worker knows of its part of a trial."""
        return Worker(device=self.device, rank=link.rank, num_workers=self.num_workers, agree=link.agree)


class TrialStopped(SystemExit):
    """A worker leaves its trial as it was asked to; anybody else's SystemExit is an error."""


class Link:
    """How a worker communicates with its trial's process; this one is for a single worker that is never stopped."""

    rank: int = 0

    def report(self, metrics: dict[str, Any]) -> None:
        """Report one epoch; raises SystemExit if the trial was stopped."""

    def is_stopped(self) -> bool:
        """Whether the trial should stop."""
        return False

    def agree(self, flag: bool) -> bool:
        """Whether it is true on any worker of the trial; all of them must ask at the same step."""
        return flag


def epochs_left(trials: Path, job: Job) -> int:
    """Epochs that a job still has to train; 0 if it failed, because it would fail again."""
    folder, whole = trials / job.id, job.recipe.training.epochs
    if read_failure(folder) is not None:
        return 0
    return whole - len(TrialRecord.load(folder).epochs) if (folder / "record.json").exists() else whole
