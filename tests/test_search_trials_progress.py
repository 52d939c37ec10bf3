"""The live table and the lines: what a person sees of running trials."""

import copy
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from budgets import Clock, opened
from rich.console import Console

from search.records.job import Job
from search.speech.task import MEASURES
from search.trials.progress import LiveTable, Progress, ProgressLines, progress
from spaces.recipe import OptimizerRecipe, Recipe, TrainingRecipe, TransferRecipe, VocabularyRecipe

EIGHT_EPOCHS = Job(id="0000", recipe=Recipe(training=TrainingRecipe(epochs=8)), seed=0)

pytestmark = pytest.mark.timeout(60)

RECIPE = Recipe(optimizer=OptimizerRecipe(name="lion", lr=1e-4), training=TrainingRecipe(epochs=3),
                vocabulary=VocabularyRecipe(kind="bpe", size=128),
                transfer=TransferRecipe(decoder="fresh", frozen_epochs=1, batchnorm="keep"))


def trial(name: str) -> Any:
    return SimpleNamespace(config=Job(id=name, recipe=RECIPE, seed=0).parameters())


def result(name: str, epoch: int, wer: float, best: float | None = None) -> dict[str, Any]:
    return {"trial": name, "epoch": epoch, "wer": wer, "cer": wer / 2, "best_wer": best or wer, "is_new": True,
            "audio_h": 0.5 * epoch, "train_s": 20.0 * epoch}


