"""Train a trial: in its own process with Ray Train's local mode, or in a worker group that serves trial after trial.

A worker group takes ten seconds to start on two cores, so it outlives its trials: the first trial of a process starts
`serve` on every worker through `TorchTrainer.fit`, and each later trial is just another job in the mailbox. Ray Train
restarts workers that die, and they resume the job from its last checkpoint.
"""

import contextlib
import errno
import logging
import re
import threading
import time
from functools import partial
from typing import Any, cast

import ray
import torch
import torch.distributed as dist
from ray import tune
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from search.cluster import NOT_SHARED, check_shared
from search.environment import forget_launcher
from search.ray_private import is_stopped, unwrapped
from search.records.disk_space import is_full
from search.records.job import Job
from search.records.trial_record import first_line, read_failure, write_failure
from search.task import TrialFailed
from search.trials.context import Link, TrialContext, TrialStopped
from search.trials.launchers import GroupConfig
from search.trials.mailbox import Mailbox, Outcome
from search.trials.train_worker import train

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How long a trial's process waits for a message from its workers before it checks whether it was stopped."""

GPU_ERROR = re.compile(r"CUDA error|CUDA driver error|cuDNN error|Triton Error \[CUDA\]")
"""Errors of CUDA's libraries and Triton's kernels for which PyTorch has no exception type."""

STOP_PATIENCE_S = 10.0
"""How long a stopped trial may take to leave its training."""


def run_trial(config: dict[str, Any], context: TrialContext) -> None:
    """The function that Ray Tune calls: train a job to its end or until it is stopped.

    An error of the recipe is recorded as the trial's failure. Other errors are raised: a lost process or GPU, which is
    worth another try, and a full disk or a folder that this node does not see.
    """
    job, fit_at = Job.of(config), time.time()
    check_shared(context.folder)
    folder = context.folder / job.id
    if read_failure(folder):
        return  # it would fail again in the same way
    try:
        if context.num_workers == 1:
            _train_here(job, context, fit_at)
        else:
            WorkerGroup.of_this_process(context).train(job, fit_at)
    except (WorkersLost, RayError):  # the mailbox's or the source's process is gone, or this node is
        raise
    except Exception as error:
        if is_full(error) or NOT_SHARED in str(error):
            raise
        if context.num_workers == 1 and is_gpu_lost(error, context):  # a group has already lost its workers
            raise GpuLost(first_line(error)) from None
        if read_failure(folder) is None:
            write_failure(folder, first_line(error))


class GpuLost(RuntimeError):
    """The GPU returns only errors to this process, or has no memory for it now; another process may still continue."""


def is_gpu_lost(error: Exception, context: TrialContext) -> bool:
    """Whether an error says nothing about the recipe: after a CUDA error every call in the process fails, and other
    trials may hold the memory of a shared GPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return context.gpus_per_worker < 1
    return isinstance(error, torch.AcceleratorError) or GPU_ERROR.search(str(error)) is not None


def _train_here(job: Job, context: TrialContext, fit_at: float) -> None:
    """Ray Train's local mode: one worker, in this process."""
    forget_launcher()
    trainer = TorchTrainer(
        partial(train, job, context, TuneLink(), fit_at),
        scaling_config=ScalingConfig(num_workers=0, use_gpu=context.gpus_per_worker > 0),
        run_config=RunConfig(name=job.id, storage_path=str(context.folder / ".ray")))
    trainer.fit()


class TuneLink(Link):
    """A worker in the trial's own process."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Report to Tune, which ends this thread here if it stops the trial: by a SystemExit of its own, after which
        `is_stopped` no longer says so."""
        try:
            tune.report(metrics)
        except SystemExit as stop:
            raise TrialStopped(stop.code) from None

    def is_stopped(self) -> bool:
        """Whether Tune wants the trial to end."""
        return is_stopped()


# --- in the trial's process -----------------------------------------------------------------------------------------


