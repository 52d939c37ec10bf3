"""Warm start: try the best recipes of other studies again, without adopting their trials.

Word error rates of another language or release cannot be compared with ours, so only the order of a study's trials is
used.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from search.config import RUN_VERSION, ConfigError
from search.records import database
from search.records.files import write_json
from search.records.run_folder import PRODUCTION, RunFolder, kind_of
from search.tuning.tpe import goodness
from search.wording import counted
from spaces.recipe import Recipe
from spaces.typed import load_yaml

FILE = "warm_start.json"
"""The file in the run's folder with what was read from other studies."""

RECIPES_OF_A_RUN = 3
"""Recipes tried per run; more than one, because the best may have been lucky. Six found no better ones sooner."""

MAX_SHARE_OF_TRIALS = 1 / 3
"""Share of the requested trials, for all runs together; the rest is for this corpus."""

DRAWS_TO_KNOW_A_SPACE = 100
"""A parameter that one recipe in five has is missed by this many draws with probability 2e-10."""


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial of another study, with a word error rate."""

    number: int
    is_complete: bool
    """Whether it was trained to its end."""
    parameters: dict[str, Any]
    """As in Optuna."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """Another study."""

    folder: str
    trials: tuple[PastTrial, ...]
    """Best first."""


# --- read -----------------------------------------------------------------------------------------------------------


def read_past(run: RunFolder, resume: bool) -> list[PastRun]:
    """The studies that `warm_start` names, as they were when this study began; nothing is written.

    Raises:
        ConfigError: one is not a study, has another version, is damaged or has no trial that was trained to its end.
    """
    file = run.path / FILE
    if resume and run.config.warm_start and file.exists():
        return _load(file)
    return [read_run(Path(folder)) for folder in dict.fromkeys(run.config.warm_start)]


def keep_past(run: RunFolder, past: Sequence[PastRun]) -> None:
    """Write what was read into the run's folder; by the time of a resume, the other studies may be gone or changed."""
    if past:
        write_json(run.path / FILE, [asdict(other) for other in past])


def _load(file: Path) -> list[PastRun]:
    try:
        return [PastRun(folder=run["folder"], trials=tuple(PastTrial(**trial) for trial in run["trials"]))
                for run in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file}: what was taken from other studies cannot be read ({error}). Restore the file from "
                          "a copy, or start a new study with --out.") from None


def read_run(folder: Path) -> PastRun:
    """Read a study, finished or running, without writing to its folder.

    Raises:
        ConfigError: it is not a study, has another version, is damaged or has no trial that was trained to its end.
    """
    config, study = folder / "config.yaml", folder / "study.db"
    if kind_of(folder) is PRODUCTION:
        raise ConfigError(f"warm_start {folder}: it holds a production training, which has tried one recipe. Name the "
                          "folder of a study.")
    for file in (config, study):
        if not file.is_file():
            raise ConfigError(f"warm_start {folder}: there is no study here ({file.name} is missing). Name the folder "
                              "of a run.")
    version = load_yaml(config, "study configuration", ConfigError).get("version")
    if version != RUN_VERSION:
        raise ConfigError(f"warm_start {folder}: the study is of version {version!r}; this Cuarzo reads version "
                          f"{RUN_VERSION}. Leave it out of --warm-start.")
    try:
        trials = _read_trials(study)
    except (sqlite3.Error, SQLAlchemyError, optuna.exceptions.OptunaError, KeyError, ValueError, RuntimeError) as error:
        why = " ".join(str(getattr(error, "orig", error)).split())
        raise ConfigError(f"warm_start {folder}: study.db is not a study's database, or is damaged ({why}). "
                          "Restore the file from a copy, or leave it out of --warm-start.") from error
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        have = "has" if len(trials) == 1 else "have"
        raise ConfigError(f"warm_start {folder}: {len(trials)} of its trials {have} a word error rate, and none was "
                          "trained to its end. Let it finish one, or leave it out of --warm-start.")
    return PastRun(folder=str(folder), trials=tuple(
        PastTrial(number=trial.number, is_complete=trial.state == TrialState.COMPLETE, parameters=trial.params)
        for trial in sorted(trials, key=goodness)))


