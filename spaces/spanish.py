"""The mission's space: an English QuartzNet fine-tuned to Spanish Common Voice."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from optuna.trial import BaseTrial

from spaces.recipe import (
    DecoderStart,
    OptimizerName,
    OptimizerRecipe,
    Recipe,
    ScheduleName,
    ScheduleRecipe,
    SpecAugmentKind,
    TrainingRecipe,
    TransferRecipe,
    VocabularyKind,
    VocabularyRecipe,
)

T = TypeVar("T", bound=str | int)

SOURCE_NETWORK = "15x5"
"""The network that is trained if there is no source to take the shape from."""

PIECES = (64, 128, 256, 512, 1024)
"""Sizes of SentencePiece vocabularies."""

LR_RANGES: dict[OptimizerName, tuple[float, float]] = {
    "novograd": (5e-4, 3e-2), "adamw": (2e-5, 2e-3), "lion": (5e-6, 3e-4), "lamb": (2e-4, 1e-2)}
"""Peak learning rates. NovoGrad and LAMB divide by a tensor's norm and need more; Lion takes signs and needs less."""

BETA1_RANGES = {"novograd": (0.7, 0.97), "adamw": (0.8, 0.95), "lion": (0.85, 0.97), "lamb": (0.8, 0.95)}

BETA2_RANGES = {"novograd": (0.2, 0.98), "adamw": (0.9, 0.999), "lion": (0.95, 0.995), "lamb": (0.9, 0.999)}

SCHEDULES: tuple[ScheduleName, ...] = ("cosine", "polynomial", "noam", "warmup_hold_decay", "none")

VOCABULARIES: tuple[VocabularyKind, ...] = ("characters", "characters_folded", "bpe", "unigram")

DECAY_RANGES = {"novograd": (1e-5, 1e-2), "adamw": (1e-4, 0.1), "lion": (1e-3, 0.5), "lamb": (1e-4, 0.1)}


def choose(trial: BaseTrial, name: str, options: Sequence[T]) -> T:
    """Draw one of the options."""
    return cast(T, trial.suggest_categorical(name, list(options)))


def sample(trial: BaseTrial, *, max_epochs: int, has_source: bool) -> Recipe:
    """Draw one recipe; choices that have no effect given the others are not drawn."""
    vocabulary = sample_vocabulary(trial)
    return Recipe(
        network="source" if has_source else SOURCE_NETWORK,
        optimizer=sample_optimizer(trial),
        schedule=sample_schedule(trial),
        vocabulary=vocabulary,
        transfer=sample_transfer(trial, vocabulary, max_epochs) if has_source else scratch(),
        training=sample_training(trial, max_epochs),
    )


def sample_optimizer(trial: BaseTrial) -> OptimizerRecipe:
    """An optimizer, and its coefficients in its own ranges."""
    name = choose(trial, "optimizer", list(LR_RANGES))
    return OptimizerRecipe(
        name=name,
        lr=trial.suggest_float(f"{name}.lr", *LR_RANGES[name], log=True),
        beta1=trial.suggest_float(f"{name}.beta1", *BETA1_RANGES[name]),
        beta2=trial.suggest_float(f"{name}.beta2", *BETA2_RANGES[name]),
        weight_decay=trial.suggest_float(f"{name}.weight_decay", *DECAY_RANGES[name], log=True),
    )


def sample_schedule(trial: BaseTrial) -> ScheduleRecipe:
    """Warm-up and annealing; the floor and the power are drawn only where they have an effect."""
    name = choose(trial, "schedule", SCHEDULES)
    warmup_share = trial.suggest_float("schedule.warmup_share", 0.0, 0.3)
    values: dict[str, float] = {}
    if name != "none":
        values["floor_ratio"] = trial.suggest_float("schedule.floor_ratio", 1e-4, 0.1, log=True)
    if name in ("polynomial", "warmup_hold_decay"):
        values["power"] = trial.suggest_float("schedule.power", 1.0, 3.0)
    if name == "warmup_hold_decay":
        values["hold_share"] = trial.suggest_float("schedule.hold_share", 0.0, 0.6)
    return ScheduleRecipe(name=name, warmup_share=warmup_share, **values)


def sample_vocabulary(trial: BaseTrial) -> VocabularyRecipe:
    """Characters with or without accents, or pieces of a size."""
    kind = choose(trial, "vocabulary", VOCABULARIES)
    if kind in ("bpe", "unigram"):
        return VocabularyRecipe(kind=kind, size=choose(trial, "vocabulary.size", PIECES))
    return VocabularyRecipe(kind=kind)


