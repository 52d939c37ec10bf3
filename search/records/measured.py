"""What is measured, as the files of a finished run hold it: the parts of `summary.json` and `test.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from spaces.typed import convert

UNLESS_NONE = {"unless_none": True}
"""Metadata of a field that is left out of the file where it is None."""

EMPTY_IF_NONE = {"empty_if_none": True}
"""Metadata of a field that is an empty mapping in the file where it is None."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Error rates of a split with their 95 % intervals, which are None for too few utterances."""

    wer: float
    wer_low: float | None = None
    wer_high: float | None = None
    cer: float
    cer_low: float | None = None
    cer_high: float | None = None

    def rate(self, name: str) -> float:
        """An error rate: wer or cer."""
        return float(getattr(self, name))

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of an error rate."""
        low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
        return None if low is None else (low, high)


@dataclass(frozen=True, kw_only=True)
class SplitRates(Rates):
    """Error rates of one model on a split."""

    folded_wer: float
    """Accents do not count in it."""
    counts: dict[str, int] = field(default_factory=dict)
    """The fields of `models.metrics.ErrorCounts`."""

    @property
    def num_utterances(self) -> int:
        """Utterances that have words."""
        return self.counts.get("utterances", 0)


@dataclass(frozen=True, kw_only=True)
class DevRates(Rates):
    """Error rates of a study's winner on the development split: the means over its seeds."""

    collapsed: bool = False
    """Whether its transcripts say nothing about the clips."""
    wer_by_seed: list[float] = field(default_factory=list)
    cer_by_seed: list[float] = field(default_factory=list)
    utterances: int = 0
    """Those that have words."""
    corrected: float | None = None
    """What the study minimises, corrected for the winner's having been chosen by it."""
    chosen_among: int = 0
    why_not_corrected: str | None = None


@dataclass(frozen=True, kw_only=True)
class AgainstSource:
    """The winner's error rate on test minus the unchanged source's, by what the study minimises; 95 % interval."""

    difference: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """A reference, the model's transcript and, where there is a source, the unchanged one's."""

    reference: str
    hypothesis: str
    before: str | None = field(default=None, metadata=UNLESS_NONE)


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """What a model gets wrong most often on test, and how often the unchanged source does."""

    winner: dict[str, list[dict[str, Any]]]
    """By `words` and `letters`: rows of `models.mistakes.most_wrong`."""
    source_as_it_stands: dict[str, list[dict[str, Any]]] | None = field(default=None, metadata=UNLESS_NONE)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One evaluation on test."""

    trial: str
    """The training whose weights were evaluated."""
    time: str | None = field(default=None, metadata=UNLESS_NONE)
    clips: int = 0
    winner: SplitRates
    source_as_it_stands: SplitRates | None = field(default=None, metadata=UNLESS_NONE)
    against_source: AgainstSource | None = field(default=None, metadata=UNLESS_NONE)
    mistakes: Mistakes | None = field(default=None, metadata=UNLESS_NONE)
    examples: list[Example] | None = field(default=None, metadata=UNLESS_NONE)
    times_read: int | None = field(default=None, metadata=UNLESS_NONE)
    """How often test had been read in the run; only in the summary, which has no mistakes and examples."""


@dataclass(frozen=True, kw_only=True)
class ComparedRecipe:
    """Another recipe that was confirmed, and the winner compared with it, by what the study minimises."""

    trial: str
    hand_recipe: str | None = None
    wer: float
    wer_by_seed: list[float] = field(default_factory=list)
    cer: float
    difference: float
    """The winner's error rate on dev minus this one's; 95 % interval."""
    difference_low: float | None = None
    difference_high: float | None = None
    is_tie: bool | None = None
    """None if unknown."""

    def rate(self, name: str) -> float:
        """An error rate: wer or cer."""
        return self.cer if name == "cer" else self.wer


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The winner's recipe with other weights carried over, or none, on one seed."""

    variant: str
    is_winner: bool
    reason: str | None = None
    """Why it was not trained to the end."""
    trial: str | None = None
    wer: float | None = None
    cer: float | None = None
    said: str | None = None
    difference: float | None = field(default=None, metadata=UNLESS_NONE)
    """The winner's error rate on this seed minus the variant's; 95 % interval."""
    difference_low: float | None = field(default=None, metadata=UNLESS_NONE)
    difference_high: float | None = field(default=None, metadata=UNLESS_NONE)
    is_tie: bool | None = field(default=None, metadata=UNLESS_NONE)

    def rate(self, name: str) -> float | None:
        """An error rate: wer or cer; None if it was not trained."""
        return self.cer if name == "cer" else self.wer


