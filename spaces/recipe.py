"""Recipe: the typed, frozen description of one trial, as YAML and as flat parameters."""

import dataclasses
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Never, Self

from spaces.typed import Named, build, check_types, load_yaml, save_yaml

OptimizerName = Literal["novograd", "adamw", "lion", "lamb"]
ScheduleName = Literal["cosine", "polynomial", "noam", "warmup_hold_decay", "none"]
VocabularyKind = Literal["characters", "characters_folded", "bpe", "unigram"]
DecoderStart = Literal["fresh", "letters"]
BatchNormMode = Literal["adapt", "keep"]
FrozenPart = Literal["encoder", "encoder_but_batchnorm"]
SpecAugmentKind = Literal["none", "cutout", "time_frequency"]

RECIPE_VERSION = 1

LATER_FIELDS = ("transfer.source", "transfer.frozen_part", "transfer.layer_lr_decay", "transfer.source_l2",
                "training.consistency", "training.other_recordings", "training.data_share")
"""Fields that came after keys of recipes were kept; `Recipe.identity` leaves them out where they are off."""


class RecipeError(ValueError):
    """A recipe that cannot be read, or a field outside its limits."""


def unknown_choice(what: str, value: Never, file: str) -> RecipeError:
    """The error for a choice that a recipe may hold and a file has no branch for.

    `value` is typed so that `mypy` finds the branch that is missing.
    """
    return RecipeError(f"{what} is {value!r}; it must be one that {file} has a branch for. Add the branch there.")


def _check(holds: bool, what: str, value: object, limit: str) -> None:
    if not holds:
        raise RecipeError(f"{what} is {value!r}; it must be {limit}.")


