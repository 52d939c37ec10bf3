"""What the trials of a study share, and the link between a worker and its trial's process."""

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
    """The study's name: W&B's group."""
    folder: Path
    """Where trials keep their folders; on a cluster on shared storage."""
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
    """W&B's key and settings, as `tracking.variables` gives them, by Ray's memory: a runtime environment is written to
    Ray's logs, and what trials are made of to the run's folder."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the scheduler stops trials; W&B's runs say how many they have passed."""

    @property
    def gpus(self) -> float:
        """GPUs that one trial holds."""
        return self.num_workers * self.gpus_per_worker

    @property
    def threads(self) -> int:
        """Threads of a worker, for PyTorch, MKL, oneDNN and our own kernels alike."""
        return max(1, int(self.cpus_per_worker))

    @property
    def device(self) -> Device:
        """Where trials compute."""
        return "cuda" if self.gpus_per_worker else "cpu"

    def worker(self, link: "Link") -> Worker:
        """What a worker knows of its part of a trial."""
        return Worker(device=self.device, rank=link.rank, num_workers=self.num_workers, agree=link.agree)


class Link:
    """How a worker hears from its trial's process and tells it; here for one worker that nobody stops."""

    rank: int = 0

    def report(self, metrics: dict[str, Any]) -> None:
        """Pass one epoch on; leaves the trial by SystemExit where it was stopped."""

    def is_stopped(self) -> bool:
        """Whether the trial shall be left."""
        return False

    def agree(self, flag: bool) -> bool:
        """Whether any worker of the trial says so; all of them have to ask at the same step."""
        return flag


def epochs_left(trials: Path, job: Job) -> int:
    """Epochs that a job has to train; none where it failed, for it would fail again."""
    folder, whole = trials / job.id, job.recipe.training.epochs
    if read_failure(folder) is not None:
        return 0
    return whole - len(TrialRecord.load(folder).epochs) if (folder / "record.json").exists() else whole
