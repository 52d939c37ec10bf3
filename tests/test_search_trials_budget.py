"""Budgets of wall time, GPU hours and money: the first one reached ends the search, the winner is confirmed within
them, and what was spent outlives a kill."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from budgets import HOUR, Clock, opened, study

from search import cluster
from search.capacity.estimate import to_confirm
from search.command_line import commands
from search.command_line.arguments import parse_command_line
from search.config import ConfigError, StudyConfig
from search.records.fingerprints import Identity
from search.records.measured import Allowed, Spent
from search.records.run_folder import RunFolder
from search.results.summary import _spent_line
from search.trials.budget import MAX_RESERVED, Amounts, Budget, format_duration
from search.trials.run_trials import BudgetMeter

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[1]


# --- what is spent ---------------------------------------------------------------------------------------------------


def test_gpu_hours_are_gpus_times_the_hours_that_trials_hold_them(tmp_path: Path) -> None:
    now = Clock()
    budget = opened(tmp_path, now)
    meter = BudgetMeter(budget, gpus=0.5, best="best_wer")
    for seconds, statuses in [(100, []), (1000, ["RUNNING"] * 3), (50, ["PENDING", "TERMINATED"]), (10, ["RUNNING"])]:
        for _ in range(4):  # Tune steps several times a second
            meter.on_step_end(1, [SimpleNamespace(status=status) for status in statuses])
        now.now += seconds
    assert budget.spent().gpu_s == 1000 * 1.5 + 10 * 0.5
    budget.hold(0)
    now.now += 1000
    assert budget.spent() == Amounts(wall_s=2160, gpu_s=1505)


def test_spent_goes_on_where_a_killed_driver_left_it(tmp_path: Path) -> None:
    now = Clock()
    options: dict[str, Any] = {"budget": "8h", "budget_gpu_h": 40.0, "cost_per_hour": 2.5, "budget_cost": 100.0}
    killed = opened(tmp_path, now, **options)
    killed.hold(4)
    now.now += 2 * HOUR
    killed.save()
    now.now += 1.0  # and it is killed; the hours until the resume are nobody's

    later = Clock(start=17.0)
    resumed = opened(tmp_path, later, resume=True, **options)
    assert resumed.spent() == Amounts(wall_s=2 * HOUR, gpu_s=8 * HOUR, cost=5.0)
    later.now += HOUR
    assert resumed.spent() == Amounts(wall_s=3 * HOUR, gpu_s=8 * HOUR, cost=7.5)
    assert resumed.line() == ("wall time 3h00m of 8h00m (5h00m left), GPU hours 8.00 of 40.00 (32.00 left), "
                              "cost 7.50 of 100.00 (92.50 left)")
    assert opened(tmp_path, later, resume=False).spent() == Amounts(), "a new study in the folder begins at nothing"


def test_killed_driver_has_saved_what_it_spent(tmp_path: Path) -> None:
    code = ("import sys, time\nfrom pathlib import Path\nfrom search.trials.budget import Budget\n"
            "from search.config import StudyConfig\n"
            "with Budget.open(StudyConfig(), Path(sys.argv[1]), False).kept(every_s=0.05) as budget:\n"
            "    budget.hold(2)\n    time.sleep(1)\n    print('spent', flush=True)\n    time.sleep(60)\n")
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert driver.stdout is not None and driver.stdout.readline() == "spent\n"
    time.sleep(0.2)
    driver.kill()
    driver.wait(timeout=30)
    left = Budget.open(StudyConfig(), tmp_path, True, Clock()).spent()
    assert 0.9 < left.wall_s < 30 and left.gpu_s == pytest.approx(2 * left.wall_s, rel=0.05)


def test_end_of_a_driver_is_saved_whatever_ended_it(tmp_path: Path) -> None:
    now = Clock()
    with pytest.raises(KeyboardInterrupt), opened(tmp_path, now).kept():
        now.now += 12.5
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "spent.json").read_text()) == {"wall_s": 12.5, "gpu_s": 0.0, "cost": 0.0}


def test_hours_before_the_first_price_are_paid_at_it_and_a_new_price_leaves_what_was_paid(tmp_path: Path) -> None:
    costs = []
    for price in (None, 2.0, 5.0):
        now = Clock()
        budget = opened(tmp_path, now, resume=True, cost_per_hour=price)
        now.now += HOUR
        budget.save()
        costs.append(budget.spent().cost)
    assert costs == [0.0, 4.0, 9.0]


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"wall_s": -1}', '{"wall_s": NaN}', '{"wall": 3}',
                                     '{"gpu_s": "many"}'])
def test_spent_that_cannot_be_read_is_named_with_the_mend(tmp_path: Path, content: str) -> None:
    (tmp_path / "spent.json").write_text(content)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "spent.json")) + ".*cannot be read.*delete it"):
        opened(tmp_path, Clock(), resume=True)


@pytest.mark.parametrize(("seconds", "said"), [(0, "0s"), (59.9, "59s"), (750, "12m30s"), (28_800, "8h00m"),
                                               (90_061, "25h01m")])
def test_times_are_said_as_a_person_reads_them(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


# --- the end of the search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "hours", "said"), [
    ({"budget": "8h", "budget_gpu_h": 40.0}, 8, "wall time 8h00m of 8h00m is spent: the search ends"),
    ({"budget": "80h", "budget_gpu_h": 40.0}, 10, "GPU hours 40.00 of 40.00 is spent: the search ends"),
    ({"budget": "80h", "cost_per_hour": 25.0, "budget_cost": 100.0}, 4, "cost 100.00 of 100.00 is spent"),
    ({"budget_gpu_h": 40.0, "cost_per_hour": 2.0, "budget_cost": 100.0}, 10, "GPU hours"),
])
def test_first_budget_reached_ends_the_search(tmp_path: Path, changes: dict[str, Any], hours: int, said: str) -> None:
    now = Clock()
    budget = opened(tmp_path, now, **changes)
    budget.hold(4)
    now.now += hours * HOUR - 1
    assert budget.search_end(Amounts()) is None
    now.now += 1
    assert said in (budget.search_end(Amounts()) or "")


def test_price_alone_limits_nothing(tmp_path: Path) -> None:
    now = Clock()
    budget = opened(tmp_path, now, cost_per_hour=2.5)
    now.now += 1e6 * HOUR
    assert budget.search_end(budget.need([[30]], concurrency=1, gpus=8)) is None and budget.line() == ""
    assert budget.amount_spent().cost == 2.5e6


def test_trainings_that_confirm_are_two_stages() -> None:
    config = study(max_epochs=30, confirm=2, seeds=3)
    assert to_confirm(config, furthest=30) == [[28] + [30] * 6, [30, 30]], "a hand recipe was stopped at two epochs"
    assert to_confirm(config, furthest=10) == [[20, 20, 28] + [30] * 6, [30, 30]]
    assert to_confirm(study(max_epochs=30, seeds=1, source="none", trials=2), furthest=30) == [[], []]
    assert to_confirm(study(max_epochs=30, trials=1, ablation=False), furthest=30) == [[30], []]


def test_need_follows_the_slowest_pace_and_what_runs_side_by_side(tmp_path: Path) -> None:
    budget = opened(tmp_path, Clock(), cost_per_hour=3600.0)
    assert budget.need([[30]], concurrency=2, gpus=1) == Amounts(), "nothing is known before the first epoch"
    budget.observe("0000", 3, 0.5, train_s=30.0, outside_s=5.0)
    budget.observe("0001", 1, 0.4, train_s=20.0, outside_s=1.0)
    one, two = budget.need([[4]], concurrency=2, gpus=2), budget.need([[4, 4], []], concurrency=2, gpus=2)
    three = budget.need([[4, 4, 4], [4]], concurrency=2, gpus=2)
    training_s = 4 * 20 + 5
    assert one.wall_s == two.wall_s and three.wall_s - one.wall_s == 2 * training_s
    assert [need.gpu_s for need in (one, two, three)] == [2 * training_s, 4 * training_s, 8 * training_s]
    assert one.cost == pytest.approx(one.wall_s) and budget.furthest == 3


def test_recipe_that_was_stopped_and_is_slow_costs_the_confirmation_nothing(tmp_path: Path) -> None:
    budget = opened(tmp_path, Clock())
    for name, epochs, wer in (("0000", 9, 0.5), ("0001", 2, 0.8), ("0002", 2, 0.7)):
        budget.observe(name, epochs, wer, train_s=10.0 * epochs, outside_s=0.0)
    before = budget.need([[9]], concurrency=1, gpus=0)
    budget.observe("0003", 2, 0.9, train_s=1000.0, outside_s=50.0)
    assert budget.need([[9]], concurrency=1, gpus=0) == before
    budget.observe("0003", 3, 0.9, train_s=1500.0, outside_s=50.0)
    assert budget.need([[9]], concurrency=1, gpus=0).wall_s > before.wall_s + 9 * 480, "now it would be confirmed"


@pytest.mark.parametrize("changes", [{"budget": "100h"}, {"budget_gpu_h": 200.0},
                                     {"cost_per_hour": 3.0, "budget_cost": 300.0}])
def test_search_ends_while_what_confirms_it_still_fits(tmp_path: Path, changes: dict[str, Any]) -> None:
    now, config = Clock(), study(max_epochs=30, **changes)
    budget = opened(tmp_path, now, **changes)
    budget.observe("0000", 30, 0.5, train_s=5 * HOUR, outside_s=61.0)
    reserve = budget.need(to_confirm(config, budget.furthest), concurrency=2, gpus=1)
    budget.hold(2)
    fitted = False
    while budget.search_end(reserve) is None:
        fitted = budget.has_room(reserve)
        now.now += 60
    assert fitted and not budget.has_room(reserve), "it ends in the minute in which it has to"
    assert "the rest is for confirming" in (budget.search_end(reserve) or "")


def test_search_has_at_least_half_of_a_budget_that_is_too_small(tmp_path: Path) -> None:
    now = Clock()
    budget = opened(tmp_path, now, budget="8h")
    budget.observe("0000", 1, 0.5, train_s=HOUR, outside_s=0.0)
    reserve = budget.need([[30] * 4, [30]], concurrency=1, gpus=0)
    now.now += (1 - MAX_RESERVED) * 8 * HOUR - 1
    assert budget.search_end(reserve) is None
    now.now += 1
    assert budget.search_end(reserve) and not budget.has_room(reserve)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_summary_and_card_hold_what_was_spent_and_allowed(tmp_path: Path) -> None:
    now = Clock()
    budget = opened(tmp_path, now, budget="8h", budget_gpu_h=40.0, cost_per_hour=2.5)
    budget.hold(3)
    now.now += 2 * HOUR
    spent, allowed = budget.amount_spent(), budget.amount_allowed()
    assert spent == Spent(wall_s=7200.0, gpu_h=6.0, cost=5.0)
    assert allowed == Allowed(wall_s=28_800.0, gpu_h=40.0, cost_per_hour=2.5)
    assert _spent_line(spent, allowed) == ("spent, resumes included: 2h00m of wall time (budget 8h00m), 6.00 GPU hours "
                                           "(budget 40.00), cost 5.00 at 2.5 an hour")
    fresh = opened(tmp_path, now)
    assert _spent_line(fresh.amount_spent(), fresh.amount_allowed()) == (
        "spent, resumes included: 0s of wall time, 0.00 GPU hours")


# --- bad input -------------------------------------------------------------------------------------------------------

ABOVE_0 = "it must be a finite number above 0. Leave it out for none"
A_TIME = "it must be a time above 0 such as 90s, 45m or 8h"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--trials", "0"], "trials is 0; it must be at least 1"),
    (["--trials", "-3"], "trials is -3; it must be at least 1"),
    (["--budget", "0h"], f"budget is '0h'; {A_TIME}"),
    (["--budget", "-8h"], f"budget is '-8h'; {A_TIME}"),
    (["--budget", "8"], f"budget is '8'; {A_TIME}"),
    (["--budget", "eight hours"], f"budget is 'eight hours'; {A_TIME}"),
    (["--budget", "9" * 400 + "h"], A_TIME),
    (["--budget", ""], "--budget has an empty value"),
    (["--budget-gpu-h", "0"], f"budget_gpu_h is 0.0; {ABOVE_0}"),
    (["--budget-gpu-h", "-4"], f"budget_gpu_h is -4.0; {ABOVE_0}"),
    (["--budget-gpu-h", "nan"], f"budget_gpu_h is nan; {ABOVE_0}"),
    (["--budget-gpu-h", "inf"], f"budget_gpu_h is inf; {ABOVE_0}"),
    (["--budget-gpu-h", "40h"], "--budget-gpu-h: the value is '40h'; it must be a number"),
    (["--budget-gpu-h", "40", "--gpus-per-worker", "0"], "budget_gpu_h is 40, and trials have 0 GPUs"),
    (["--cost-per-hour", "0"], f"cost_per_hour is 0.0; {ABOVE_0}"),
    (["--cost-per-hour", "-2.5"], f"cost_per_hour is -2.5; {ABOVE_0}"),
    (["--cost-per-hour", "2.50€"], "--cost-per-hour: the value is '2.50€'; it must be a number"),
    (["--cost-per-hour", "2.5", "--budget-cost", "0"], f"budget_cost is 0.0; {ABOVE_0}"),
    (["--cost-per-hour", "2.5", "--budget-cost", "-1"], f"budget_cost is -1.0; {ABOVE_0}"),
    (["--budget-cost", "100"], "budget_cost is 100, and cost_per_hour is not set"),
])
def test_bad_budget_is_one_line_and_exit_code_2_and_touches_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
        message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        commands.run([*arguments, "--out", "run", "--cache", "cache"])
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (2, "")
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err, printed.err
    assert list(tmp_path.iterdir()) == []


def test_bad_budget_of_a_resumed_study_leaves_its_folder_as_it_is(tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("version: 1\ntrials: 9\n")
    (tmp_path / "spent.json").write_text('{"wall_s": 5.0}')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as stopped:
        commands.run(["--resume", str(tmp_path), "--budget-cost", "100"])
    assert stopped.value.code == 2 and "--cost-per-hour" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_gpu_hours_on_a_cluster_without_gpus_are_refused_before_anything_is_written(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext)
    monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 2.0, "GPU": 0.0})
    monkeypatch.chdir(tmp_path)
    code = commands.run(["--budget-gpu-h", "40", "--out", "run", "--cache", "cache"])
    error = capsys.readouterr().err
    assert code == commands.FAILED and error.count("\n") == 1
    assert "budget_gpu_h is 40, and trials have 0 GPUs" in error and "--budget or --trials" in error
    assert list(tmp_path.iterdir()) == []


def test_budgets_mix_and_a_resumed_study_may_raise_them(tmp_path: Path) -> None:
    flags = ["--trials", "200", "--budget", "8h", "--budget-gpu-h", "40", "--cost-per-hour", "2.5", "--budget-cost",
             "100", "--out", str(tmp_path)]
    config = parse_command_line("A study.", flags)[0]
    RunFolder.open(config, resume=False).begin(Identity(corpus=(), source="", space="", features=""))
    more = parse_command_line("A study.", ["--resume", str(tmp_path), "--budget-cost", "200"])[0]
    run = RunFolder.open(more, resume=True)
    assert (run.config.budget, run.config.budget_gpu_h, run.config.budget_cost) == ("8h", 40.0, 200.0)


# --- a whole study ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_study_counts_on_and_ends_by_its_budget(shared_data: Path, tmp_path: Path) -> None:
    """Killed in its search and resumed with a budget of a minute more, it confirms what it found within it."""
    out, more_s = tmp_path / "study", 60
    command = [sys.executable, "search/run.py", "--corpus", str(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz"),
               "--source", str(shared_data / "reference" / "quartznet5x5_small_random.nemo"), "--cache",
               str(tmp_path / "cache"), "--out", str(out), "--grace-epochs", "1", "--trials", "500", "--max-epochs",
               "8", "--wandb", "off", "--concurrency", "2", "--budget", "2h", "--cost-per-hour", "36",
               "--allow-overlap"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    shown = next(line for line in process.stdout if "epoch 3/8" in line)
    assert re.search(r"\| wall time \w+ of 2h00m \(1h\d\dm left\)$", shown.rstrip())
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    before = json.loads((out / "spent.json").read_text())
    assert before["wall_s"] > 5 and before["gpu_s"] == 0
    assert before["cost"] == pytest.approx(before["wall_s"] / 100)
    time.sleep(3)  # Ray's own processes see that their driver is gone

    limit_s = int(before["wall_s"]) + more_s
    resumed = subprocess.run([sys.executable, "search/run.py", "--resume", str(out), "--budget", f"{limit_s}s"],
                             cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    first, ended = (next(line for line in resumed.stdout.splitlines() if words in line)
                    for words in ("left)", "the search ends"))
    assert first.startswith("wall time") and f" of {format_duration(limit_s)} (" in first
    assert f"of {format_duration(limit_s)}" in ended
    summary = json.loads((out / "summary.json").read_text())
    assert before["wall_s"] < summary["spent"]["wall_s"] < limit_s + 15, "at most the last training is over"
    assert summary["spent"]["cost"] == pytest.approx(summary["spent"]["wall_s"] / 100, abs=1e-3)
    assert summary["budget"]["wall_s"] == limit_s and sum(summary["trials"].values()) < 500
    assert f"(budget {format_duration(limit_s)})" in (out / "best" / "card.txt").read_text()
    assert json.loads((out / "spent.json").read_text())["wall_s"] >= summary["spent"]["wall_s"]
    print(resumed.stdout)