class _Section(Named):
    """Checks the type of every field of a section."""

    __slots__ = ()
    error = RecipeError

    def __post_init__(self) -> None:
        check_types(self, RecipeError, type(self).__name__.removesuffix("Recipe").lower() + ".")


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe(_Section):
    """The optimizer and its coefficients."""

    name: OptimizerName = "adamw"
    """NovoGrad (arXiv 1905.11286), AdamW (1711.05101), Lion (2302.06675) or LAMB (1904.00962)."""
    lr: float = 3e-4
    """Peak learning rate of the decoder; the encoder's is this times `transfer.encoder_lr_ratio`."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.98
    """Decay of the second moment."""
    weight_decay: float = 1e-3
    """Decay of the weights, as each optimizer's paper applies it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 < self.lr <= 1, "optimizer.lr", self.lr, "in (0, 1]")
        _check(0 <= self.beta1 < 1, "optimizer.beta1", self.beta1, "in [0, 1)")
        _check(0 <= self.beta2 < 1, "optimizer.beta2", self.beta2, "in [0, 1)")
        _check(0 <= self.weight_decay <= 1, "optimizer.weight_decay", self.weight_decay, "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe(_Section):
    """The learning rate schedule, in shares of the trial's steps."""

    name: ScheduleName = "cosine"
    """Annealing after the warm-up; `none` holds the peak."""
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises linearly to its peak."""
    hold_share: float = 0.0
    """Share of all steps at the peak before the decay; used by `warmup_hold_decay`."""
    power: float = 2.0
    """Exponent of the polynomial decay, and of the decay of `warmup_hold_decay`."""
    floor_ratio: float = 0.0
    """Lowest learning rate after the warm-up, as a ratio of the peak."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.warmup_share < 1, "schedule.warmup_share", self.warmup_share, "in [0, 1)")
        _check(0 <= self.hold_share <= 1 - self.warmup_share, "schedule.hold_share", self.hold_share,
               "in [0, 1 - warmup_share]")
        _check(0.5 <= self.power <= 4, "schedule.power", self.power, "in [0.5, 4]")
        _check(0 <= self.floor_ratio < 1, "schedule.floor_ratio", self.floor_ratio, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class VocabularyRecipe(_Section):
    """The output units of the CTC decoder, without the blank."""

    kind: VocabularyKind = "characters"
    """The language's letters, the same with accents folded, or SentencePiece BPE or unigram pieces."""
    size: int = 0
    """Number of pieces; 0 for characters, whose number is the language's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        match self.kind:
            case "bpe" | "unigram":
                _check(32 <= self.size <= 8192, "vocabulary.size", self.size, "in [32, 8192] for pieces")
            case "characters" | "characters_folded":
                _check(self.size == 0, "vocabulary.size", self.size, "0 for characters, whose number is the language's")
            case other:
                raise unknown_choice("vocabulary.kind", other, "spaces/recipe.py")


@dataclass(frozen=True, kw_only=True)
class TransferRecipe(_Section):
    """How the source's weights are carried over and kept."""

    use_source: bool = True
    """Start the encoder from the source model; False trains from random weights."""
    source: str = ""
    """The name of the study's source that is carried over, where it has several; empty for its only or first one."""
    decoder: DecoderStart = "letters"
    """`letters` copies the rows of shared letters and starts new ones from their base letter."""
    encoder_lr_ratio: float = 1.0
    """Encoder learning rate as a ratio of the decoder's."""
    frozen_epochs: int = 0
    """Number of first epochs in which the encoder is frozen."""
    frozen_part: FrozenPart = "encoder"
    """What is frozen in these epochs: the whole `encoder`, or `encoder_but_batchnorm`, as NeMo's tutorial for another
    language advises: BatchNorm's weights learn, and its statistics follow `batchnorm`."""
    layer_lr_decay: float = 1.0
    """Learning rate of a block of the encoder as a ratio of the block's above it; the top one learns at the encoder's.
    ULMFiT's discriminative fine-tuning (arXiv 1801.06146), by a constant factor as in ELECTRA (2003.10555)."""
    source_l2: float = 0.0
    """Strength of the L2 distance from the source's weights, over the whole encoder (L2-SP, arXiv 1802.01483). After a
    step each weight goes back by its learning rate x this of the way to the source's, at most all of it."""
    batchnorm: BatchNormMode = "adapt"
    """`keep` normalises with the source's statistics, unchanged; `adapt` is ordinary training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 < self.encoder_lr_ratio <= 1, "transfer.encoder_lr_ratio", self.encoder_lr_ratio, "in (0, 1]")
        _check(0 <= self.frozen_epochs <= 1000, "transfer.frozen_epochs", self.frozen_epochs, "in [0, 1000]")
        _check(0 < self.layer_lr_decay <= 1, "transfer.layer_lr_decay", self.layer_lr_decay, "in (0, 1]")
        _check(0 <= self.source_l2 <= 1000, "transfer.source_l2", self.source_l2, "in [0, 1000]")

    def in_short(self) -> list[str]:
        """What is kept of the source, in a few words each; what is off is not named."""
        frozen = f"frozen {self.frozen_epochs}" + (" but BatchNorm" if self.frozen_part != "encoder" else "")
        return [*([f"from {self.source}"] if self.source else []), self.decoder, f"BatchNorm {self.batchnorm}",
                *([frozen] if self.frozen_epochs else []),
                *([f"layer decay {self.layer_lr_decay:.2g}"] if self.layer_lr_decay != 1 else []),
                *([f"L2 from source {self.source_l2:.2g}"] if self.source_l2 else [])]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe(_Section):
    """Length of training, step size in audio, and regularisation."""

    epochs: int = 10
    """Passes over the training split."""
    audio_s_per_step: float = 160.0
    """Padded seconds of audio in one optimizer step, over all workers; a clip counts once, however many its views."""
    spec_augment: SpecAugmentKind = "cutout"
    """`cutout` masks rectangles (QuartzNet's recipe), `time_frequency` masks bands (arXiv 1904.08779)."""
    spec_augment_strength: float = 1.0
    """Scale of the size of SpecAugment's masks; 1 is the published size."""
    speed_perturbation: bool = False
    """Play each clip at 0.9, 1 or 1.1 of its speed, drawn anew in each epoch (Ko et al., 2015)."""
    dropout: float = 0.0
    """Dropout after each sub-block's ReLU."""
    gradient_clip: float = 0.0
    """Largest global gradient norm; 0 does not clip."""
    consistency: float = 0.0
    """Weight of the difference between the outputs for two augmented views of each clip (CR-CTC, arXiv 2410.05101,
    which has 0.2), after a tenth of all steps; 0 trains on one view."""

    other_recordings: float = 0.0
    """Share of the clips that are heard as if recorded elsewhere: over noise, fading, through a telephone's band."""

    data_share: float = 1.0
    """Train on so large a share of the speech: the same clips whatever the seed, and a smaller share's among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 < self.data_share <= 1, "training.data_share", self.data_share, "in (0, 1]")
        _check(1 <= self.epochs <= 10_000, "training.epochs", self.epochs, "in [1, 10000]")
        _check(1 <= self.audio_s_per_step <= 100_000, "training.audio_s_per_step", self.audio_s_per_step,
               "in [1, 100000] seconds")
        _check(0 <= self.spec_augment_strength <= 3, "training.spec_augment_strength", self.spec_augment_strength,
               "in [0, 3]")
        _check(0 <= self.dropout < 1, "training.dropout", self.dropout, "in [0, 1)")
        _check(self.gradient_clip >= 0, "training.gradient_clip", self.gradient_clip, "at least 0")
        _check(0 <= self.other_recordings <= 1, "training.other_recordings", self.other_recordings, "in [0, 1]")
        _check(0 <= self.consistency <= 10, "training.consistency", self.consistency, "in [0, 10]")
        _check(self.consistency == 0 or self._has_views, "training.consistency", self.consistency,
               "0 where the two views of a clip would be equal; set spec_augment, its strength, dropout or "
               "other_recordings")

    @property
    def num_views(self) -> int:
        """How often the network hears each clip in an epoch."""
        return 2 if self.consistency else 1

    @property
    def _has_views(self) -> bool:
        """Whether two views of a clip differ."""
        is_masked = self.spec_augment != "none" and self.spec_augment_strength > 0
        return is_masked or self.dropout > 0 or self.other_recordings > 0


@dataclass(frozen=True, kw_only=True)
class Recipe(Named):
    """One trial: everything that determines its result, except the data, the source and the seed."""

    error = RecipeError

    network: str = "source"
    """`source` for the source model's shape, with or without its weights, or a named QuartzNet: 15x5, 10x5, 5x5 or
    narrow."""
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    vocabulary: VocabularyRecipe = field(default_factory=VocabularyRecipe)
    transfer: TransferRecipe = field(default_factory=TransferRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    study: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the recipe came from: corpus, language, source. train.py reads it; training ignores it."""

    def __post_init__(self) -> None:
        check_types(self, RecipeError)
        frozen, epochs = self.transfer.frozen_epochs, self.training.epochs
        if self.transfer.frozen_part == "encoder":
            _check(frozen < epochs, "transfer.frozen_epochs", frozen, f"less than training.epochs = {epochs}")
        else:  # BatchNorm learns, so the rest may stay as it is to the end
            _check(frozen <= epochs, "transfer.frozen_epochs", frozen, f"at most training.epochs = {epochs}")

    def in_short(self) -> str:
        """The main choices, in one line."""
        vocabulary, transfer = self.vocabulary, self.transfer
        words = [f"{self.optimizer.name} {self.optimizer.lr:.1e}", self.schedule.name,
                 vocabulary.kind + (f" {vocabulary.size}" if vocabulary.size else "")]
        if not transfer.use_source:
            return ", ".join([*words, "from scratch"])
        return ", ".join([*words, *transfer.in_short()])

    def flat(self) -> dict[str, Any]:
        """The recipe as `section.field` parameters, for trackers and tables."""
        parameters: dict[str, Any] = {"network": self.network}
        for section in (f.name for f in fields(self) if f.name not in ("network", "study")):
            values = dataclasses.asdict(getattr(self, section))
            parameters |= {f"{section}.{name}": value for name, value in values.items()}
        return parameters

    def identity(self) -> dict[str, Any]:
        """`flat` for a key of what the recipe made, which is the same as before `LATER_FIELDS` came."""
        off = Recipe().flat()
        return {name: value for name, value in self.flat().items() if name not in LATER_FIELDS or value != off[name]}

    @classmethod
    def from_flat(cls, parameters: dict[str, Any]) -> Self:
        """Build a recipe from `section.field` parameters; what is absent keeps its default."""
        return cls.from_dict(nested(parameters))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build a recipe from nested plain values, as YAML holds them.

        Raises:
            RecipeError: an unknown field (the nearest known one is named), a wrong type or a value outside its limits.
        """
        return build(cls, values, RecipeError)

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML."""
        save_yaml(path, {"version": RECIPE_VERSION} | dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe that `save` wrote.

        Raises:
            RecipeError: no such file, not YAML, another version, an unknown field or a bad value.
        """
        values = load_yaml(path, "recipe", RecipeError)
        version = values.pop("version", None)
        if version != RECIPE_VERSION:
            raise RecipeError(f"{path}: version is {version!r}; this Cuarzo reads version {RECIPE_VERSION}.")
        try:
            return cls.from_dict(values)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`section.field` parameters as one dictionary per section."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = value
    return values