def sample_transfer(trial: BaseTrial, vocabulary: VocabularyRecipe, max_epochs: int) -> TransferRecipe:
    """How much of the English model is kept; only characters have English letters to start from."""
    decoder: DecoderStart = "fresh"
    if vocabulary.kind in ("characters", "characters_folded"):
        decoder = choose(trial, "transfer.decoder", ("letters", "fresh"))
    return TransferRecipe(
        decoder=decoder,
        encoder_lr_ratio=trial.suggest_float("transfer.encoder_lr_ratio", 0.03, 1.0, log=True),
        frozen_epochs=trial.suggest_int("transfer.frozen_epochs", 0, min(4, max_epochs - 1)),
        batchnorm=choose(trial, "transfer.batchnorm", ("keep", "adapt")),
    )


def scratch() -> TransferRecipe:
    """Training from random weights, which carries nothing over."""
    return TransferRecipe(use_source=False, decoder="fresh", batchnorm="adapt")


def sample_training(trial: BaseTrial, max_epochs: int) -> TrainingRecipe:
    """Step size in audio, and regularisation."""
    kind: SpecAugmentKind = choose(trial, "spec_augment", ("none", "cutout", "time_frequency"))
    strength = trial.suggest_float("spec_augment.strength", 0.25, 1.5) if kind != "none" else 1.0
    return TrainingRecipe(
        epochs=max_epochs,
        audio_s_per_step=choose(trial, "audio_s_per_step", (30, 60, 120, 240, 480)),
        spec_augment=kind,
        spec_augment_strength=strength,
        speed_perturbation=choose(trial, "speed_perturbation", (False, True)),
        dropout=trial.suggest_float("dropout", 0.0, 0.2),
    )


def baseline(*, max_epochs: int, has_source: bool) -> dict[str, dict[str, Any]]:
    """The published hand recipes by name, as parameters of `sample`; they run before any drawn recipe.

    Sources: the QuartzNet paper and NeMo's quartznet_15x5.yaml (arXiv 1910.10261); NeMo's
    ASR_CTC_Language_Finetuning tutorial; Scribosermo's README for keeping letters. `statistics_kept` is a recipe for
    an hour of speech: there, keeping BatchNorm's statistics took one epoch from 51 to 32 % CER.
    """
    characters: dict[str, Any] = {"vocabulary": "characters"}
    cosine = {"schedule": "cosine", "schedule.warmup_share": 0.1, "schedule.floor_ratio": 1e-3}
    cutout = {"spec_augment": "cutout", "spec_augment.strength": 1.0, "speed_perturbation": False, "dropout": 0.0}
    novograd = {"optimizer": "novograd", "novograd.beta1": 0.8, "novograd.beta2": 0.5, "novograd.weight_decay": 1e-3}
    adamw = {"optimizer": "adamw", "adamw.beta1": 0.9, "adamw.beta2": 0.98, "adamw.weight_decay": 1e-3}
    recipes = {
        "statistics_kept": characters | cosine | adamw | {
            "adamw.lr": 1e-4, "spec_augment": "cutout", "spec_augment.strength": 0.5,
            "speed_perturbation": False, "dropout": 0.0, "audio_s_per_step": 60, "transfer.decoder": "letters",
            "transfer.encoder_lr_ratio": 1.0, "transfer.frozen_epochs": 0, "transfer.batchnorm": "keep"},
        "letters_kept": characters | cosine | cutout | novograd | {
            "novograd.lr": 2e-3, "audio_s_per_step": 120, "transfer.decoder": "letters",
            "transfer.encoder_lr_ratio": 1.0, "transfer.frozen_epochs": 0, "transfer.batchnorm": "adapt"},
        "nemo_tutorial": characters | cosine | cutout | novograd | {
            "novograd.lr": 1e-2, "audio_s_per_step": 240, "transfer.decoder": "fresh",
            "transfer.encoder_lr_ratio": 1.0, "transfer.frozen_epochs": 0, "transfer.batchnorm": "adapt"},
        "frozen_first": characters | cosine | cutout | novograd | {
            "novograd.lr": 1e-2, "audio_s_per_step": 120, "transfer.decoder": "fresh",
            "transfer.encoder_lr_ratio": 1.0, "transfer.frozen_epochs": min(4, max_epochs - 1),
            "transfer.batchnorm": "adapt"},
    }
    if has_source:
        return recipes
    return {"quartznet_paper": characters | cosine | cutout | novograd | {"novograd.lr": 1e-2, "audio_s_per_step": 240}}


def vocabularies() -> list[VocabularyRecipe]:
    """Every vocabulary that `sample` can draw; each is trained once, before the first trial."""
    pieces = [VocabularyRecipe(kind=kind, size=size) for kind in ("bpe", "unigram") for size in PIECES]
    return [VocabularyRecipe(kind="characters"), VocabularyRecipe(kind="characters_folded"), *pieces]