@dataclass(frozen=True, kw_only=True)
class Part:
    """The winner's recipe trained on a part of the speech, on one seed, in as many epochs."""

    share: float
    hours: float
    rate: float
    """What the study minimises, on dev."""
    trial: str


@dataclass(frozen=True, kw_only=True)
class MoreSpeech:
    """What the winner's recipe is expected to reach with more speech of the same kind; 95 % interval."""

    times: float
    hours: float
    rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class DataScaling:
    """What more speech would give, or why that cannot be said."""

    parts: list[Part] = field(default_factory=list)
    """The smallest first; the last is the whole."""
    more: list[MoreSpeech] = field(default_factory=list)
    exponent: float | None = None
    """Of the power law: twice the speech divides the error rate by 2 to this."""
    why_none: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceShare:
    """A choice's share of what the choices explain; 90 % interval."""

    share: float
    low: float
    high: float
    floor: float
    """What chance alone gives, which is subtracted."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What mattered, or why that cannot be said."""

    method: str = "fANOVA"
    epoch: int = 0
    """The epoch at which trials were compared."""
    trials: int = 0
    stopped_before: int = 0
    without_wer: int = 0
    explained: float | None = None
    """The sum over all choices, as a share of the total variance."""
    shares: dict[str, ChoiceShare] = field(default_factory=dict)
    why_none: str | None = None


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was spent, or may be; None if there is no limit, or no price."""

    wall_s: float | None = None
    gpu_h: float | None = None
    cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class Allowed(Spent):
    """What may be spent."""

    cost_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long the study took, and its trials: medians."""

    study: float = 0.0
    fit_to_first_step_median: float = 0.0
    outside_training_per_trial_median: float = 0.0
    training_per_trial_median: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ReferenceFacts:
    """What a run is scored against, as in `corpora.reference.Reference.facts`."""

    key: str = ""
    normaliser_version: str = ""
    dev_clips: int = 0
    test_clips: int = 0


@dataclass(frozen=True, kw_only=True)
class OverlapPair:
    """Sentences and speakers of one split that another has too."""

    splits: list[str]
    num_sentences: int
    num_speakers: int
    num_clips: int
    num_shared_clips: int


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """What splits share."""

    allowed: bool = False
    pairs: list[OverlapPair] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class MeanOfLatest:
    """A production training's weights averaged over its latest epochs."""

    epochs: list[int]
    wer: float
    cer: float
    best_epoch_wer: float
    is_kept: bool


# --- on disk --------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, for a file."""
    if is_dataclass(value) and not isinstance(value, type):
        held = [(f, getattr(value, f.name)) for f in fields(value)]
        return {f.name: {} if one is None and f.metadata == EMPTY_IF_NONE else plain(one) for f, one in held
                if one is not None or f.metadata != UNLESS_NONE}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def read(kind: type[T], value: Any, name: str = "it") -> T:
    """A value of this type from a file of this or another version, whose other fields are left out.

    Raises:
        ValueError: it is of another type, or lacks a field that every version writes.
    """
    made: T = convert(kind, _known(kind, value), ValueError, name)
    return made


def _known(kind: Any, value: Any) -> Any:
    """Without the fields that the dataclasses in `kind` do not have."""
    options = [option for option in get_args(kind) if option is not NoneType]
    if get_origin(kind) in (Union, UnionType):
        return _known(options[0], value)
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints, empty = get_type_hints(kind), [f.name for f in fields(kind) if f.metadata == EMPTY_IF_NONE]
        return {name: None if name in empty and one == {} else _known(hints[name], one)
                for name, one in value.items() if name in hints}
    if options and isinstance(value, Mapping):
        return {name: _known(options[-1], one) for name, one in value.items()}
    return [_known(options[-1], one) for one in value] if options and isinstance(value, list) else value
