"""The results of a finished run, as stored in its `summary.json`."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from search.capacity.concurrency import Packing
from search.records.files import damage_named, read_json, write_json
from search.records.measured import (
    EMPTY_IF_NONE,
    Allowed,
    ComparedRecipe,
    DataScaling,
    DevRates,
    Importance,
    Look,
    MeanOfLatest,
    Overlaps,
    ReferenceFacts,
    Seconds,
    Spent,
    SplitRates,
    Transfer,
    plain,
    read,
)


@dataclass(frozen=True, kw_only=True)
class _Summary:
    """What both kinds share; fields that an earlier version did not write have a default."""

    def values(self) -> dict[str, Any]:
        """The fields as written to `summary.json`."""
        values: dict[str, Any] = plain(self)
        return values

    def save(self, run: Path) -> None:
        """Write `summary.json` into a run's folder."""
        write_json(run / "summary.json", self.values())


@dataclass(frozen=True, kw_only=True)
class StudySummary(_Summary):
    """The figures of a finished study."""

    study: str
    corpus: list[str] = field(default_factory=list)
    language: str = ""
    source: str = ""
    warm_start: list[str] = field(default_factory=list)
    reference: ReferenceFacts = ReferenceFacts()
    objective: str = "wer"
    """The error rate that was minimised: wer or cer."""
    trials: dict[str, int] = field(default_factory=dict)
    """Number of trials by the state in which they ended."""
    winner: str
    exported: str
    """The training of the winner whose weights are in best/."""
    winner_is_hand_recipe: str | None = None
    """The hand recipe's name, if the winner is one."""
    recipe: dict[str, Any]
    dev: DevRates
    compared: dict[str, ComparedRecipe] = field(default_factory=dict)
    """The `runner_up` and the best `hand_recipe`."""
    cautions: list[str] = field(default_factory=list)
    """Why the winner is no better than silence or than the unchanged source, if it is not."""
    verdict: str = ""
    left_out_by_budget: list[str] = field(default_factory=list)
    transfer: list[Transfer] = field(default_factory=list)
    """What each way of starting the winner gained."""
    data_scaling: DataScaling | None = None
    importance: Importance | None = None
    test: Look | None = field(default=None, metadata=EMPTY_IF_NONE)
    """The last evaluation on test; None if there is no test split."""
    overlap: Overlaps = Overlaps()
    packing: Packing | None = None
    spent: Spent = Spent()
    budget: Allowed = Allowed()
    seconds: Seconds = Seconds()

    def values(self) -> dict[str, Any]:
        """The fields as written to `summary.json`, where the corrected rate is called by what it is: wer_corrected."""
        values = super().values()
        values["dev"][f"{self.objective}_corrected"] = values["dev"].pop("corrected")
        return values


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(_Summary):
    """The figures of a finished production training."""

    training: str
    corpus: list[str] = field(default_factory=list)
    corpus_keys: list[str] = field(default_factory=list)
    language: str = ""
    reference: ReferenceFacts = ReferenceFacts()
    overlap: Overlaps = Overlaps()
    source: str = ""
    source_key: str = ""
    source_licence: str | None = None
    recipe: dict[str, Any]
    seed: int = 0
    epochs: int
    """Those that were trained."""
    ended_early: bool = False
    best_epoch: int = 0
    mean_of_latest: MeanOfLatest | None = field(default=None, metadata=EMPTY_IF_NONE)
    exported: str
    dev: SplitRates
    test: Look | None = field(default=None, metadata=EMPTY_IF_NONE)
    audio_h: float = 0.0
    """Hours of speech trained on."""
    train_s: float = 0.0
    gpu_s: float = 0.0
    workers: int = 1
    versions: dict[str, str] = field(default_factory=dict)


RunSummary = StudySummary | TrainingSummary

Kind = TypeVar("Kind", StudySummary, TrainingSummary)


def summary_of(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Rebuild a summary from its `values`, as written by this or another version.

    Raises:
        ValueError: a field that every version writes is missing, or one is of another type.
    """
    if missing := [f.name for f in fields(kind) if f.name not in values
                   and f.default is MISSING and f.default_factory is MISSING]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if isinstance(dev := values["dev"], dict):
        values = {**values, "dev": dev | {"corrected": dev.get(f"{values.get('objective', 'wer')}_corrected")}}
    return read(kind, values)


def load_summary(kind: type[Kind], run: Path) -> Kind | None:
    """The summary in a run's folder; None if the run has not ended.

    Raises:
        ConfigError: it is damaged.
    """
    path = run / "summary.json"
    if not path.exists():
        return None
    with damage_named(path):
        return summary_of(kind, dict(read_json(path)))
