"""What is saved of a trial while it trains: after each validation a checkpoint, a record and a report."""

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from files.atomic import aside_of, take_place, write_aside
from search.records.files import write_json
from search.records.trial_record import Epoch, TrialRecord
from search.task import TaskModule
from search.trials.context import Link, TrialContext, TrialStopped

BEAT_EVERY_S = 1.0
"""Shortest time between a trial's signs of life."""

CHECKPOINT_EVERY_S = 600.0
"""Time between checkpoints inside an epoch, which takes hours on 600 hours of speech; 0.3 GB for a 15x5."""


class CheckpointCallback(pl.Callback):
    """After each validation: checkpoint, record, report, in this order, so nothing is lost. Stops if asked to."""

    def __init__(self, record: TrialRecord, context: TrialContext, link: Link, fit_at: float) -> None:
        self._record, self._context, self._link, self._fit_at = record, context, link, fit_at
        self._beat_at, self._saved_at = 0.0, time.monotonic()

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the epochs recorded in the checkpoint, and report those that may have been lost.

        After a kill between the checkpoint and the record or report, those are made again from the checkpoint.
        """
        assert isinstance(module, TaskModule)
        record = self._record
        record.epochs = [Epoch.from_flat(values) for values in checkpoint["epochs"]]
        if self._link.rank == 0:
            if record.epochs and not checkpoint["is_inside_epoch"]:
                save_weights(module.kept_state(checkpoint["state_dict"]), checkpoint["hypotheses"], record)
            record.save()
        for epoch in record.epochs:
            self._report(epoch, is_new=False)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the epochs in the checkpoint, so that the two never disagree."""
        assert isinstance(module, TaskModule)
        checkpoint["epochs"] = [epoch.flat() for epoch in self._record.epochs]
        checkpoint["hypotheses"] = module.outputs()
        checkpoint["is_inside_epoch"] = trainer.training

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A kill may have come between the last epoch's checkpoint and its report that it was the last."""
        trainer.should_stop = self._record.is_complete

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Write a checkpoint inside the epoch now and then, and one when the trial is stopped, which exits here."""
        self._beat()
        is_step = (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step or trainer.is_last_batch:
            return
        is_stopped = self._link.is_stopped()
        if self._link.agree(is_stopped or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S):
            self._save_checkpoint(trainer)
            if self._link.agree(is_stopped):
                raise TrialStopped(0)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Show that the trial is alive."""
        self._beat()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the epoch."""
        assert isinstance(module, TaskModule)
        record, epoch = self._record, self._epoch(trainer, module)
        record.workers = trainer.world_size
        record.epochs.append(epoch)
        self._save_checkpoint(trainer)
        if trainer.is_global_zero:
            save_weights(module.kept_state(module.state_dict()), module.outputs(), record)
            record.save()
            if trainer.logger:
                figures, speed = epoch.flat(), self._context.task.measures.speed
                values = {f"dev/{name}": value for name, value in figures.items()}
                values[f"train/{speed.name}"] = speed.of(figures)
                trainer.logger.log_metrics(values, step=trainer.global_step)
        self._report(epoch, is_new=True)
        trainer.should_stop = record.is_complete

    def _save_checkpoint(self, trainer: pl.Trainer) -> None:
        aside = aside_of(self._record.last_checkpoint)
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            take_place(aside, self._record.last_checkpoint)
        self._saved_at = time.monotonic()

    def _beat(self) -> None:
        now = time.monotonic()
        if self._link.rank == 0 and now - self._beat_at >= BEAT_EVERY_S:
            self._beat_at = now
            self._record.show_alive()

    def _epoch(self, trainer: pl.Trainer, module: TaskModule) -> Epoch:
        assert module.first_step_at is not None
        metrics, measures = module.metrics(), self._context.task.measures
        held_s = module.busy_s * self._context.gpus_per_worker * self._context.num_workers
        epoch = Epoch(
            epoch=trainer.current_epoch + 1, metrics=metrics, train_s=module.busy_s,
            outside_s=time.time() - self._fit_at - (module.busy_s - module.busy_before_s),
            to_first_step_s=module.first_step_at - self._fit_at, gpu_s=held_s)
        name = measures.minimised.name
        best = min((*self._record.epochs, epoch), key=lambda known: known.score(name))
        return replace(epoch, metrics=metrics | {measures.best: best[name]})

    def _report(self, epoch: Epoch, is_new: bool) -> None:
        """The checkpoint is reported by its path: it is in the trial's own folder, and Ray would only copy it."""
        self._link.report(epoch.flat() | {"trial": self._record.id, "is_new": is_new,
                                         "checkpoint": str(self._record.last_checkpoint)})


def save_weights(weights: Mapping[str, Tensor], outputs: list[str], record: TrialRecord) -> None:
    """Save the weights and outputs of the latest epoch if it is the best, and its weights among those of the latest
    epochs."""
    latest = record.epochs[-1]
    is_best = record.best is latest
    if not (is_best or record.keep_last):
        return
    content = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in weights.items()}, content)
    if record.keep_last:
        write_aside(record.weights_after(latest.epoch), content.getvalue())
        record.weights_after(latest.epoch - record.keep_last).unlink(missing_ok=True)
    if is_best:
        write_aside(record.best_weights, content.getvalue())
        write_json(record.folder / "dev.json", outputs)