class WorkersLost(RuntimeError):
    """The whole worker group ended; another process may restart it."""


class WorkerGroup:
    """A worker group and its mailbox, kept by a Ray Tune process for all the trials it runs."""

    _here: "WorkerGroup | None" = None

    def __init__(self, context: TrialContext) -> None:
        self._mailbox: Any = ray.remote(num_cpus=0)(Mailbox).remote()
        self._ended_by = ""
        self._fit = threading.Thread(target=self._run, args=(context,), name="worker-group", daemon=True)
        self._fit.start()

    @classmethod
    def of_this_process(cls, context: TrialContext) -> "WorkerGroup":
        """This process's group, started if there is none."""
        if cls._here is None or not cls._here._fit.is_alive():
            cls._here = cls(context)
        return cls._here

    @classmethod
    def close(cls) -> None:
        """End the worker group, if there is one, and wait for it."""
        if cls._here is not None:
            with contextlib.suppress(RayError):
                ray.get(cls._here._mailbox.stop.remote(close=True), timeout=STOP_PATIENCE_S)
                cls._here._fit.join(STOP_PATIENCE_S)

    def train(self, job: Job, fit_at: float) -> None:
        """Have the group train a job, and pass its reports on to Tune.

        Raises:
            WorkersLost: the whole group ended.
            OSError: the disk is full.
            RuntimeError: the job failed.
        """
        ray.get(self._mailbox.begin.remote(job, fit_at))
        try:
            outcome = None
            while outcome is None and not is_stopped():
                metrics, outcome = self._take()
                if metrics:
                    tune.report(metrics)
                    ray.get(self._mailbox.taken.remote())
        finally:  # Tune ends the thread of a stopped trial inside `report`
            outcome = self._leave()
        if outcome.disk_error:
            raise outcome.disk_error
        if outcome.reason:
            raise RuntimeError(outcome.reason)

    def _take(self) -> tuple[dict[str, Any] | None, Outcome | None]:
        if not self._fit.is_alive():
            raise WorkersLost("the worker group ended before its trial did" + f": {self._ended_by}".rstrip(": "))
        taken: tuple[dict[str, Any] | None, Outcome | None] = ray.get(self._mailbox.take.remote(LOOK_EVERY_S))
        return taken

    def _leave(self) -> Outcome:
        """Stop the job if it has not ended, and wait until its workers have left it."""
        ray.get(self._mailbox.stop.remote())
        until = time.monotonic() + STOP_PATIENCE_S
        while time.monotonic() < until:
            _, outcome = self._take()
            if outcome is not None:
                return outcome
        raise WorkersLost("the workers did not leave a stopped trial")

    def _run(self, context: TrialContext) -> None:
        trainer = TorchTrainer(
            serve, train_loop_config={"mailbox": self._mailbox, "context": context},
            # NCCL does not support two workers on one GPU.
            torch_config=GroupConfig(backend="gloo" if 0 < context.gpus_per_worker < 1 else None),
            scaling_config=ScalingConfig(num_workers=context.num_workers, use_gpu=context.gpus_per_worker > 0,
                                         resources_per_worker=worker_resources(context)),
            run_config=RunConfig(name=f"group-{time.time_ns()}", storage_path=str(context.folder / ".ray"),
                                 callbacks=[Losses(self._mailbox)],
                                 failure_config=FailureConfig(max_failures=-1)))  # the mailbox counts them per trial
        try:
            trainer.fit()
        except BaseException as error:  # in a thread: nobody else would see it
            self._ended_by = cause_of(error)
            log.warning("a worker group ended", exc_info=True)
        finally:  # what a worker said comes before what Ray made of it, which may be nothing
            with contextlib.suppress(RayError):
                self._ended_by = ray.get(self._mailbox.said.remote()) or self._ended_by


class Losses(UserCallback):
    """Reports lost workers to the mailbox, including those that could not do so themselves. Ray Train calls it."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Report the loss; Ray Train restarts the group afterwards."""
        with contextlib.suppress(RayError):  # the trial's process is gone, and its mailbox with it
            ray.get(self._mailbox.lost.remote(cause_of(worker_exceptions)))


