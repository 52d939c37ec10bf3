"""One trial in one worker: the data, the network and Lightning's trainer, from a recipe."""

import logging
import math
import pickle
import sys
import warnings
from typing import Any, Literal

import pytorch_lightning as pl
import ray
import torch
from ray.train.lightning import RayDDPStrategy

from corpora.batches import Share, SpeechData
from corpora.features import FeatureStore
from models.finetuning import FineTuning, TrainingFailed, Workload
from models.precision import choose_precision
from models.saved import is_refused, why_refused
from models.transfer import start_model
from models.vocabulary import is_feasible
from search.checkpoints import Keeper, examples
from search.launchers import OwnPlace
from search.record import TrialRecord
from search.setting import Link, TrialSetting
from search.tracking import TrialLogger, close_trial, trial_logger
from search.vocabularies import load_vocabulary
from spaces.recipe import Recipe

CUDA_CONTEXT_BYTES = 0.6e9
"""What CUDA and its libraries hold of a GPU for each process, which PyTorch does not count."""

PASS_AUDIO_S = {"cpu": 80.0, "cuda": 480.0}
"""Padded seconds in one pass: activations of a 15x5 take about 45 MB a second in float32."""


def train(job: dict[str, Any], setting: TrialSetting, link: Link, fit_at: float) -> None:
    """What every worker runs: build the trial from its recipe and train it to the end or until it is stopped.

    Raises:
        TrainingFailed: the recipe is no good; on all workers at the same step.
        SystemExit: the trial was stopped; likewise.
    """
    _quieten()
    place = OwnPlace.in_group() if setting.num_workers > 1 else OwnPlace()
    # Ray sets OMP_NUM_THREADS to the CPUs (rounded down, at least 1) of what a process ran first, which may have been
    # something else. PyTorch's inter-op threads are started by TorchScript's fork alone, and nothing here forks.
    torch.set_num_threads(setting.threads)
    if setting.device == "cuda":
        # This says what is wrong, an old driver for example; Lightning says only that there is no GPU.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    record = TrialRecord(setting.folder / job["id"], Recipe.from_flat(job["recipe"]), job["seed"],
                         patience=job.get("patience"), keep_last=job.get("keep_last", 0))
    if link.rank == 0:
        record.folder.mkdir(parents=True, exist_ok=True)
        for left in record.folder.glob("*.part"):  # by a process that was killed; they may be as large as the network
            left.unlink(missing_ok=True)
        record.show_alive()
    pl.seed_everything(job["seed"], verbose=False)
    data, module = build(record.recipe, job["seed"], setting, link)
    record.left_out = data.num_left_out
    record.num_parameters = module.acoustic.num_parameters
    record.precision = trainer_precision(setting)
    logger = trial_logger(setting, record, job.get("hand_recipe")) if link.rank == 0 else None
    checkpoint = str(record.last_checkpoint) if record.last_checkpoint.exists() else None
    try:
        trainer = make_trainer(record, setting, data, Keeper(record, setting, link, fit_at), logger, place)
        keep_to_share(trainer.strategy.root_device, setting.gpus_per_worker)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except pickle.UnpicklingError as error:
        if not is_refused(error):
            raise
        raise TrainingFailed(f"{checkpoint}: {why_refused(error)} No trial wrote it; remove it, and this "
                             "one begins again.") from error
    finally:  # a W&B run that is left open would be taken for the next trial's
        if logger:
            close_trial(logger, record, setting.rungs, examples(module), sys.exception())


def keep_to_share(device: torch.device, share: float) -> None:
    """Have PyTorch give memory of a shared GPU back that it holds beyond its share, only to use it again.

    Batches of ever other sizes have it keep more and more, up to the whole GPU, and no other process's need of it
    makes it let go. What is in use may be more than the share.
    """
    if device.type == "cuda" and share < 1:
        kept = share - CUDA_CONTEXT_BYTES / torch.cuda.get_device_properties(device).total_memory
        torch._C._accelerator_setAllocatorSettings(f"garbage_collection_threshold:{max(kept, 0.01):.4f}")
        torch.cuda.set_per_process_memory_fraction(1.0, device)  # without a limit it does not look at the threshold


def make_trainer(record: TrialRecord, setting: TrialSetting, data: SpeechData, keeper: Keeper,
                 logger: TrialLogger | None, place: OwnPlace) -> pl.Trainer:
    """Lightning's trainer for one worker."""
    training = record.recipe.training
    return pl.Trainer(
        max_epochs=training.epochs,
        callbacks=[keeper],
        strategy=_strategy(record.recipe, setting.num_workers),
        plugins=[place],
        num_nodes=1,
        accelerator="gpu" if setting.gpus_per_worker else "cpu",
        devices=1 if setting.num_workers == 1 else "auto",
        precision=trainer_precision(setting),
        accumulate_grad_batches=data.share.passes,
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


def build(recipe: Recipe, seed: int, setting: TrialSetting, link: Link) -> tuple[SpeechData, FineTuning]:
    """The data and the model of one worker."""
    store = FeatureStore(setting.store)
    vocabulary = load_vocabulary(setting.vocabularies, recipe.vocabulary)
    source = ray.get(setting.source) if setting.source is not None else None
    acoustic = start_model(recipe, source, vocabulary, seed, setting.num_mels)
    stride = acoustic.encoder.config.stride
    data = SpeechData(
        store, vocabulary.encode, audio_s_per_step=recipe.training.audio_s_per_step,
        is_usable=lambda labels, frames: is_feasible(labels, (frames - 1) // stride + 1),
        share=Share(rank=link.rank, world_size=setting.num_workers, passes=num_passes(recipe, setting)), seed=seed,
        perturbs_speed=recipe.training.speed_perturbation)
    total_steps = sum(data.steps_in_epoch(epoch) for epoch in range(recipe.training.epochs))
    workload = Workload(total_steps=total_steps, epoch_audio_s=data.epoch_audio_s,
                        dev_audio_s=data.dev_split.duration_s, rank=link.rank,
                        world_size=setting.num_workers, passes=data.share.passes, agree=link.agree)
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


def _quieten() -> None:
    """Lightning's advice about hardware and loaders is for other programs."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
