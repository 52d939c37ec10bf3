"""Check that a finished study is intact, whatever was killed meanwhile, and say in words what is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from search.config import load_config
from search.records.job import Job
from search.records.trial_record import TrialRecord, read_failure
from search.tuning.asha import ResumableASHA

Event = tuple[str, int] | dict[str, int]
"""An epoch of a trial that the driver handled, or, where a driver started, the epochs that each trial had."""


def complaints(folder: Path, may_fail: str | None = None) -> list[str]:
    """What is wrong with a finished study; empty if it is intact.

    Trials may have failed where the reason holds `may_fail`.
    """
    if not (folder / "study.db").exists():
        return ["there is no study.db"]
    trials, by_trial = _counted(folder), trial_complaints(folder, may_fail)
    wanted = load_config(folder).trials
    found = [] if len(trials) == wanted else [f"{len(trials)} trials of {wanted} in study.db"]
    found += [f"trial {trial} {what}" for trial, wrong in by_trial.items() for what in wrong]
    found += [f"trials/{path.parent.name} is of no trial in study.db"
              for path in sorted((folder / "trials").glob("*/record.json"))
              if path.parent.name.isdigit() and path.parent.name not in by_trial]
    return found + _wrong_end(folder, trials)


def trial_complaints(folder: Path, may_fail: str | None = None) -> dict[str, list[str]]:
    """What is wrong with each trial that study.db counts; an empty list for one that ended as it should."""
    if not (folder / "study.db").exists():
        return {}
    config = load_config(folder)
    names = {f"{trial.number:04d}": trial for trial in _counted(folder)}
    # A hand recipe that was stopped may be trained on after the search, and where none ran to its end the best one is.
    none_ended = all(trial.state != TrialState.COMPLETE for trial in names.values())
    return {name: _wrong(trial, folder / "trials" / name, config.rungs, may_fail,
                         may_go_on=none_ended or "hand_recipe" in trial.user_attrs)
            for name, trial in names.items()}


def _counted(folder: Path) -> list[FrozenTrial]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    return [t for t in study.trials if t.state != TrialState.WAITING and "infeasible" not in t.user_attrs]


def _wrong(trial: FrozenTrial, folder: Path, rungs: Sequence[int], may_fail: str | None, may_go_on: bool) -> list[str]:
    if not trial.state.is_finished():
        return [f"is {trial.state.name}"]
    reason = str(trial.user_attrs.get("reason") or read_failure(folder) or "")
    if trial.state == TrialState.FAIL and not (may_fail and may_fail in reason):
        return [f"failed: {reason or 'for no reason'}"]
    if not (folder / "record.json").exists():
        return [] if trial.state == TrialState.FAIL else ["has no record"]
    record = TrialRecord.load(folder)
    epochs = [epoch.epoch for epoch in record.epochs]
    found = []
    if epochs != list(range(1, len(epochs) + 1)):
        found.append(f"has the epochs {epochs} in its record")
    told = trial.intermediate_values
    if may_go_on and record.is_complete:
        epochs = epochs[: len(told)]
    if told != {epoch.epoch: epoch["rank"] for epoch in record.epochs[: len(epochs)]}:
        found.append(f"has other epochs or values in study.db ({sorted(told)}) than in its record ({epochs})")
    is_whole = len(epochs) >= record.recipe.training.epochs
    if (trial.state == TrialState.COMPLETE) != is_whole and trial.state != TrialState.FAIL:
        found.append(f"is {trial.state.name} after {len(epochs)} of {record.recipe.training.epochs} epochs")
    if trial.state == TrialState.COMPLETE and trial.value != min(told.values(), default=None):
        found.append(f"was told {trial.value}, and its best epoch has {min(told.values(), default=None)}")
    if trial.state == TrialState.PRUNED and len(epochs) not in rungs:
        found.append(f"was stopped after {len(epochs)} epochs, where there is no rung")
    return found


def _wrong_end(folder: Path, trials: Sequence[FrozenTrial]) -> list[str]:
    wanted = ["summary.json", "test.json", "best/recipe.yaml", "best/model.nemo", "report.html"]
    found = [f"{name} is missing" for name in wanted if not (folder / name).exists()]
    if found:
        return found
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    yaml.safe_load((folder / "best" / "recipe.yaml").read_text(encoding="utf-8"))
    whole = [TrialRecord.load(folder / "trials" / f"{t.number:04d}") for t in trials if t.state == TrialState.COMPLETE]
    best = min((record.best.score("wer") for record in whole if record.best), default=None)
    winner = TrialRecord.load(folder / "trials" / summary["winner"]).best
    if best is not None and winner is not None and winner.score("wer") > best:
        found.append(f"the winner has {winner.score('wer')}, and a trial that ran to its end {best}")
    return found


def best_of(folder: Path) -> float:
    """Lowest word error rate in the record of any of the search's trials."""
    found = [TrialRecord.load(path.parent) for path in (folder / "trials").glob("*/record.json")]
    return min((epoch["wer"] for record in found if record.id.isdigit() for epoch in record.epochs),
               default=float("inf"))


def rung_complaints(folder: Path, history: Sequence[Event]) -> list[str]:
    """Decisions that a driver without faults would not have taken: ASHA is asked again, in the order of the drivers.

    A driver that starts sees the epochs recorded so far and decides about none of them.
    """
    config = load_config(folder)
    records = {path.parent.name: TrialRecord.load(path.parent)
               for path in (folder / "trials").glob("*/record.json") if path.parent.name.isdigit()}
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    ended = {f"{trial.number:04d}": trial for trial in study.trials}
    asha, found, asked = None, [], set[tuple[str, int]]()
    for event in history:
        if isinstance(event, dict):
            asha = ResumableASHA.of(config, "rank")
            for trial, count in event.items():
                if trial in records:
                    seen = records[trial]
                    asha.replay([TrialRecord(seen.folder, seen.recipe, seen.seed, epochs=seen.epochs[:count])])
                    asked |= {(trial, epoch) for epoch in range(1, count + 1)}
            continue
        trial, epoch = event
        if asha is None or event in asked or trial not in records:
            continue
        asked.add(event)
        told = ended[trial].intermediate_values
        if epoch > len(told):  # the driver trains it on after the search, or was killed before it told
            continue
        has_gone_on = len(told) > epoch
        stops = _stops(asha, records[trial], epoch)
        if stops == has_gone_on and ended[trial].state in (TrialState.COMPLETE, TrialState.PRUNED):
            found.append(f"trial {trial} {'went on' if has_gone_on else 'was stopped'} after epoch {epoch}, and the "
                         "rungs say otherwise")
    return found


def _stops(asha: ResumableASHA, record: TrialRecord, epoch: int) -> bool:
    """What ASHA decides about a trial that reports this epoch."""
    trial = SimpleNamespace(config=Job(id=record.id, recipe=record.recipe, seed=record.seed).parameters())
    asha.on_trial_add(None, trial)
    decision = asha.on_trial_result(None, trial, record.epochs[epoch - 1].flat())
    asha.on_trial_remove(None, trial)
    return str(decision) == str(ResumableASHA.STOP)
