"""Studies that are killed for real, once each way; and that what looks at them afterwards would notice the harm."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from faults import measure, table
from intact import Event, best_of, complaints, rung_complaints
from optuna.trial import TrialState
from victims import KINDS
from watched_study import Ledger

from search.config import StudyConfig
from search.records.fingerprints import Identity
from search.records.run_folder import RunFolder
from search.records.trial_record import Epoch, TrialRecord, write_failure
from search.tuning.optuna_study import open_study, trial_id
from spaces.recipe import Recipe

EPOCHS = 9

WERS = {0: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.32], 1: [0.95], 2: [0.85, 0.8, 0.75]}
"""Of three trials: with rungs after the epochs 1 and 3, the first runs to its end and the others are stopped."""


def epoch(number: int, wer: float) -> Epoch:
    return Epoch(epoch=number, metrics={"wer": wer, "cer": wer, "best_wer": wer, "rank": wer / 2},
                 train_s=1.0 * number, outside_s=0.1, to_first_step_s=0.1, gpu_s=0.0)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The folder of a study that ended."""
    run = RunFolder.open(StudyConfig(out=str(tmp_path / "study"), trials=3, max_epochs=EPOCHS, grace_epochs=1,
                                     reduction_factor=3), resume=False)
    run.begin(Identity(corpus=(), source="", space="", features=""))
    study, recipe = open_study(run.path / "study.db", 0), Recipe()
    recipe = replace(recipe, training=replace(recipe.training, epochs=EPOCHS))
    for number, wers in WERS.items():
        trial = study.ask()
        if number == 1:
            trial.set_user_attr("hand_recipe", "letters_kept")
        epochs = [epoch(at, wer) for at, wer in enumerate(wers, 1)]
        folder = run.trials / trial_id(number)
        TrialRecord(folder, recipe, 0, epochs=epochs).save()
        for one in epochs:
            trial.report(one["rank"], one.epoch)
        if len(wers) == EPOCHS:
            study.tell(trial, min(wers) / 2)
        else:
            study.tell(trial, state=TrialState.PRUNED)
    for name in ("test.json", "report.html", "best/recipe.yaml", "best/model.nemo"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("{}")
    (run.path / "summary.json").write_text(json.dumps({"winner": "0000"}))
    return run.path


def cut(folder: Path, epochs: list[Epoch]) -> None:
    record = TrialRecord.load(folder)
    record.epochs = epochs
    record.save()


def test_whole_study_has_nothing_to_complain_of(whole: Path) -> None:
    assert complaints(whole) == [] and best_of(whole) == 0.3


def test_trial_that_is_lost_or_still_open_is_noticed(whole: Path) -> None:
    open_study(whole / "study.db", 0).ask()
    assert complaints(whole) == ["4 trials of 3 in study.db", "trial 0003 is RUNNING"]
    (whole / "trials" / "0007").mkdir()
    (whole / "trials" / "0007" / "record.json").write_bytes((whole / "trials" / "0000" / "record.json").read_bytes())
    assert "trials/0007 is of no trial in study.db" in complaints(whole)
    config = (whole / "config.yaml").read_text()
    (whole / "config.yaml").write_text(config.replace("trials: 3", "trials: 5"))
    assert complaints(whole)[0] == "4 trials of 5 in study.db"


def test_epoch_that_is_repeated_missing_or_not_told_is_noticed(whole: Path) -> None:
    folder = whole / "trials" / "0002"
    epochs = TrialRecord.load(folder).epochs
    cut(folder, [*epochs, epochs[-1]])
    assert "trial 0002 has the epochs [1, 2, 3, 3] in its record" in complaints(whole)
    cut(folder, epochs[:2])
    assert "trial 0002 has other epochs or values in study.db ([1, 2, 3]) than in its record ([1, 2])" in complaints(
        whole)
    cut(folder, [*epochs[:2], replace(epochs[2], metrics={"wer": 0.1, "rank": 0.1, "best_wer": 0.1})])
    assert len(complaints(whole)) == 1
    folder = whole / "trials" / "0000"
    cut(folder, TrialRecord.load(folder).epochs[:5])
    assert "trial 0000 is COMPLETE after 5 of 9 epochs" in complaints(whole)


def test_hand_recipe_that_is_trained_on_after_the_search_is_no_complaint(whole: Path) -> None:
    cut(whole / "trials" / "0001", [epoch(at, 0.95 / at) for at in range(1, EPOCHS + 1)])
    assert complaints(whole) == [] and best_of(whole) == 0.95 / EPOCHS
    told = WERS[2]
    cut(whole / "trials" / "0002", [epoch(at, wer) for at, wer in enumerate(told + [0.7] * (EPOCHS - len(told)), 1)])
    assert "trial 0002 is PRUNED after 9 of 9 epochs" in complaints(whole), "it is no hand recipe"


def test_trial_that_failed_is_noticed_but_for_the_reason_that_was_meant(whole: Path) -> None:
    study = open_study(whole / "study.db", 0)
    trial = study.ask()
    trial.set_user_attr("reason", "RuntimeError: told to raise")
    study.tell(trial, state=TrialState.FAIL)
    config = (whole / "config.yaml").read_text()
    (whole / "config.yaml").write_text(config.replace("trials: 3", "trials: 4"))
    assert complaints(whole, may_fail="told to raise") == []
    assert complaints(whole, may_fail="full") == complaints(whole) == [
        "trial 0003 failed: RuntimeError: told to raise"]
    trial = study.ask()
    write_failure(whole / "trials" / "0004", "its process was lost")
    study.tell(trial, state=TrialState.FAIL)
    assert "trial 0004 failed: its process was lost" in complaints(whole)


def test_winner_that_is_worse_than_a_trial_or_missing_is_noticed(whole: Path) -> None:
    (whole / "summary.json").write_text(json.dumps({"winner": "0002"}))
    assert complaints(whole) == ["the winner has 0.75, and a trial that ran to its end 0.3"]
    (whole / "best" / "model.nemo").unlink()
    assert complaints(whole) == ["best/model.nemo is missing"]


def test_stops_are_those_of_the_rungs(whole: Path) -> None:
    lines: list[Event] = [("0000", 1), ("0000", 2), ("0001", 1), ("0002", 1), ("0000", 3), ("0002", 2), ("0002", 3)]
    lines += [("0000", at) for at in range(4, 10)]
    assert rung_complaints(whole, [{}, *lines]) == []
    # After a kill the records fill the rungs again, and an epoch that is told again decides nothing.
    resumed: list[Event] = [{}, *lines[:4], {"0000": 2, "0001": 1, "0002": 1}, ("0000", 1), *lines[4:]]
    assert rung_complaints(whole, resumed) == []
    forgotten: list[Event] = [{}, *lines[:2], {}, ("0001", 1), *lines[4:]]
    assert rung_complaints(whole, forgotten) == [
        "trial 0001 was stopped after epoch 1, and the rungs say otherwise"]
    assert rung_complaints(whole, [{}, ("0001", 1)]) == [
        "trial 0001 was stopped after epoch 1, and the rungs say otherwise"]


def test_ledger_notices_epochs_that_vanish_or_are_trained_again(whole: Path) -> None:
    ledger, folder = Ledger(whole / "trials"), whole / "trials" / "0002"
    ledger.look()
    epochs = TrialRecord.load(folder).epochs
    assert ledger.count("0002") == 3 and ledger.best() == 0.3 and ledger.complaints == []
    cut(folder, epochs)
    ledger.look()
    assert ledger.complaints == []  # a trial that goes on writes its record again
    cut(folder, [*epochs[:2], replace(epochs[2], train_s=3.5)])
    ledger.look()
    assert ledger.complaints.pop() == "trial 0002, epoch 3 was recorded twice"
    cut(folder, epochs[:2])
    ledger.look()
    assert ledger.complaints.pop() == "trial 0002 had 3 epochs recorded, and then 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus and its features are made once for all studies of this file."""
    return tmp_path_factory.mktemp("faults")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("driver", "memory")])
def test_study_is_whole_after(kind: str, folder: Path) -> None:
    """The driver is killed in test_search_study.py; memory is the whole machine's, and so the benchmark's alone."""
    # Where one may fail, enough others run to their end: else the best of the stopped ones would be trained on.
    trials = 8 if kind == "raise" else 4
    row = measure(kind, 1, folder, seed=0, trials=trials, epochs=EPOCHS)
    if row.left_out:
        pytest.skip(f"{row.left_out}: this check did not run")
    assert row.wrong == [], "\n".join(row.wrong)
    assert (row.times, row.trials_lost, row.epochs_repeated) == (1, 0, 0)
    assert f"| {kind} | 1 | 1 | {trials} | 0 | 0 |" in "\n".join(table([row]))
    failed = list(folder.glob(f"{kind}-0/trials/*/failure.json"))
    assert len(failed) == (kind == "raise")
