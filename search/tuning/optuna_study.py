"""The Optuna study in SQLite: opening it, its address, and the names of its trials."""

import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from sqlalchemy.engine import URL

from search.config import ConfigError
from search.records import database
from search.tuning.tpe import tpe
from spaces.recipe import Recipe


def open_study(path: Path, seed: int) -> optuna.Study:
    """Open or create the Optuna study in SQLite at `path`; its own sampler draws what hand recipes leave out.

    A new study is named after its folder; an existing one keeps its name.

    Raises:
        ConfigError: the installed Optuna cannot read the tables of the version that wrote it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(storage_url(path), engine_kwargs={
            "connect_args": {"timeout": database.TRY_S, "factory": database.PatientConnection}})
    except RuntimeError as error:
        said = " ".join(str(error).split()).replace("$STORAGE_URL", shlex.quote(storage_url(path)))
        raise ConfigError(f"{path}: was not written by the installed Optuna, {optuna.__version__} ({said}). "
                          "Install the version that the study began with, or start a new study with --out."
                          ) from error
    [name] = optuna.get_all_study_names(storage)[:1] or [path.parent.name]
    study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    study.sampler = tpe(seed + len(study.get_trials(deepcopy=False)))
    return study


def storage_url(path: Path) -> str:
    """The URL of a SQLite file for Optuna and optuna-dashboard, with special characters escaped."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def first_recipe(space: ModuleType, max_epochs: int, has_source: bool, seed: int) -> Recipe:
    """The first hand recipe of a space; missing parameters are drawn."""
    hand = list(space.baseline(max_epochs=max_epochs, has_source=has_source).values())
    return draw(space, max_epochs, has_source, seed, hand[0] if hand else {})[0]


def draw(space: ModuleType, max_epochs: int, has_source: bool, seed: int,
         given: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of a space from these parameters, and all its parameters; missing ones are drawn."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    study.enqueue_trial(given)
    trial = study.ask()
    return space.sample(trial, max_epochs=max_epochs, has_source=has_source), trial.params


def trial_id(number: int) -> str:
    """The name of an Optuna trial's folder and W&B run."""
    return f"{number:04d}"
