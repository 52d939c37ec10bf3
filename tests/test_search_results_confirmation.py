"""The best recipes and the best hand recipe are confirmed on equal terms, and what cannot be told apart is a tie."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from budgets import HOUR, Clock, opened, study
from told_study import EPOCHS, candidate, make_run, write_trial

from search.records.run_folder import RunFolder
from search.records.trial_record import Epoch, TrialRecord, write_failure
from search.results import confirmation as module
from search.results.confirmation import Confirmed, RemainingBudget, affordable, confirm
from search.speech.task import SpeechTask
from search.study import best_trials, hand_recipes
from search.trials.budget import Amounts, Budget
from search.trials.context import TrialContext
from search.trials.interrupt import Interrupt
from search.tuning.optuna_study import open_study
from spaces.recipe import Recipe, TrainingRecipe

pytestmark = pytest.mark.timeout(60)


def told(run: RunFolder, *trials: tuple[int, float, str | None]) -> optuna.Study:
    """A study of trials: epochs, share of words heard wrong, name of a hand recipe."""
    run.path.mkdir(parents=True, exist_ok=True)
    study = open_study(run.path / "study.db", seed=1)
    for number, (num_epochs, share, hand) in enumerate(trials):
        record = write_trial(run.trials, f"{number:04d}", share, num_epochs=num_epochs)
        trial = study.ask()
        if hand:
            trial.set_user_attr("hand_recipe", hand)
        for epoch in record.epochs:
            trial.report(epoch["wer"], epoch.epoch)
        study.tell(trial, min(trial.study.trials[number].intermediate_values.values()))
    return study


@pytest.mark.parametrize(("trials", "wanted"), [
    ([(EPOCHS, 0.5, "a"), (EPOCHS, 0.2, None), (EPOCHS, 0.3, None), (EPOCHS, 0.4, "b")], ["0001", "0002", "0003"]),
    ([(EPOCHS, 0.1, "a"), (EPOCHS, 0.2, None), (EPOCHS, 0.3, None)], ["0000", "0001"]),
    ([(1, 0.1, "a"), (2, 0.8, "b"), (2, 0.9, "c"), (EPOCHS, 0.2, None)], ["0003", "0001"]),
    ([(EPOCHS, 0.2, None), (EPOCHS, 0.3, None), (EPOCHS, 0.4, None)], ["0000", "0001"]),
], ids=["not among the best", "the best", "stopped", "none"])
def test_best_hand_recipe_of_those_that_got_furthest_comes_last(
        tmp_path: Path, trials: list[tuple[int, float, str | None]], wanted: list[str]) -> None:
    run, room = make_run(tmp_path, confirm=2)
    study = told(run, *trials)
    assert [record.id for record in best_trials(study, run, room.budget)] == wanted
    assert set(hand_recipes(study).values()) == {name for *_, name in trials if name}


def test_stopped_hand_recipe_is_trained_to_its_end_and_on_all_seeds(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path, seeds=2, confirm=1)
    study = told(run, (1, 0.7, "letters_kept"), (EPOCHS, 0.2, None))
    asked: list[str] = []

    def run_jobs(context: Any, *, jobs: list[dict[str, Any]], **_: Any) -> None:
        for job in jobs:
            asked.append(job.id)
            write_trial(run.trials, job.id, 0.2 if job.id.startswith("0001") else 0.6, seed=job.seed)

    monkeypatch.setattr(module, "run_jobs", run_jobs)  # in place of Ray
    names = hand_recipes(study)
    confirmed = confirm(best_trials(study, run, room.budget), run, room, Interrupt(), names)
    assert asked == ["0000", "0001-seed1", "0000-seed1"]
    assert [(c.id, len(c.trainings), c.hand_recipe) for c in confirmed.candidates] == [
        ("0001", 2, None), ("0000", 2, "letters_kept")]
    assert all(t.is_complete for c in confirmed.candidates for t in c.trainings) and confirmed.left_out == []
    assert confirmed.verdict(seed=0).startswith(
        "better than runner-up 0000, the best hand recipe (letters_kept), by ")
    assert confirm(best_trials(study, run, room.budget), run, room, Interrupt(), names) == confirmed
    assert len(asked) == 3, "what ended is kept"


def test_recipe_that_does_not_reach_its_end_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    run, room = make_run(tmp_path, seeds=1, confirm=1)
    study = told(run, (1, 0.1, "letters_kept"), (EPOCHS, 0.2, None))
    monkeypatch.setattr(module, "run_jobs",
                        lambda *_, jobs, **__: write_failure(run.trials / jobs[0].id, "the training loss is nan"))
    confirmed = confirm(best_trials(study, run, room.budget), run, room, Interrupt(), hand_recipes(study))
    assert [c.id for c in confirmed.candidates] == ["0001"] and confirmed.hand is None
    assert "recipe 0000 is not confirmed: the training loss is nan" in capsys.readouterr().out
    assert confirmed.verdict(seed=0) == "one recipe was confirmed, so there is nothing to compare it with"


def test_winner_that_did_not_reach_its_end_is_not_said_to_be_confirmed(tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path, seeds=2, confirm=1)
    study = told(run, (2, 0.2, None))  # a budget ended the search there
    monkeypatch.setattr(module, "run_jobs", lambda *_, jobs, **__: [
        write_failure(run.trials / job.id, "the training loss is nan") for job in jobs])
    confirmed = confirm(best_trials(study, run, room.budget), run, room, Interrupt(), {})
    assert confirmed.winner.id == "0000" and confirmed.verdict(seed=0) == (
        "no recipe was trained to its end, so nothing is confirmed or compared")


def test_verdict_names_the_runner_up_and_the_best_hand_recipe(tmp_path: Path) -> None:
    best, second, hand, worst = (write_trial(tmp_path, f"{i:04d}", share)
                                 for i, share in enumerate((0.3, 0.3, 0.8, 0.9)))
    candidates = [candidate(best), candidate(second), candidate(hand, hand_recipe="a"),
                  candidate(worst, hand_recipe="b")]
    confirmed = Confirmed(candidates=candidates, left_out=[])
    tie, better, careful = confirmed.verdict(seed=0).split("; ")
    assert tie.startswith("a tie with runner-up 0001 within noise")
    assert better.startswith("better than trial 0002, the best hand recipe (a), by ")
    assert careful == "the winner was chosen on dev and the hand recipe was not, which flatters the difference"
    compared = confirmed.comparisons(seed=0)
    assert {name: other.id for name, (other, _) in compared.items()} == {"runner_up": "0001", "hand_recipe": "0002"}
    assert confirmed.verdict(0, flattery=0.031).endswith("; " + careful + " by about 3.1% absolute")
    assert confirmed.verdict(0, flattery=0.6).endswith(careful + " by about 60.0% absolute: it may be no better")
    assert confirmed.verdict(0, flattery=0.0) == f"{tie}; {better}", "far ahead, it would be chosen on any clips"
    without = Confirmed(candidates=candidates[:2], left_out=[])
    assert without.verdict(seed=0).endswith("; no hand recipe was confirmed")
    by_hand = Confirmed(candidates=candidates[2:], left_out=[])
    assert list(by_hand.comparisons(seed=0)) == ["runner_up"] and ";" not in by_hand.verdict(seed=0)


def record(trials: Path, name: str, num_epochs: int, wer: float = 0.5) -> TrialRecord:
    epochs = [Epoch(epoch=i, metrics={"wer": wer, "cer": wer, "best_wer": wer},
                    train_s=HOUR * i, outside_s=1.0, to_first_step_s=1.0, gpu_s=0.0)
              for i in range(1, num_epochs + 1)]
    made = TrialRecord(trials / name, Recipe(training=TrainingRecipe(epochs=8)), 0, epochs=epochs)
    made.save()
    made.best_weights.touch()
    return made


def room(tmp_path: Path, hours: float) -> RemainingBudget:
    """Room for trainings of an hour an epoch, one after the other."""
    context: Any = TrialContext(
        study="s", folder=tmp_path, task=SpeechTask(store=tmp_path, vocabularies=tmp_path),
        num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, timeout_s=math.inf, wandb="off")
    budget = Budget(tmp_path / "spent.json", Amounts(wall_s=hours * HOUR, gpu_s=math.inf, cost=math.inf), now=Clock())
    budget.observe("0000", 1, 0.5, train_s=HOUR, outside_s=1.0)
    return RemainingBudget(budget, context, 1)


@pytest.mark.parametrize(("hours", "plan"), [
    (40, (["0001", "0000"], [1, 2])),  # 32 h on the other seeds
    (30, (["0001", "0000"], [1])),
    (10, (["0001", "0000"], [])),  # both have ended, and cost nothing
    (0, (["0001", "0000"], [])),
])
def test_other_seeds_are_given_up_first(tmp_path: Path, hours: float, plan: tuple[list[str], list[int]]) -> None:
    found = [record(tmp_path, name, 8) for name in ("0001", "0000")]
    kept, seeds = affordable(found, study(seeds=3, max_epochs=8), room(tmp_path, hours))
    assert ([r.id for r in kept], seeds) == plan


@pytest.mark.parametrize(("hours", "plan"), [
    (14, (["0001", "0000"], [])),  # 2 x 5 epochs to the end
    (7, (["0001"], [])), (1, (["0001"], []))])
def test_best_recipe_is_trained_to_its_end_in_any_case(tmp_path: Path, hours: float,
                                                       plan: tuple[list[str], list[int]]) -> None:
    found = [record(tmp_path, name, 3) for name in ("0001", "0000")]
    kept, seeds = affordable(found, study(max_epochs=8), room(tmp_path, hours))
    assert ([r.id for r in kept], seeds) == plan


def test_trainings_that_have_ended_stay_confirmed_when_nothing_is_left(tmp_path: Path) -> None:
    found = [record(tmp_path, name, 8) for name in ("0001", "0000", "0000-seed1")][:2]
    (tmp_path / "0001-seed1").mkdir()
    write_failure(tmp_path / "0001-seed1", "the training loss is nan")
    kept, seeds = affordable(found, study(max_epochs=8), room(tmp_path, hours=0))
    assert ([r.id for r in kept], seeds) == (["0001", "0000"], [1])


def test_killed_confirmation_goes_on_with_the_same_recipes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, study(max_epochs=8))
    found = open_study(tmp_path / "study.db", seed=1)
    for name, wers in {"0000": [0.9, 0.8], "0001": [0.9, 0.7], "0002": [0.6]}.items():
        trial = found.ask()
        for epoch, wer in enumerate(wers, 1):
            trial.report(wer, epoch)
        found.tell(trial, state=optuna.trial.TrialState.PRUNED)
        record(run.trials, name, len(wers), wers[-1])
    before = [r.id for r in best_trials(found, run, opened(tmp_path, Clock()))]
    record(run.trials, "0001", 8, 0.2)  # trained to its end, and then the kill
    assert [r.id for r in best_trials(found, run, opened(tmp_path, Clock()))] == before == ["0001", "0000"]
