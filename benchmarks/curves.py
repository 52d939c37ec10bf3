"""The recorded learning curves that benchmarks read, as record.py writes them."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.atomic import write_aside
from search.config import rungs

VERSION = 1


class CurvesError(ValueError):
    """A file that holds no curves that can be read."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Trainings of recipes to the end."""

    corpus: list[str]
    space: str
    has_source: bool
    max_epochs: int
    grace_epochs: int
    reduction_factor: int
    trials: list[dict[str, Any]]
    """`params` of the space, `seed`, and for each epoch the word error rate of the latest weights (`raw`), of the
    averaged ones and, at rungs, of an annealed branch; `cer` of the averaged weights; `train_s` from the start."""

    @property
    def rungs(self) -> list[int]:
        """Epochs after which successive halving stops trials."""
        return [*rungs(self.max_epochs, self.grace_epochs, self.reduction_factor)]

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The trials that were trained to the end."""
        return [trial for trial in self.trials if len(trial["epochs"]) == self.max_epochs]


def load_recording(path: Path) -> Recording:
    """Read a file of curves.

    Raises:
        CurvesError: it is missing, damaged or of another format.
    """
    fix = "Record one with benchmarks/record.py."
    try:
        content = path.read_bytes()
        values = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
        version = values.pop("version", None)
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise CurvesError(f"{path}: no readable file of curves ({error}). {fix}") from None
    if version != VERSION:
        raise CurvesError(f"{path}: the curves are of format {version!r}; this reads format {VERSION}. {fix}")
    try:
        return Recording(**values)
    except TypeError as error:
        raise CurvesError(f"{path}: the curves lack something ({error}). {fix}") from None


def save_recording(curves: Recording, path: Path) -> None:
    """Write a file of curves, aside first."""
    content = json.dumps({"version": VERSION, **vars(curves)}, indent=1).encode()
    write_aside(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