def cause_of(error: Any) -> str:
    """The first worker's own error, out of what Ray Train raises for a group or keeps for each worker.

    A lost worker comes before the errors of the others, which have only lost the connection to it.
    """
    if failures := getattr(error, "worker_failures", error if isinstance(error, dict) else {}):
        said = [unwrapped(failures[rank]) for rank in sorted(failures)]
        return first_line(next((one for one in said if isinstance(one, RayError)), said[0]))
    return first_line(unwrapped(error))


def worker_resources(context: TrialContext) -> dict[str, float]:
    """What each worker of a group requests from Ray; a hundredth of a CPU is left for the trial's own process."""
    resources = {"CPU": context.cpus_per_worker - 0.01}
    return resources | ({"GPU": context.gpus_per_worker} if context.gpus_per_worker else {})


# --- in each worker -------------------------------------------------------------------------------------------------


def serve(arguments: dict[str, Any]) -> None:
    """Train one job after another until the mailbox is closed or gone."""
    mailbox, context = arguments["mailbox"], arguments["context"]
    rank = int(ray.train.get_context().get_world_rank())
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # so messages do not wait for the GPUs
    number = 0
    while True:
        word = [_next(mailbox, number) if rank == 0 else None]
        dist.broadcast_object_list(word, src=0, group=group)
        if word[0] is None:
            continue
        number, job, fit_at = word[0]
        if job is None:
            return
        _train_job(job, context, MailLink(rank, number, mailbox, group), fit_at)


def _next(mailbox: Any, after: int) -> Any:
    try:
        return ray.get(mailbox.next.remote(after))
    except RayError:  # the trial's process is gone, and its mailbox with it
        return 0, None, 0.0


class MailLink(Link):
    """A worker of a group; only the first one uses the mailbox."""

    def __init__(self, rank: int, number: int, mailbox: Any, group: Any) -> None:
        self.rank, self._number, self._mailbox, self._group = rank, number, mailbox, group
        self._stopped = mailbox.stopped.remote(number) if rank == 0 else None
        self._shall_leave = False

    def report(self, metrics: dict[str, Any]) -> None:
        """Report an epoch, wait for Tune's decision, and leave the trial with all workers if it should stop."""
        if self.rank == 0:
            self._shall_leave = ray.get(self._mailbox.report.remote(self._number, metrics))
        if self.agree(self.is_stopped()):
            raise TrialStopped(0)

    def is_stopped(self) -> bool:
        """Whether the first worker was asked to leave."""
        return self._shall_leave or (self._stopped is not None and bool(ray.wait([self._stopped], timeout=0)[0]))

    def agree(self, flag: bool) -> bool:
        """Whether the flag is true on any worker."""
        flags = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags.item())

    def end(self, outcome: Outcome) -> None:
        """Report how the job ended."""
        ray.get(self._mailbox.end.remote(self._number, outcome))

    def complain(self, error: str) -> None:
        """Report why this worker leaves."""
        ray.get(self._mailbox.complain.remote(self._number, error))


def _train_job(job: Job, context: TrialContext, link: MailLink, fit_at: float) -> None:
    """Train one job; an error of this worker alone is raised, because the others wait for it and must be restarted.

    It may only mean that another worker is gone, so it does not count as a failure yet.
    """
    outcome = Outcome()
    try:
        check_shared(context.folder)
        train(job, context, link, fit_at)
    except SystemExit:  # all workers leave at the same step
        pass
    except TrialFailed as error:  # so do they here
        outcome = Outcome(reason=first_line(error))
    except Exception as error:
        if is_full(error):
            link.end(Outcome(disk_error=OSError(errno.ENOSPC, first_line(error))))
        link.complain(first_line(error))
        raise
    if link.rank == 0:
        link.end(outcome)
