"""Ray tasks that transcribe a split with a finished trial's weights, or with the unchanged source."""

from pathlib import Path

import numpy as np
import ray
import torch

from corpora.batches import collate, cut_by_length
from corpora.features import FRAMES_PER_S, FeatureSplit, FeatureStore
from files.saved import load_saved
from models.decoding import greedy
from models.precision import choose_precision
from models.quartznet import AcousticModel, folded
from models.transfer import start_model
from models.vocabulary import Vocabulary, load_vocabulary
from search.speech.task import SpeechTask
from search.trials.context import TrialContext
from spaces.recipe import Recipe

BATCH_AUDIO_S = 160
"""Padded seconds in a batch."""


def load_trial(context: TrialContext, recipe: Recipe, weights: Path) -> tuple[AcousticModel, Vocabulary]:
    """The network of a trial with the weights of its best epoch, and its vocabulary."""
    task = SpeechTask.of(context)
    vocabulary = load_vocabulary(task.vocabularies, recipe.vocabulary)
    acoustic = start_model(recipe, task.source_of(recipe), vocabulary, seed=0, num_mels=task.num_mels)
    acoustic.load_state_dict(load_saved(weights))
    return acoustic, vocabulary


@ray.remote
def transcribe_trial(context: TrialContext, recipe: Recipe, weights: Path, split: str) -> list[str]:
    """Transcribe each clip of a split with the weights of a trial's best epoch."""
    return _transcribe(*load_trial(context, recipe, weights), context, split)


@ray.remote
def transcribe_with_source(context: TrialContext, recipe: Recipe, split: str) -> list[str]:
    """Transcribe with the unchanged source of a recipe."""
    source = SpeechTask.of(context).source_of(recipe)
    assert source is not None
    acoustic = AcousticModel(source.network, source.vocabulary.size + 1)
    acoustic.load_state_dict(source.state)
    return _transcribe(acoustic, source.vocabulary, context, split)


def _transcribe(acoustic: AcousticModel, vocabulary: Vocabulary, context: TrialContext, name: str) -> list[str]:
    torch.set_num_threads(context.threads)
    task, device = SpeechTask.of(context), torch.device(context.device)
    split: FeatureSplit = FeatureStore(task.store).split(name)
    acoustic = folded(acoustic.to(device), choose_precision(task.precision, device))
    texts = [""] * len(split)
    order = np.argsort(split.num_frames, kind="stable")
    limit = max(BATCH_AUDIO_S * FRAMES_PER_S, int(split.num_frames.max()))
    with torch.inference_mode():
        for rows in cut_by_length(order, split.num_frames, limit):
            batch = collate(split, None, rows, np.ones(len(rows), dtype=np.float32))
            log_probs, lengths = acoustic(batch.features.to(device), batch.feature_lengths.to(device))
            for row, text in zip(rows, greedy(log_probs, lengths, vocabulary), strict=True):
                texts[row] = text
    return texts
