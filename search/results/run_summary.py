"""The results of a finished run, as stored in its `summary.json`."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from search.records.files import damage_named, read_json, write_json
from spaces.typed import convert


@dataclass(frozen=True, kw_only=True)
class _Summary:
    """What both kinds share; fields that an earlier version did not write have a default."""

    def values(self) -> dict[str, Any]:
        """The fields as written to `summary.json`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

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
    reference: dict[str, Any] = field(default_factory=dict)
    """Key and size of the reference that it is scored against."""
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
    dev: dict[str, Any]
    """The winner's error rates on the development split, with intervals."""
    compared: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The winner compared with the runner-up and the best hand recipe."""
    cautions: list[str] = field(default_factory=list)
    """Why the winner is no better than silence or than the unchanged source, if it is not."""
    verdict: str = ""
    left_out_by_budget: list[str] = field(default_factory=list)
    transfer: list[dict[str, Any]] = field(default_factory=list)
    """What each way of starting the winner gained."""
    importance: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    """The last evaluation on test and the number of evaluations; empty if there is no test split."""
    overlap: dict[str, Any] = field(default_factory=lambda: {"said": []})
    packing: dict[str, Any] | None = None
    spent: dict[str, float | None] = field(default_factory=dict)
    budget: dict[str, float | None] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainingSummary(_Summary):
    """The figures of a finished production training."""

    training: str
    corpus: list[str] = field(default_factory=list)
    corpus_keys: list[str] = field(default_factory=list)
    language: str = ""
    reference: dict[str, Any] = field(default_factory=dict)
    overlap: dict[str, Any] = field(default_factory=lambda: {"said": []})
    source: str = ""
    source_key: str = ""
    source_licence: str | None = None
    recipe: dict[str, Any]
    seed: int = 0
    epochs: int
    """Those that were trained."""
    ended_early: bool = False
    best_epoch: int = 0
    mean_of_latest: dict[str, Any] = field(default_factory=dict)
    """The epochs whose weights were averaged, and whether the mean was kept; empty if none were."""
    exported: str
    dev: dict[str, Any]
    test: dict[str, Any] = field(default_factory=dict)
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
    hints = get_type_hints(kind)
    return kind(**{f.name: convert(hints[f.name], values[f.name], ValueError, f.name) for f in fields(kind)
                   if f.name in values})


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
