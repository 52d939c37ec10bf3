"""The smallest thing that trains: sixteen clips of noise, four steps an epoch."""

import math
from pathlib import Path

import numpy as np

from corpora.features import FeatureRow, finish_store, write_shard
from models.vocabulary import CharacterVocabulary, vocabulary_path, vocabulary_to_bytes
from search.speech.task import SpeechTask
from search.trials.context import TrialContext
from spaces.recipe import Recipe, TrainingRecipe, TransferRecipe, VocabularyRecipe

RECIPE = Recipe(network="narrow", transfer=TransferRecipe(use_source=False, decoder="fresh"),
                vocabulary=VocabularyRecipe(kind="characters"),
                training=TrainingRecipe(epochs=2, audio_s_per_step=4.0, dropout=0.1, spec_augment="cutout"))


SPLITS = {"train": range(16), "dev": range(16, 20), "test": range(20, 24)}


def make_context(folder: Path, num_workers: int = 1) -> TrialContext:
    """A store and a vocabulary in a folder, and what trials need to know of them; test has a shard of its own."""
    store, random = folder / "store", np.random.default_rng(0)
    store.mkdir()
    rows = [FeatureRow(id=str(i), split=split, speaker="s", text="ab ba"[: 1 + i % 5], duration_s=1.0,
                       features=random.standard_normal((100, 64)).astype(np.float32))
            for split, clips in SPLITS.items() for i in clips]
    write_shard(store, 0, rows[:20], [])
    write_shard(store, 1, rows[20:], [])
    finish_store(store, 2, {"num_clips": len(rows)})
    path = vocabulary_path(store, RECIPE.vocabulary)
    path.write_bytes(vocabulary_to_bytes(CharacterVocabulary((" ", "a", "b"))))
    return TrialContext(study="s", folder=folder / "trials", num_workers=num_workers,
                        task=SpeechTask(store=store, vocabularies=path.parent, precision="float32",
                                        max_audio_s_per_pass=2.0),
                        cpus_per_worker=1.0, gpus_per_worker=0.0, timeout_s=math.inf, wandb="off")
