"""The small space of the embedded default: the same choices, in ranges whose effect shows within a minute."""

from typing import Any

from optuna.trial import BaseTrial

from spaces import spanish
from spaces.recipe import (
    DecoderStart,
    OptimizerName,
    OptimizerRecipe,
    Recipe,
    ScheduleRecipe,
    TrainingRecipe,
    TransferRecipe,
    VocabularyKind,
    VocabularyRecipe,
)
from spaces.spanish import choose

SOURCE_NETWORK = "narrow"

LR_RANGES: dict[OptimizerName, tuple[float, float]] = {"novograd": (2e-3, 8e-2), "adamw": (1e-3, 3e-2)}


def sample(trial: BaseTrial, *, max_epochs: int, has_source: bool) -> Recipe:
    """Draw one recipe for the narrow network."""
    name = choose(trial, "optimizer", list(LR_RANGES))
    betas = {"novograd": (0.8, 0.5), "adamw": (0.9, 0.98)}[name]
    vocabulary = sample_vocabulary(trial)
    return Recipe(
        network="source" if has_source else SOURCE_NETWORK,
        optimizer=OptimizerRecipe(name=name, lr=trial.suggest_float(f"{name}.lr", *LR_RANGES[name], log=True),
                                  beta1=betas[0], beta2=betas[1], weight_decay=1e-3),
        schedule=ScheduleRecipe(
            name=choose(trial, "schedule", ("cosine", "noam", "warmup_hold_decay", "none")),
            warmup_share=trial.suggest_float("schedule.warmup_share", 0.0, 0.3), floor_ratio=1e-3, hold_share=0.3),
        vocabulary=vocabulary,
        transfer=sample_transfer(trial, vocabulary, max_epochs) if has_source else spanish.scratch(),
        training=TrainingRecipe(
            epochs=max_epochs, audio_s_per_step=choose(trial, "audio_s_per_step", (10, 20)),
            spec_augment="none", dropout=0.0),
    )


def sample_vocabulary(trial: BaseTrial) -> VocabularyRecipe:
    """Letters, or few pieces, because the corpus is small."""
    kind: VocabularyKind = choose(trial, "vocabulary", ("characters", "characters_folded", "bpe"))
    return VocabularyRecipe(kind=kind, size=64 if kind == "bpe" else 0)


def sample_transfer(trial: BaseTrial, vocabulary: VocabularyRecipe, max_epochs: int) -> TransferRecipe:
    """How much of the English model is kept."""
    decoder: DecoderStart = "fresh"
    if vocabulary.kind != "bpe":
        decoder = choose(trial, "transfer.decoder", ("letters", "fresh"))
    return TransferRecipe(
        decoder=decoder,
        encoder_lr_ratio=trial.suggest_float("transfer.encoder_lr_ratio", 0.1, 1.0, log=True),
        frozen_epochs=trial.suggest_int("transfer.frozen_epochs", 0, min(1, max_epochs - 1)),
        batchnorm=choose(trial, "transfer.batchnorm", ("adapt", "keep")),
    )


def baseline(*, max_epochs: int, has_source: bool) -> dict[str, dict[str, Any]]:
    """The published hand recipes, as they stand in `spaces/spanish.py`; steps are a twelfth of those, like the corpus.

    As parameters of `sample`. The narrow network has no SpecAugment, in them and in `sample`.
    """
    common: dict[str, Any] = {"vocabulary": "characters", "schedule": "cosine", "schedule.warmup_share": 0.1,
                              "optimizer": "novograd", "novograd.lr": 1e-2, "audio_s_per_step": 10}
    if not has_source:
        return {"quartznet_paper": common | {"audio_s_per_step": 20}}
    tutorial = common | {"transfer.decoder": "fresh", "transfer.encoder_lr_ratio": 1.0, "transfer.frozen_epochs": 0,
                         "transfer.batchnorm": "adapt"}
    return {"letters_kept": tutorial | {"novograd.lr": 2e-3, "transfer.decoder": "letters"},
            "nemo_tutorial": tutorial | {"audio_s_per_step": 20},
            "frozen_first": tutorial | {"transfer.frozen_epochs": min(1, max_epochs - 1)}}


def vocabularies() -> list[VocabularyRecipe]:
    """Every vocabulary that `sample` can draw."""
    return [VocabularyRecipe(kind="characters"), VocabularyRecipe(kind="characters_folded"),
            VocabularyRecipe(kind="bpe", size=64)]
