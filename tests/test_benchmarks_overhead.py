"""What the overhead benchmark counts, and that its stub study is a whole one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import overhead
import processes
import pytest
import stub_study
from stub_study import CUARZO, OPTUNA, PARTS, TPE, TUNE, Clock

from search.records.trial_record import TrialRecord
from search.tuning.optuna_study import open_study
from spaces.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


def test_call_inside_another_counts_for_its_own_part_alone() -> None:
    clock = Clock()
    inner = clock.timed(TPE, lambda: time.sleep(0.05))
    outer = clock.timed(OPTUNA, lambda: (time.sleep(0.02), inner()))
    before = clock.read()
    outer()
    after = clock.read()
    spent = {part: after[part] - before[part] for part in PARTS}
    assert 0.05 <= spent[TPE] < 0.07 and 0.02 <= spent[OPTUNA] < 0.04
    assert spent[TUNE] < 0.01 and spent[CUARZO] == 0


def test_charged_calls_are_put_back() -> None:
    calls = [(owner, name, getattr(owner, name)) for owners in PARTS.values() for owner, names in owners
             for name in names]
    with Clock().charging():
        assert all(getattr(owner, name) is not call for owner, name, call in calls)
    assert all(getattr(owner, name) is call for owner, name, call in calls)


def test_windows_are_the_first_the_middle_and_the_last_trials() -> None:
    ends = [dict.fromkeys(PARTS, 0.0) | {TPE: float(number**2)} for number in range(10)]  # 1, 3, 5 ... 17 s a trial
    first, middle, last = stub_study.windows(ends, [0.5] * 10)
    assert [(row["from"], row["to"]) for row in (first, middle, last)] == [(2, 4), (5, 7), (8, 10)]
    assert [row["parts"][TPE] for row in (first, middle, last)] == [3, 9, 15]
    assert last["total"] == last["ours"] == 15 and last["records"] == 0.5


def test_curve_is_decided_by_recipe_and_seed() -> None:
    recipe = Recipe()
    epochs = list(stub_study.curve(recipe, Random(1)))
    assert epochs == list(stub_study.curve(recipe, Random(1))) != list(stub_study.curve(recipe, Random(2)))
    assert len(epochs) == recipe.training.epochs and epochs[-1]["wer"] < epochs[0]["wer"]


def test_memory_and_children_of_a_process_are_seen() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        assert child.pid in processes.family(os.getpid())
        assert processes.pss_bytes(os.getpid()) > processes.pss_bytes(child.pid) > 0
        child.terminate()
    assert processes.pss_bytes(child.pid) == 0 and processes.title(child.pid) == ""


def test_way_whose_cpus_were_never_free_is_said_so() -> None:
    row = dict.fromkeys(overhead.COLUMNS, 1.0) | {"title": "some way", "free_after_stop_s": None}
    assert list(overhead.table([row]))[-1] == "| some way | 1.00 | 1.00 | 1.00 | never | 1.00 | 1.00 |"


def test_too_few_trials_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        overhead.arguments(["--trials", "1"])
    assert "must be at least 2" in capsys.readouterr().err


@pytest.mark.slow
def test_stub_study_tells_and_records_every_trial(tmp_path: Path) -> None:
    out, figures = tmp_path / "study", tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), "--stub", "--trials", "12", "--json", str(figures),
         "--out", str(out)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    trials = open_study(out / "study.db", seed=0).trials
    assert len(trials) == 12 and all(trial.state.is_finished() for trial in trials)
    for trial in trials:
        record = TrialRecord.load(out / "trials" / f"{trial.number:04d}")
        assert {epoch.epoch: epoch["rank"] for epoch in record.epochs} == trial.intermediate_values
    values = json.loads(figures.read_text())
    assert sum(values["states"].values()) == 12
    assert values["epochs"] == sum(len(trial.intermediate_values) for trial in trials)
    for row in values["windows"]:
        assert row["total"] == pytest.approx(sum(row["parts"].values()))
        assert 0 < row["ours"] < row["total"]
        assert f"| {row['from']} to {row['to']} | {1000 * row['total']:.1f} |" in done.stdout
