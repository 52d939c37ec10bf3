"""RunFolder: the folder of one study, its configuration and where things are in it."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.config import ConfigError, StudyConfig
from spaces.typed import build, load_yaml, save_yaml

RUN_VERSION = 1

FIXED_FIELDS = ("corpus", "language", "source", "space", "max_epochs", "seed", "workers_per_trial", "grace_epochs",
                "reduction_factor", "min_duration_s", "max_duration_s", "max_infeasible_share")
"""What a resumed study cannot change: results before and after would not be of the same study."""


@dataclass(frozen=True)
class RunFolder:
    """A study's folder: config.yaml, spent.json, corpus_report.json, study.db, trials/, best/, report.html, wandb/."""

    path: Path
    config: StudyConfig

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    @property
    def trials(self) -> Path:
        """A folder for each trial."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """What is taken away: recipe, model, card."""
        return self.path / "best"

    @classmethod
    def open(cls, config: StudyConfig, resume: bool) -> "RunFolder":
        """Make the folder of a new study, or open the one to resume.

        Raises:
            ConfigError: the folder holds another study, or none to resume, or it cannot be written.
        """
        path = Path(config.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")).expanduser().resolve()
        file = path / "config.yaml"
        # The configuration alone is of a study that failed before its first trial: there is nothing to lose.
        if (path / "study.db").exists() and not resume:
            raise ConfigError(f"{path}: this folder already holds a study. Go on with it by --resume {path}, or name "
                              "another folder with --out.")
        if resume:
            stored = load_config(path)
            _check_unchanged(stored, config, path)
        config = replace(config.resolved(), out=str(path), corpus=tuple(_absolute(p) for p in config.corpus),
                         source=config.source if config.source in (None, "none") else _absolute(str(config.source)))
        try:
            save_yaml(file, {"version": RUN_VERSION} | _plain(config))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}). Name another folder with --out."
                              ) from None
        return cls(path, config)


def load_config(path: Path) -> StudyConfig:
    """Read the configuration of the study in a folder.

    Raises:
        ConfigError: no study there, or one of another version.
    """
    if not (path / "config.yaml").exists():
        raise ConfigError(f"{path}: there is no study to resume here (config.yaml is missing). Check the path.")
    values = load_yaml(path / "config.yaml", "study configuration", ConfigError)
    version = values.pop("version", None)
    if version != RUN_VERSION:
        raise ConfigError(f"{path}: the study is of version {version!r}; this Cuarzo reads version {RUN_VERSION}.")
    return build(StudyConfig, values, ConfigError)


def _check_unchanged(stored: StudyConfig, config: StudyConfig, path: Path) -> None:
    wanted = config.resolved()
    for name in FIXED_FIELDS:
        before, after = getattr(stored, name), getattr(wanted, name)
        if name in ("corpus", "source"):
            after = tuple(map(_absolute, after)) if name == "corpus" else _absolute_source(after)
        if before != after:
            raise ConfigError(f"{path}: {name} of the study is {before!r}, and {after!r} now; a resumed study keeps "
                              "it. Leave the flag out, or start a new study with --out.")


def _absolute_source(source: str | None) -> str | None:
    return source if source in (None, "none") else _absolute(str(source))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _plain(config: StudyConfig) -> dict[str, Any]:
    values = asdict(config)
    return values | {"corpus": list(config.corpus)}
