"""Cuarzo's own record of a trial: its folder, and its epochs on disk."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from search.records.files import damage_named, read_json, write_json
from spaces.recipe import Recipe
from spaces.typed import convert

ALIVE = "alive"
"""A file in a trial's folder whose modification time is that of the trial's last step."""

SCORE = "score"
"""A metric by which epochs and recipes are chosen where a task has it, in place of the one that it minimises."""

MAX_REASON = 500
"""Letters of a reason; some errors repeat all the data that they were given."""

FAILURE = "failure.json"
"""A file in the folder of a trial that cannot continue, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One validation on the development split, after `epoch` passes over the training split."""

    epoch: int
    metrics: Mapping[str, float]
    """The task's metrics by name, and the minimised one of the best epoch so far, as `best_` and its name."""
    train_s: float
    """Seconds spent in training and validation so far."""
    outside_s: float
    """Seconds since the trial's fit that were neither training nor validation."""
    to_first_step_s: float
    """Seconds from the trial's fit to its first training step."""
    gpu_s: float
    """Seconds of GPUs held so far; 0 on a CPU."""

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric]

    def score(self, metric: str) -> float:
        """What the better of two epochs has less of: `SCORE`, or the metric that is minimised."""
        return self.metrics.get(SCORE, self[metric])

    def flat(self) -> dict[str, Any]:
        """All figures by name in one dictionary, as stored, reported and logged."""
        values = dict(vars(self))
        return {"epoch": values.pop("epoch"), **values.pop("metrics"), **values}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "Epoch":
        """Rebuild from what `flat` returned."""
        figures = convert(dict[str, float], values, ValueError, "an epoch")
        own = {f.name: figures.pop(f.name) for f in fields(cls) if f.name in figures}
        return cls(metrics=figures, **own | {"epoch": int(own["epoch"])})


@dataclass
class TrialRecord:
    """A trial's folder: `record.json`, `last.ckpt` to resume from, `best.pt` weights, `dev.json` hypotheses."""

    folder: Path
    recipe: Recipe
    seed: int
    left_out: int = 0
    """Training clips that CTC cannot align with this recipe's vocabulary."""
    workers: int = 1
    """Processes that trained it together."""
    metric: str = "wer"
    """The metric it minimises; older records lack it, and are of speech."""
    patience: int | None = None
    """Epochs without a lower value of it after which it stops early; None to train all of the recipe's epochs."""
    keep_last: int = 0
    """Latest epochs whose averaged weights are kept too."""
    num_parameters: int = 0
    """Of the network."""
    precision: str = ""
    """Lightning's name for its training precision."""
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The trial's name, which is also its folder's."""
        return self.folder.name

    @property
    def is_complete(self) -> bool:
        """Whether every epoch of the recipe was trained, or its patience is used up."""
        lost_patience = self.patience and self.best and len(self.epochs) - self.best.epoch >= self.patience
        return len(self.epochs) >= self.recipe.training.epochs or bool(lost_patience)

    @property
    def best(self) -> Epoch | None:
        """The epoch with the lowest score."""
        return min(self.epochs, key=lambda epoch: epoch.score(self.metric), default=None)

    @property
    def last_checkpoint(self) -> Path:
        """Everything needed to resume: weights, optimizer, schedule, counters."""
        return self.folder / "last.ckpt"

    @property
    def best_weights(self) -> Path:
        """The part of the module's state that the task keeps after the best epoch."""
        return self.folder / "best.pt"

    def weights_after(self, epoch: int) -> Path:
        """The same after one of the latest epochs, if they are kept."""
        return self.folder / f"epoch-{epoch:05d}.pt"

    def show_alive(self) -> None:
        """Touch the file that shows that the trial is alive."""
        (self.folder / ALIVE).touch()

    def save(self) -> None:
        """Write `record.json` to a temporary file and rename it."""
        values = vars(self) | {"recipe": asdict(self.recipe), "epochs": [epoch.flat() for epoch in self.epochs]}
        del values["folder"]
        write_json(self.folder / "record.json", values)

    @classmethod
    def load(cls, folder: Path) -> "TrialRecord":
        """Read the record that `save` wrote.

        Raises:
            ConfigError: it is damaged.
        """
        path = folder / "record.json"
        values = read_json(path)
        with damage_named(path, "Restore the file from a copy."):
            made = {"recipe": Recipe.from_dict(values["recipe"]),
                    "epochs": [Epoch.from_flat(epoch) for epoch in values["epochs"]]}
            known = {name: convert(hint, values[name], ValueError, name)
                     for name, hint in get_type_hints(cls).items() if name in values and name not in made}
            record = cls(folder, **known | made)
            for epoch in record.epochs:
                epoch[record.metric], epoch[f"best_{record.metric}"]
        return record

    def dev_hypotheses(self) -> list[str]:
        """The hypotheses of the best epoch, one for each example of the development split.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self.folder / "dev.json"
        hypotheses = read_json(path)
        with damage_named(path, "Restore the file from a copy."):
            texts: list[str] = convert(list[str], hypotheses, ValueError, "it")
        return texts


def records(trials: Path) -> Iterator[TrialRecord]:
    """Every trial with a record, by name."""
    for path in sorted(trials.glob("*/record.json")):
        yield TrialRecord.load(path.parent)


def write_failure(folder: Path, reason: str) -> None:
    """Record why a trial cannot continue."""
    write_json(folder / FAILURE, {"reason": reason})


def read_failure(folder: Path) -> str | None:
    """Why a trial cannot continue; None if there is no record of it."""
    path = folder / FAILURE
    return str(dict(read_json(path)).get("reason")) if path.exists() else None


def first_line(error: BaseException) -> str:
    """An error in one line, for a table; of a Ray task's error, its cause. If a GPU is full, it says what to change."""
    cause = getattr(error, "cause", None)
    cause = cause if isinstance(cause, BaseException) else error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    line = f"{type(cause).__name__}: {_words(cause)}".removesuffix(": ")
    if (type(cause).__module__, type(cause).__name__) != ("torch", "OutOfMemoryError"):  # Ray has its own, for nodes
        return line
    what = ". ".join(line.split(". ")[:3])  # the rest is about processes and PyTorch's allocator
    return f"{what}. Lower max_audio_s_per_pass, or raise gpus_per_worker where it is below 1"


def _words(error: BaseException) -> str:
    """The first line of what an error says that says something: some begin with an empty one, or with a heading, whose
    colon the next line answers. No name in it steers a terminal, or cannot be written down."""
    try:
        lines = [line for line in map(str.strip, str(error).splitlines()) if line]
    except Exception as reason:  # of an error's own making
        return f"its message cannot be had ({type(reason).__name__})"
    words = ""
    for line in lines:
        words = f"{words} {line}".strip()
        if not line.endswith(":"):
            break
    words = words[:MAX_REASON]
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in words)


def is_complete(folder: Path) -> bool:
    """Whether a training was completed, according to its record."""
    return (folder / "record.json").exists() and TrialRecord.load(folder).is_complete
