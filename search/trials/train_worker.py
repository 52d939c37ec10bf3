"""One trial in one worker: data, network and Lightning's trainer from a recipe."""

import logging
import pickle
import sys
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from ray.train.lightning import RayDDPStrategy

from files.saved import is_refused, why_refused
from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.task import TaskData, TrialFailed
from search.trials.checkpointing import CheckpointCallback
from search.trials.context import Link, TrialContext, TrialStopped
from search.trials.launchers import OwnPlace
from search.trials.torch_private import collect_garbage_from
from search.trials.wandb_run import TrialLogger, close_trial, trial_logger
from spaces.recipe import Recipe

CUDA_CONTEXT_BYTES = 0.6e9
"""GPU memory that CUDA and its libraries hold per process, which PyTorch does not count."""


def train(job: Job, context: TrialContext, link: Link, fit_at: float) -> None:
    """Run on every worker: build the trial from its recipe and train it to the end or until it is stopped.

    Raises:
        TrialFailed: the recipe fails; on all workers at the same step.
        SystemExit: the trial was stopped; likewise.
        RuntimeError: code that the trial runs has called sys.exit, which would end the process without a reason.
    """
    try:
        _train(job, context, link, fit_at)
    except SystemExit as left:
        is_interrupted = isinstance(left.__context__, KeyboardInterrupt)  # Lightning exits then, as after Ctrl-C
        if isinstance(left, TrialStopped) or is_interrupted or link.is_stopped():
            raise
        raise RuntimeError(f"its code called sys.exit({left.code!r})") from left


def _train(job: Job, context: TrialContext, link: Link, fit_at: float) -> None:
    _quieten()
    place = OwnPlace.in_group() if context.num_workers > 1 else OwnPlace()
    # Ray sets OMP_NUM_THREADS to the CPUs (rounded down, at least 1) of the first task in a process, which may have
    # been another one. Only TorchScript's fork starts PyTorch's inter-op threads, and nothing here forks.
    torch.set_num_threads(context.threads)
    if context.device == "cuda":
        # This reports the cause, such as an old driver; Lightning reports only that there is no GPU.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    record = TrialRecord(context.folder / job.id, job.recipe, job.seed, metric=context.task.measures.minimised.name,
                         patience=job.patience, keep_last=job.keep_last)
    if link.rank == 0:
        record.folder.mkdir(parents=True, exist_ok=True)
        for left in record.folder.glob("*.part"):  # left by a killed process; they may be as large as the network
            left.unlink(missing_ok=True)
        record.show_alive()
    pl.seed_everything(job.seed, verbose=False)
    data, module = context.task.build(record.recipe, job.seed, context.worker(link))
    record.left_out = data.num_left_out
    record.num_parameters = module.num_parameters
    record.precision = context.task.trainer_precision(context.device)
    logger = trial_logger(context, record, job.hand_recipe) if link.rank == 0 else None
    checkpoint = str(record.last_checkpoint) if record.last_checkpoint.exists() else None
    try:
        trainer = make_trainer(record, context, data, CheckpointCallback(record, context, link, fit_at), logger, place)
        keep_to_share(trainer.strategy.root_device, context.gpus_per_worker)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except pickle.UnpicklingError as error:
        if not is_refused(error):
            raise
        raise TrialFailed(f"{checkpoint}: {why_refused(error)} No trial wrote it; remove it, and the "
                          "trial starts over.") from error
    finally:  # otherwise the next trial would log to this W&B run
        if logger:
            close_trial(logger, record, context, module.examples(), sys.exception())


def keep_to_share(device: torch.device, share: float) -> None:
    """Make PyTorch free cached memory of a shared GPU beyond its share.

    Batches of varying sizes make it cache more and more, up to the whole GPU, and another process's need does not make
    it free any. Memory in use may exceed the share.
    """
    if device.type == "cuda" and share < 1:
        kept = share - CUDA_CONTEXT_BYTES / torch.cuda.get_device_properties(device).total_memory
        collect_garbage_from(max(kept, 0.01))
        torch.cuda.set_per_process_memory_fraction(1.0, device)  # without a limit, the threshold is ignored


def make_trainer(record: TrialRecord, context: TrialContext, data: TaskData, callback: CheckpointCallback,
                 logger: TrialLogger | None, place: OwnPlace) -> pl.Trainer:
    """Lightning's trainer for one worker."""
    training = record.recipe.training
    return pl.Trainer(
        max_epochs=training.epochs,
        callbacks=[callback],
        strategy=_strategy(record.recipe, context.num_workers),
        plugins=[place],
        num_nodes=1,
        accelerator="gpu" if context.gpus_per_worker else "cpu",
        devices=1 if context.num_workers == 1 else "auto",
        precision=context.task.trainer_precision(context.device),
        accumulate_grad_batches=data.passes,
        gradient_clip_val=training.gradient_clip or None,
        logger=logger or False,
        log_every_n_steps=max(1, min(10, data.steps_in_epoch(0) // 4)),
        default_root_dir=str(record.folder),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(recipe: Recipe, world_size: int) -> Any:
    """DDP among several workers; a frozen encoder has unused parameters."""
    if world_size == 1:
        return "auto"
    return RayDDPStrategy(find_unused_parameters=recipe.transfer.use_source and recipe.transfer.frozen_epochs > 0)


def _quieten() -> None:
    """Silence Lightning's advice about hardware and loaders, which does not apply here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
