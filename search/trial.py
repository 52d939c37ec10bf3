"""One trial: Ray Train wraps Lightning, as DDP in a worker group or in its local mode for a single worker."""

import logging
import math
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import ray
import torch
from pytorch_lightning.loggers import Logger
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train._internal.session import get_session
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from corpora.batches import Share, SpeechData
from corpora.features import FeatureStore
from models.finetuning import FineTuning, TrainingFailed, Workload
from models.precision import Precision, choose_precision
from models.transfer import start_model
from models.vocabulary import is_feasible
from search.prepare import load_vocabulary
from search.record import Epoch, TrialRecord, read_failure, write_failure, write_json
from search.tracking import trial_logger
from spaces.recipe import Recipe

log = logging.getLogger(__name__)

WORKER_FAILURES_FORGIVEN = 3
"""How often a worker group may lose a worker and go on from its last checkpoint."""

PASS_AUDIO_S = {"cpu": 80.0, "cuda": 480.0}
"""Padded seconds in one pass: activations of a 15x5 take about 45 MB a second in float32."""


@dataclass(frozen=True, kw_only=True)
class TrialSetting:
    """What all trials of a study share."""

    study: str
    """The study's name: W&B's group."""
    folder: Path
    """Where trials keep their folders; on a cluster on shared storage."""
    store: Path
    """The FeatureStore."""
    vocabularies: Path
    """Folder of the trained vocabularies."""
    language: str
    source: ray.ObjectRef | None
    """The SourceModel in Ray's object store: read from disk once for the study."""
    num_mels: int
    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    precision: Precision
    max_audio_s_per_pass: float | None
    wandb: str

    @property
    def gpus(self) -> float:
        """GPUs that one trial holds."""
        return self.num_workers * self.gpus_per_worker

    @property
    def device(self) -> str:
        """Where trials compute."""
        return "cuda" if self.gpus_per_worker else "cpu"


def run_trial(config: dict[str, Any], setting: TrialSetting) -> None:
    """The function that Ray Tune calls: one `TorchTrainer.fit` for `config["job"]` (id, recipe, seed)."""
    os.environ.setdefault("WANDB_SILENT", "true")
    arguments = {"job": config["job"], "setting": setting, "fit_at": time.time()}
    is_local = setting.num_workers == 1
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=arguments,
        # NCCL refuses two workers on one GPU.
        torch_config=TorchConfig(backend="gloo") if not is_local and 0 < setting.gpus_per_worker < 1 else None,
        scaling_config=ScalingConfig(
            num_workers=0 if is_local else setting.num_workers,
            use_gpu=setting.gpus_per_worker > 0,
            resources_per_worker=None if is_local else worker_resources(setting),
        ),
        run_config=RunConfig(
            name=config["job"]["id"],
            storage_path=str(setting.folder / ".ray"),
            callbacks=[] if is_local else [TuneReportCallback()],
            failure_config=FailureConfig(max_failures=WORKER_FAILURES_FORGIVEN),
        ),
    )
    folder = setting.folder / config["job"]["id"]
    try:
        trainer.fit()
    except Exception as error:
        # A reason that was found is the trial's result. Only a lost process is worth another try, which is Tune's.
        if read_failure(folder) is None:
            write_failure(folder, _first_line(error))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def worker_resources(setting: TrialSetting) -> dict[str, float]:
    """What each worker of a group asks of Ray: a hundredth of a CPU is left for the trial's own process."""
    resources = {"CPU": setting.cpus_per_worker - 0.01}
    return resources | ({"GPU": setting.gpus_per_worker} if setting.gpus_per_worker else {})


def train_worker(arguments: dict[str, Any]) -> None:
    """What every worker runs: build the trial from its recipe and train it to the end or until it is stopped."""
    job, setting = arguments["job"], arguments["setting"]
    folder = setting.folder / job["id"]
    if reason := read_failure(folder):
        raise TrainingFailed(reason)  # it would fail in the same way again
    try:
        _train(job, setting, arguments["fit_at"])
    except TrainingFailed as error:
        write_failure(folder, str(error))
        raise


