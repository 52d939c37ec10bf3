"""What is kept of a trial while it trains: after each look at dev a checkpoint, a record and a report."""

import io
import math
import sys
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from models.finetuning import FineTuning
from search.records.files import write_json
from search.records.trial_record import Epoch, TrialRecord
from search.trials.context import Link, TrialContext
from whole_files import aside_of, take_place, write_aside

BEAT_EVERY_S = 1.0
"""A trial shows at most so often that it is alive."""

CHECKPOINT_EVERY_S = 600.0
"""Inside an epoch, which on 600 hours of speech takes hours; 0.3 GB for a 15x5."""


class CheckpointCallback(pl.Callback):
    """After each look at dev: checkpoint, record, report; in this order, so nothing is lost. Stops where asked to."""

    def __init__(self, record: TrialRecord, context: TrialContext, link: Link, fit_at: float) -> None:
        self._record, self._context, self._link, self._fit_at = record, context, link, fit_at
        self._beat_at, self._saved_at = 0.0, time.monotonic()

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the epochs up to the checkpoint as they were recorded in it, and report what may have been lost.

        A kill between the checkpoint and what follows it leaves the others behind: they are made from it again.
        """
        assert isinstance(module, FineTuning)
        record = self._record
        record.epochs = [Epoch(**values) for values in checkpoint["epochs"]]
        if self._link.rank == 0:
            if record.epochs and not checkpoint["is_inside_epoch"]:
                save_weights(checkpoint["state_dict"], checkpoint["hypotheses"], record)
            record.save()
        for epoch in record.epochs:
            self._report(epoch, is_new=False)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the epochs in the checkpoint: the two can never disagree."""
        assert isinstance(module, FineTuning)
        checkpoint["epochs"] = [vars(epoch) for epoch in self._record.epochs]
        checkpoint["hypotheses"] = module.validation.hypotheses if module.validation else []
        checkpoint["is_inside_epoch"] = trainer.training

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """A kill may have come between the last epoch's checkpoint and its word that this was the last."""
        trainer.should_stop = self._record.is_complete

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Keep a checkpoint inside the epoch now and then, and one when the trial is stopped, which is left here."""
        self._beat()
        is_step = (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step or trainer.is_last_batch:
            return
        is_stopped = self._link.is_stopped()
        if self._link.agree(is_stopped or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S):
            self._save_checkpoint(trainer)
            if self._link.agree(is_stopped):
                sys.exit(0)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Show that the trial is alive."""
        self._beat()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the epoch."""
        assert isinstance(module, FineTuning) and module.validation is not None
        record, epoch = self._record, self._epoch(trainer, module)
        record.workers = trainer.world_size
        record.epochs.append(epoch)
        self._save_checkpoint(trainer)
        if trainer.is_global_zero:
            save_weights(module.state_dict(), module.validation.hypotheses, record)
            record.save()
            if trainer.logger:
                values = {f"dev/{name}": value for name, value in vars(epoch).items()}
                values["train/times_real_time"] = 3600 * epoch.audio_h / epoch.train_s
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

    def _epoch(self, trainer: pl.Trainer, module: FineTuning) -> Epoch:
        assert module.validation and module.latest_validation and module.first_step_at is not None
        errors = module.validation.errors
        held_s = module.busy_s * self._context.gpus_per_worker * self._context.num_workers
        earlier = self._record.epochs[-1] if self._record.epochs else None
        return Epoch(
            epoch=trainer.current_epoch + 1, wer=errors.wer, cer=errors.cer, folded_wer=errors.folded_wer,
            latest_wer=module.latest_validation.errors.wer,
            best_wer=min(errors.wer, earlier.best_wer if earlier else math.inf), loss=module.validation.loss,
            audio_h=(trainer.current_epoch + 1) * module.workload.epoch_audio_s / 3600, train_s=module.busy_s,
            outside_s=time.time() - self._fit_at - (module.busy_s - module.busy_before_s),
            to_first_step_s=module.first_step_at - self._fit_at, gpu_s=held_s,
            times_real_time=2 * module.workload.dev_audio_s / module.look_s)

    def _report(self, epoch: Epoch, is_new: bool) -> None:
        """The checkpoint goes by its path: it is in the trial's own folder, and Ray would only copy it."""
        self._link.report(vars(epoch) | {"trial": self._record.id, "is_new": is_new,
                                         "checkpoint": str(self._record.last_checkpoint)})


def save_weights(state: dict[str, Tensor], hypotheses: list[str], record: TrialRecord) -> None:
    """Keep the averaged weights and the hypotheses of the latest epoch if it is the best one, and its weights among
    those of the latest ones; `state` is the FineTuning module's."""
    latest = record.epochs[-1]
    is_best = record.best is latest
    if not (is_best or record.keep_last):
        return
    prefix = "averaged.module."
    weights = {name.removeprefix(prefix): tensor.detach().cpu() for name, tensor in state.items()
               if name.startswith(prefix)}
    content = io.BytesIO()
    torch.save(weights, content)
    if record.keep_last:
        write_aside(record.weights_after(latest.epoch), content.getvalue())
        record.weights_after(latest.epoch - record.keep_last).unlink(missing_ok=True)
    if is_best:
        write_aside(record.best_weights, content.getvalue())
        write_json(record.folder / "dev.json", hypotheses)


def examples(module: FineTuning) -> list[list[str]]:
    """References of at most 20 development clips and what was heard in the last look; none before the first one."""
    if module.validation is None:
        return []
    rows = np.linspace(0, len(module.dev_texts) - 1, num=min(20, len(module.dev_texts)), dtype=int)
    return [[module.dev_texts[row], module.validation.hypotheses[row]] for row in rows]
