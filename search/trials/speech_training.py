"""What a worker trains of a recipe: its data and its LightningModule. Of all that runs a trial it alone builds them."""

import math
from typing import Literal

import ray
import torch

from corpora.batches import Share, SpeechData
from corpora.features import FeatureStore
from models.finetuning import FineTuning, Workload
from models.precision import choose_precision
from models.transfer import start_model
from models.vocabulary import is_feasible, load_vocabulary
from search.trials.context import Link, TrialContext
from spaces.recipe import Recipe

PASS_AUDIO_S = {"cpu": 80.0, "cuda": 480.0}
"""Padded seconds in one pass: activations of a 15x5 take about 45 MB a second in float32."""


def build(recipe: Recipe, seed: int, context: TrialContext, link: Link) -> tuple[SpeechData, FineTuning]:
    """The data and the model of one worker."""
    store = FeatureStore(context.store)
    vocabulary = load_vocabulary(context.vocabularies, recipe.vocabulary)
    source = ray.get(context.source) if context.source is not None else None
    acoustic = start_model(recipe, source, vocabulary, seed, context.num_mels)
    stride = acoustic.encoder.config.stride
    data = SpeechData(
        store, vocabulary.encode, audio_s_per_step=recipe.training.audio_s_per_step,
        is_usable=lambda labels, frames: is_feasible(labels, (frames - 1) // stride + 1),
        share=Share(rank=link.rank, world_size=context.num_workers, passes=num_passes(recipe, context)), seed=seed,
        perturbs_speed=recipe.training.speed_perturbation)
    total_steps = sum(data.steps_in_epoch(epoch) for epoch in range(recipe.training.epochs))
    workload = Workload(total_steps=total_steps, epoch_audio_s=data.epoch_audio_s,
                        dev_audio_s=data.dev_split.duration_s, rank=link.rank,
                        world_size=context.num_workers, passes=data.share.passes, agree=link.agree)
    return data, FineTuning(recipe, acoustic, vocabulary, workload, data.dev_split.texts, seed)


def num_passes(recipe: Recipe, context: TrialContext) -> int:
    """Passes of a worker in an optimizer step, so that none holds more audio than fits."""
    limit_s = context.max_audio_s_per_pass or PASS_AUDIO_S[context.device]
    return math.ceil(recipe.training.audio_s_per_step / context.num_workers / limit_s)


def trainer_precision(context: TrialContext) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name for the numbers that training multiplies."""
    dtype = choose_precision(context.precision, context.device)
    return "bf16-mixed" if dtype == torch.bfloat16 else "32-true"
