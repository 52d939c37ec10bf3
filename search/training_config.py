"""TrainingConfig: every choice about a production training apart from its recipe."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corpora.languages import Language
from search.config import CORPUS_FIELDS, ConfigError, Objective, StudyConfig, check_shared
from search.config_fields import check_at_least, known_or_read, seconds
from search.records.run_folder import TRAINING, kind_of
from spaces.recipe import Recipe
from spaces.typed import Named, build, check_types, load_yaml, save_yaml

TRAINING_VERSION = 1
"""Format version of a training's folder, stored in training.yaml."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Named):
    """One production training. Fields left unset come from the recipe."""

    error = ConfigError

    corpus: tuple[str, ...] = ()
    """Common Voice releases, LibriSpeech folders or NeMo manifests. Default: those of the recipe's study."""
    train: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the training split, whatever their names say. Default: those of the recipe's
    study, if none of --corpus, --train, --dev and --test is given."""
    dev: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the development split. Default: likewise."""
    test: tuple[str, ...] = ()
    """NeMo manifests to use entirely as the test split. Default: likewise."""
    language: str | Language | None = None
    """Language code, or a YAML file that describes another language. Default: that of the recipe's study."""
    source: str | None = None
    """A pretrained English QuartzNet (.nemo), or `none`. Default: that of the recipe's study."""
    objective: Objective | None = None
    """The error rate by which the best epoch is chosen, wer or cer. Default: that of the recipe's study."""
    epochs: int | None = None
    """Passes over the training split; warm-up and annealing stretch with them. Default: the recipe's."""
    seed: int | None = None
    """Random seed. Default: the one that the recipe won with."""
    patience: int | None = None
    """Stop after this many epochs without a lower dev error rate. This cuts the annealing short. Default: none,
    all epochs are trained."""
    average_last: int = 5
    """Also try the mean of the weights of this many last epochs, and keep it if it is better on dev; 0 turns this off.
    Each epoch takes disk space of the size of the network."""
    source_licence: str | None = None
    """The source's licence, for the model card: a model trained from the source keeps it. Default: the card says that
    none was given."""
    workers: int = 1
    """Number of processes that train together (DDP), on any nodes of the cluster."""
    cpus_per_worker: float | None = None
    """CPUs, and so threads, of one worker. Default: all of a node's for one worker, else the cluster's divided among
    the workers."""
    gpus_per_worker: float | None = None
    """GPUs of one worker. Default: 1 where the cluster has GPUs, else 0."""
    timeout: str = "30m"
    """Longest time without a training step, such as 90s, 45m or 8h; after it the processes are ended and the training
    resumes from its last checkpoint."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision in training: bfloat16 where the hardware supports it and float32 elsewhere (auto), or as given."""
    max_audio_s_per_pass: float | None = None
    """Padded seconds of audio in memory at once on a worker; a larger step takes several passes. Default: 80 on a
    CPU, 480 on a GPU."""
    min_duration_s: float = 0.3
    """Shorter clips are left out."""
    max_duration_s: float = 20.0
    """Longer clips are left out."""
    allow_overlap: bool = False
    """Continue if test and train share a speaker or a sentence; the card says so. On the corpus of its study, a recipe
    uses the study's setting."""
    wandb: Literal["online", "offline", "off"] = "offline"
    """Where W&B records the training: on its servers, in the training's folder, or nowhere."""
    out: str | None = None
    """The training's folder. Default: a folder in runs/ named after the date."""
    cache: str | None = None
    """Folder for features and vocabularies, shared with studies; on a cluster it must be on shared storage. Default:
    $CUARZO_CACHE or ~/.cache/cuarzo."""

    def __post_init__(self) -> None:
        check_types(self, ConfigError)
        check_at_least(self, 1, "epochs", "patience", "workers")
        check_at_least(self, 0, "average_last")
        check_shared(self)
        seconds("timeout", self.timeout)
        if self.language is not None:
            object.__setattr__(self, "language", known_or_read(self.language))

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with the requested number of epochs.

        Raises:
            RecipeError: the encoder would be frozen in all of them.
        """
        epochs = self.epochs or recipe.training.epochs
        return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=epochs))

    def study(self, recipe: Recipe) -> StudyConfig:
        """The training as a study of one recipe, to prepare corpora, cache, folder and cluster in the same way.

        Raises:
            ConfigError: the recipe names no corpus or source and none was given, or a field is outside its limits.
        """
        known = recipe.study
        own = {name: paths for name in CORPUS_FIELDS if (paths := getattr(self, name))}
        corpora = own or {name: known[name] for name in CORPUS_FIELDS if known.get(name)}
        if not corpora and known.get("corpus") is None:  # an empty one is the embedded default
            raise ConfigError("corpus is not set, and the recipe names none. Name one with --corpus.")
        values = corpora | {
            "language": self.language or known.get("language", "es"),
            "source": self.source or known.get("source"), "trials": 1,
            "objective": self.objective or known.get("objective"), "max_epochs": recipe.training.epochs,
            "confirm": 1, "seeds": 1, "seed": known.get("seed", 0) if self.seed is None else self.seed,
            "ablation": False, "data_scaling": False, "concurrency": 1, "workers_per_trial": self.workers,
            "trial_timeout": self.timeout}
        shared = {name: getattr(self, name) for name in SHARED}
        shared["allow_overlap"] |= not own and bool(known.get("allow_overlap"))
        return build(StudyConfig, values | shared, ConfigError)

    def save(self, folder: Path) -> None:
        """Write training.yaml."""
        values = dataclasses.asdict(self) | {name: list(getattr(self, name)) for name in CORPUS_FIELDS}
        save_yaml(folder / TRAINING, {"version": TRAINING_VERSION} | values)


SHARED = ("cpus_per_worker", "gpus_per_worker", "precision", "max_audio_s_per_pass", "min_duration_s",
           "max_duration_s", "allow_overlap", "wandb", "out", "cache")
"""Fields with the same meaning in a study."""


def load_training(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the fields of the training in a folder.

    Raises:
        ConfigError, RecipeError: there is no training, or it has another version.
    """
    if not (folder / TRAINING).exists():
        held = kind_of(folder)
        fix = f"It holds a {held.name}: {held.going_on(folder)}." if held else "Check the path."
        raise ConfigError(f"{folder}: there is no training to resume here ({TRAINING} is missing). {fix}")
    values = load_yaml(folder / TRAINING, "training configuration", ConfigError)
    version = values.pop("version", None)
    if version != TRAINING_VERSION:
        raise ConfigError(f"{folder}: the training is of version {version!r}; this Cuarzo reads version "
                          f"{TRAINING_VERSION}. Continue with the Cuarzo that began it, or start anew with --out.")
    return Recipe.load(folder / "recipe.yaml"), values