def _read_trials(file: Path) -> list[FrozenTrial]:
    """Trials with word error rates; the study may be running meanwhile."""
    connect = partial(database.connect, file, "ro")
    with closing(connect()) as connection:
        [(found,)] = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect}, skip_table_creation=True)
    try:
        trials = optuna.load_study(study_name=None, storage=storage).get_trials(deepcopy=False)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return [trial for trial in trials if trial.state == TrialState.COMPLETE
            or (trial.state == TrialState.PRUNED and trial.intermediate_values)]


# --- fit ------------------------------------------------------------------------------------------------------------


def to_try_again(
        past: Sequence[PastRun], sample: Callable[[BaseTrial], Recipe], hand_recipes: Sequence[dict[str, Any]],
        num_trials: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The best recipes of each run in turn that fit the whole space, as parameters by run and trial, and lines on what
    does not fit. A recipe that contains a hand recipe is left out, and so is a duplicate.
    """
    space = parameters_of(sample) if past else {}
    lines: list[str] = []
    by_run = []
    for run in past:
        whole = [trial for trial in run.trials if _fits(space, sample, trial.parameters)]
        lines += [f"warm start from {run.folder}: {line}" for line in _misfits(space, run, len(whole))]
        new = [(f"{run.folder} trial {trial.number:04d}", trial.parameters) for trial in whole if trial.is_complete
               and not any(hand.items() <= trial.parameters.items() for hand in hand_recipes)]
        by_run.append(new[:RECIPES_OF_A_RUN])
    taken: dict[str, dict[str, Any]] = {}
    for name, parameters in (one for turn in zip_longest(*by_run) for one in turn if one is not None):
        if len(taken) < int(num_trials * MAX_SHARE_OF_TRIALS) and parameters not in taken.values():
            taken[name] = parameters
    if past:
        lines.append(f"warm start: recipes of other studies that are tried after the hand recipes: {len(taken)}")
    return taken, lines


def parameters_of(sample: Callable[[BaseTrial], Recipe]) -> dict[str, BaseDistribution]:
    """Every parameter that a space can draw."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions: dict[str, BaseDistribution] = {}
    for _ in range(DRAWS_TO_KNOW_A_SPACE):
        trial = study.ask()
        sample(trial)
        distributions |= trial.distributions
    return distributions


def _holds(distribution: BaseDistribution | None, value: Any) -> bool:
    """Whether a parameter may have this value; without a distribution, the parameter does not exist."""
    if distribution is None:
        return False
    try:
        create_trial(value=0.0, params={"it": value}, distributions={"it": distribution})
    except ValueError:
        return False
    return True


def _fits(space: dict[str, BaseDistribution], sample: Callable[[BaseTrial], Recipe],
          parameters: dict[str, Any]) -> bool:
    """Whether the space draws a recipe from exactly these parameters."""
    trial = FixedTrial(parameters)
    if not all(_holds(space.get(name), value) for name, value in parameters.items()):
        return False
    try:
        sample(trial)
    except ValueError:  # it draws one more
        return False
    return trial.params.keys() == parameters.keys()


def _misfits(space: dict[str, BaseDistribution], run: PastRun, num_whole: int) -> Iterator[str]:
    """A line for each parameter that does not fit in some trials, and one with the number of trials."""
    missing = Counter((name, str(value) if isinstance(space.get(name), CategoricalDistribution) else "")
                      for trial in run.trials for name, value in trial.parameters.items()
                      if not _holds(space.get(name), value))
    values: dict[str, list[str]] = {}
    for name, value in sorted(missing):
        values.setdefault(name, []).append(value)
    for name, others in values.items():
        count = sum(missing[name, value] for value in others)
        yield f"{name} does not fit in {count} of {counted(len(run.trials), 'trial')}: {_why(space.get(name), others)}"
    if skipped := len(run.trials) - num_whole:
        does, are = ("does", "is") if skipped == 1 else ("do", "are")
        yield f"{skipped} of {counted(len(run.trials), 'recipe')} {does} not fit as a whole and {are} left out"


def _why(distribution: BaseDistribution | None, others: Sequence[str]) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"it was {' or '.join(others)}, and here is one of {', '.join(map(str, distribution.choices))}"
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return f"it is outside {distribution.low:g} to {distribution.high:g}"
    return "this study has no such parameter"