def drawn(table: LiveTable, width: int = 160, height: int = 25) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(table.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_shows_running_trials_first_and_the_best_of_those_that_ended() -> None:
    table = LiveTable(MEASURES["wer"], 20)
    for i in range(12):
        table.on_trial_start(1, [], trial(f"{i:04d}"))
        table.on_trial_result(1, [], trial(f"{i:04d}"), result(f"{i:04d}", 1 + 2 * (i == 3), 0.9 - 0.01 * i))
        if i != 5:
            table.on_trial_complete(1, [], trial(f"{i:04d}"))
    lines = drawn(table).splitlines()
    assert lines[0].split() == ["trial", "epoch", "WER", "best", "CER", "speed", "recipe"]
    assert lines[1].split()[:5] == ["0005", "running", "1/3", "85.0%", "85.0%"]
    assert "90x" in lines[1].split() and "lion 1.0e-04, cosine, bpe 128, fresh, BatchNorm keep, frozen 1" in lines[1]
    assert [line[:4] for line in lines[2:10]] == ["0011", "0010", "0009", "0008", "0007", "0006", "0004", "0003"]
    assert lines[2].split()[1:3] == ["stopped", "1/3"] and "done" in lines[9]
    assert lines[10].strip() == "3 more ended"
    assert lines[11].startswith("best WER 79.0%, 11/20 trials done, about 0 s left")


def test_trial_without_an_epoch_has_failed_and_one_that_goes_on_runs_again() -> None:
    table = LiveTable(MEASURES["wer"], 2)
    table.on_trial_start(1, [], trial("0000"))
    assert "0/3" in drawn(table)
    table.on_trial_error(1, [], trial("0000"))
    assert "failed" in drawn(table)
    table.on_trial_start(1, [], trial("0000"))
    assert "failed" not in drawn(table) and "running" in drawn(table)


def test_trial_that_goes_on_shows_where_it_stands_and_has_not_failed_when_it_is_stopped_there() -> None:
    table = LiveTable(MEASURES["wer"], 2)
    table.on_trial_start(1, [], trial("0000"))
    table.on_trial_result(1, [], trial("0000"), result("0000", 2, 0.25) | {"is_new": False})
    assert "2/3" in drawn(table)
    table.on_trial_complete(1, [], trial("0000"))
    assert "stopped" in drawn(table) and "2/3" in drawn(table)


def test_resumed_study_counts_what_ended_before_and_paces_itself_by_what_ended_since(
        capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(MEASURES["wer"], 20, so_far=(15, 0.25))
    lines.on_trial_result(1, [], trial("0015"), result("0015", 1, 0.5))
    assert capsys.readouterr().out.endswith("| best WER 25.0%, 15/20 trials done\n")
    lines._started_at -= 600
    lines.on_trial_complete(1, [], trial("0015"))
    lines.on_trial_result(1, [], trial("0016"), result("0016", 1, 0.5))
    assert capsys.readouterr().out.endswith("| best WER 25.0%, 16/20 trials done, about 40 min left\n")


def test_table_is_drawn_in_place_and_what_others_print_stands_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    table = LiveTable(MEASURES["wer"], 1, console=Console(file=screen, force_terminal=True, width=120))
    table.setup()
    copy.deepcopy(table)  # as Tune does
    table.on_trial_start(1, [], trial("0000"))
    table.on_trial_result(1, [], trial("0000"), result("0000", 2, 0.25))
    print("a word of another")
    table.close()
    said = screen.getvalue()
    assert "a word of another" in said and said.rindex("0000") > said.index("a word of another")
    assert "best WER 25.0%, 0/1 trials done, about 20 s left" in said
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_column_of_figures_is_whole_and_the_recipe_alone_shrinks(width: int) -> None:
    table, names = LiveTable(MEASURES["wer"], 500), ("0042", "0042-seed1", "0042-scratch")
    for name in names:
        table.on_trial_start(1, [], trial(name))
        table.on_trial_result(1, [], trial(name), result(name, 2, 1.0))
    table.on_trial_complete(1, [], trial("0042"))
    lines = drawn(table, width).splitlines()
    assert lines[0].split()[:6] == ["trial", "epoch", "WER", "best", "CER", "speed"] and max(map(len, lines)) <= width
    assert [line.split()[:7] for line in lines[1:4]] == [
        [name, "stopped" if name == "0042" else "running", "2/3", "100.0%", "100.0%", "50.0%", "90x"]
        for name in (*names[1:], names[0])]
    assert ("recipe" in lines[0]) == (width >= 80)
    assert ("BatchNorm keep, frozen 1" in lines[1]) == (width == 200)


def test_terminal_too_narrow_for_all_figures_gives_up_whole_columns_the_error_rate_last() -> None:
    table = LiveTable(MEASURES["wer"], 1)
    table.on_trial_start(1, [], trial("0000-scratch"))
    table.on_trial_result(1, [], trial("0000-scratch"), result("0000-scratch", 2, 0.25))
    assert [len(drawn(table, width).splitlines()[1].split()) for width in (59, 52, 44, 35, 28)] == [7, 6, 5, 4, 3]
    assert drawn(table, 28).splitlines()[1].split() == ["0000-scratch", "2/3", "25.0%"]


def test_low_terminal_hides_rows_and_never_what_is_said_of_all() -> None:
    table = LiveTable(MEASURES["wer"], 90)
    for i in range(60):
        table.on_trial_start(1, [], trial(f"{i:04d}"))
        table.on_trial_result(1, [], trial(f"{i:04d}"), result(f"{i:04d}", 2, 0.5))
    for i in range(9):
        table.on_trial_complete(1, [], trial(f"{i:04d}"))
    lines = drawn(table, 80, height=24).splitlines()
    assert len(lines) <= 24 and lines[-2:-1] == ["30 more run, 9 more ended"]
    assert lines[-1].startswith("best WER 50.0%, 9/90 trials done")


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress(MEASURES["wer"], 2, None)
    assert isinstance(lines, ProgressLines)
    lines.on_trial_result(1, [], trial("0000"), result("0000", 1, 0.5) | {"is_new": False})
    assert capsys.readouterr().out == ""
    lines.on_trial_result(1, [], trial("0000"), result("0000", 2, 0.6))
    assert capsys.readouterr().out == ("trial 0000  epoch 2/3  WER 60.0%  CER 30.0%  | best WER 50.0%, 0/2 trials "
                                       "done\n")


def test_progress_shows_what_is_spent_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    trial = SimpleNamespace(config=EIGHT_EPOCHS.parameters())
    result = {"trial": "0003", "epoch": 1, "wer": 0.5, "cer": 0.2, "best_wer": 0.5, "is_new": True}
    budget = opened(tmp_path, now, budget="45m", cost_per_hour=4.0)
    now.now += 15 * 60
    ProgressLines(MEASURES["wer"], 9, budget).on_trial_result(1, [], trial, result)
    assert capsys.readouterr().out.endswith("0/9 trials done | wall time 15m00s of 45m00s (30m00s left)\n")
    ProgressLines(MEASURES["wer"], 9, opened(tmp_path, now)).on_trial_result(1, [], trial, result)
    assert capsys.readouterr().out.endswith("0/9 trials done\n")


def test_progress_tells_when_a_single_training_ends_unless_the_budget_ends_first(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = SimpleNamespace(config=EIGHT_EPOCHS.parameters())
    result = {"trial": "training", "epoch": 2, "wer": 0.5, "cer": 0.2, "best_wer": 0.5, "is_new": True,
              "train_s": 120.0}
    ProgressLines(MEASURES["wer"], 1).on_trial_result(1, [], trial, result)
    assert "0/1 trials done, about 6 min left" in capsys.readouterr().out
    ProgressLines(MEASURES["wer"], 1, opened(tmp_path, Clock(), budget="5m")).on_trial_result(1, [], trial, result)
    assert "about" not in capsys.readouterr().out


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveTable), ("dumb", ProgressLines), ("unknown", ProgressLines)])
def test_terminal_that_cannot_be_drawn_on_again_gets_lines(
        monkeypatch: pytest.MonkeyPatch, term: str, kind: type[Progress]) -> None:
    """Rich shows such a one nothing until the study's end."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    assert type(progress(MEASURES["wer"], 1, None)) is kind