def _train(job: dict[str, Any], setting: TrialSetting, fit_at: float) -> None:
    _quieten()
    torch.set_num_threads(max(1, int(setting.cpus_per_worker)))
    recipe = Recipe.from_flat(job["recipe"])
    rank, world_size = _rank(setting), setting.num_workers
    pl.seed_everything(job["seed"], verbose=False)
    data, module = build(recipe, job["seed"], setting, rank)
    record = TrialRecord(setting.folder / job["id"], recipe, job["seed"], data.num_left_out)
    logger = trial_logger(setting, record) if rank == 0 else None
    trainer = pl.Trainer(
        max_epochs=recipe.training.epochs,
        callbacks=[EpochReport(record, setting, fit_at)],
        strategy=_strategy(recipe, world_size),
        plugins=[RayLightningEnvironment()] if world_size > 1 else [],
        accelerator="gpu" if setting.gpus_per_worker else "cpu",
        devices=1 if world_size == 1 else "auto",
        precision=trainer_precision(setting),
        accumulate_grad_batches=data.share.passes,
        gradient_clip_val=recipe.training.gradient_clip or None,
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
    checkpoint = str(record.last_checkpoint) if record.last_checkpoint.exists() else None
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    finally:
        close_logger(logger, module)


def _rank(setting: TrialSetting) -> int:
    """This worker's rank; in local mode there is one, and Ray has no context for it inside Tune."""
    return int(ray.train.get_context().get_world_rank()) if setting.num_workers > 1 else 0


def build(recipe: Recipe, seed: int, setting: TrialSetting, rank: int) -> tuple[SpeechData, FineTuning]:
    """The data and the model of one worker."""
    store = FeatureStore(setting.store)
    vocabulary = load_vocabulary(setting.vocabularies, recipe.vocabulary)
    source = ray.get(setting.source) if setting.source is not None else None
    acoustic = start_model(recipe, source, vocabulary, seed, setting.num_mels)
    stride = acoustic.encoder.config.stride
    data = SpeechData(
        store, vocabulary.encode, audio_s_per_step=recipe.training.audio_s_per_step,
        is_usable=lambda labels, frames: is_feasible(labels, (frames - 1) // stride + 1),
        share=Share(rank=rank, world_size=setting.num_workers, passes=num_passes(recipe, setting)), seed=seed)
    total_steps = sum(data.steps_in_epoch(epoch) for epoch in range(recipe.training.epochs))
    workload = Workload(total_steps=total_steps, epoch_audio_s=data.epoch_audio_s, rank=rank,
                        world_size=setting.num_workers, passes=data.share.passes)
    return data, FineTuning(recipe, acoustic, vocabulary, workload, data.dev_split.texts, seed)


def num_passes(recipe: Recipe, setting: TrialSetting) -> int:
    """Passes of a worker in an optimizer step, so that none holds more audio than fits."""
    limit_s = setting.max_audio_s_per_pass or PASS_AUDIO_S[setting.device]
    return math.ceil(recipe.training.audio_s_per_step / setting.num_workers / limit_s)


def trainer_precision(setting: TrialSetting) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name for the numbers that training multiplies."""
    dtype = choose_precision(setting.precision, setting.device)
    return "bf16-mixed" if dtype == torch.bfloat16 else "32-true"


def _strategy(recipe: Recipe, world_size: int) -> Any:
    """DDP among several workers; an encoder that is frozen for a while leaves its gradients unused."""
    if world_size == 1:
        return "auto"
    return RayDDPStrategy(find_unused_parameters=recipe.transfer.use_source and recipe.transfer.frozen_epochs > 0)


class EpochReport(pl.Callback):
    """After each look at the development split: checkpoint, record, report; in this order, so nothing is lost."""

    def __init__(self, record: TrialRecord, setting: TrialSetting, fit_at: float) -> None:
        self._record, self._setting, self._fit_at = record, setting, fit_at

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the epochs up to the checkpoint as they were recorded in it, and report what may have been lost."""
        self._record.epochs = [Epoch(**values) for values in checkpoint["epochs"]]
        if trainer.is_global_zero:
            self._record.save()
        for epoch in self._record.epochs:
            self._report(epoch)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the epochs in the checkpoint: the two can never disagree."""
        checkpoint["epochs"] = [vars(epoch) for epoch in self._record.epochs]

    def on_train_batch_end(self, *_: Any) -> None:
        """Leave at once when Tune stops the trial in the middle of an epoch."""
        session = get_session()
        if session is not None and session.stop_event.is_set():
            sys.exit(0)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Close the epoch."""
        assert isinstance(module, FineTuning) and module.validation is not None
        record, epoch = self._record, self._epoch(trainer, module)
        record.workers = trainer.world_size
        record.epochs.append(epoch)
        if trainer.is_global_zero:
            record.folder.mkdir(parents=True, exist_ok=True)
        aside = record.folder / "last.ckpt.part"
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            os.replace(aside, record.last_checkpoint)
            if record.best is epoch:
                save_weights(module, record)
            record.save()
            if trainer.logger:
                values = {f"dev/{name}": value for name, value in vars(epoch).items()}
                values["train/times_real_time"] = 3600 * epoch.audio_h / epoch.train_s
                trainer.logger.log_metrics(values, step=trainer.global_step)
        self._report(epoch)

    def _epoch(self, trainer: pl.Trainer, module: FineTuning) -> Epoch:
        assert module.validation is not None and module.first_step_at is not None
        errors = module.validation.errors
        held_s = module.busy_s * self._setting.gpus_per_worker * self._setting.num_workers
        earlier = self._record.epochs[-1] if self._record.epochs else None
        return Epoch(
            epoch=trainer.current_epoch + 1, wer=errors.wer, cer=errors.cer, folded_wer=errors.folded_wer,
            best_wer=min(errors.wer, earlier.best_wer if earlier else math.inf), loss=module.validation.loss,
            audio_h=(trainer.current_epoch + 1) * module.workload.epoch_audio_s / 3600, train_s=module.busy_s,
            outside_s=time.time() - self._fit_at - (module.busy_s - module.busy_before_s),
            to_first_step_s=module.first_step_at - self._fit_at, gpu_s=held_s)

    def _report(self, epoch: Epoch) -> None:
        """Every rank of a group reports to Ray Train; in local mode Tune is told directly.

        The checkpoint goes by its path: it is in the trial's own folder, and Ray would only copy it.
        """
        metrics = vars(epoch) | {"trial": self._record.id, "checkpoint": str(self._record.last_checkpoint)}
        if self._setting.num_workers == 1:
            tune.report(metrics)
            return
        ray.train.report(metrics)


def save_weights(module: FineTuning, record: TrialRecord) -> None:
    """Write the weights and the hypotheses of the best epoch, aside first and then renamed."""
    assert module.validation is not None
    state = {name: tensor.detach().cpu() for name, tensor in module.acoustic.state_dict().items()}
    aside = record.best_weights.with_suffix(".part")
    torch.save(state, aside)
    os.replace(aside, record.best_weights)
    write_json(record.folder / "dev.json", module.validation.hypotheses)


def close_logger(logger: Logger | None, module: FineTuning) -> None:
    """Log example transcripts of the last look and end the trial's W&B run; its trouble is not the trial's."""
    if logger is None:
        return
    try:
        _log_examples(logger, module)
        logger.experiment.finish()  # type: ignore[attr-defined]
    except Exception:
        log.warning("W&B could not close the run", exc_info=True)


def _log_examples(logger: Logger, module: FineTuning) -> None:
    if module.validation is not None:
        rows = np.linspace(0, len(module.dev_texts) - 1, num=min(20, len(module.dev_texts)), dtype=int)
        table = [[module.dev_texts[row], module.validation.hypotheses[row]] for row in rows]
        logger.log_table("examples", columns=["reference", "hypothesis"], data=table)  # type: ignore[attr-defined]


def _quieten() -> None:
    """Lightning's advice about hardware and loaders is for other programs."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
