import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from broken_server import served, status
from wandb_server import sign_in, wandb_served

from search.config import StudyConfig
from search.records.measured import DevRates, Importance
from search.records.run_folder import RunFolder
from search.results.run_summary import StudySummary
from search.results.wandb_pages import WandbGroup, choices, curves, load, report, workspace
from search.results.wandb_study import draw_pages
from search.speech.task import MEASURES
from search.trials.wandb_run import end_service
from spaces.recipe import Recipe, nested

PLACE = WandbGroup(entity="me", study='my "study"')
SUMMARY = StudySummary(study="s", language="es", winner="0003", exported="0003", recipe={}, verdict="a tie",
                       dev=DevRates(wer=0.25, cer=0.125),
                       importance=Importance(why_none="3 trials can be compared; it takes 80"))


def panels(panels: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(panel._to_model().model_dump_json(by_alias=True, exclude_none=True)) for panel in panels]


def workspace_spec() -> dict[str, Any]:
    return dict(json.loads(workspace(PLACE)._to_model().spec.model_dump_json(by_alias=True))["section"])


def named(spec: Any, kind: str) -> list[dict[str, Any]]:
    """Every panel of a kind in a page, wherever it is."""
    inside = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else []
    here = [spec] if isinstance(spec, dict) and spec.get("viewType") == kind else []
    return here + [panel for part in inside for panel in named(part, kind)]


def test_workspace_shows_the_trials_of_the_study_alone() -> None:
    [runs] = workspace_spec()["runSets"]
    found = [(each["key"]["name"], each["op"], each["value"]) for each in runs["filters"]["filters"]]
    assert found == [("group", "=", 'my "study"'), ("jobType", "=", "trial")]
    [order] = runs["sort"]["keys"]
    assert order == {"key": {"section": "summary", "name": "best_wer"}, "ascending": True}


def test_workspace_has_a_section_for_each_question() -> None:
    spec = workspace_spec()
    sections = spec["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["What decides", "Learning curves", "Examples", "Load"]
    assert all(section["isOpen"] and section["panels"] for section in sections)
    assert spec["settings"]["xAxis"] == "dev/epoch"


def test_parallel_coordinates_have_an_axis_for_each_field_where_the_runs_have_it() -> None:
    [plot] = named(panels(choices("wer")), "Parallel Coordinates Plot")
    config = nested(Recipe().flat())
    *columns, last = [column["accessor"] for column in plot["config"]["columns"]]
    for accessor in columns:  # W&B keeps a dictionary of the configuration under one `value`
        section, field = accessor.removeprefix("config:").split(".value.")
        assert field in config[section]
    assert last == "summary:best_wer" and "config:optimizer.value.lr" in columns
    assert [column["accessor"] for column in plot["config"]["columns"] if column.get("log")] == [
        "config:optimizer.value.lr", "config:transfer.value.encoder_lr_ratio", "config:transfer.value.source_l2",
        "config:training.value.audio_s_per_step"]
    [importance] = named(panels(choices("wer")), "Parameter Importance")
    assert importance["config"]["targetKey"] == "best_wer"


def test_curves_are_over_epochs_alone_by_rung_and_by_optimizer() -> None:
    found = [plot["config"] for plot in panels(curves("wer"))]
    assert [plot.get("groupBy") for plot in found] == [None, "rung.value", "optimizer.value.name"]
    logged = {f"dev/{name}" for name in ("epoch", *(metric.name for metric in MEASURES["wer"].metrics))}
    assert all({plot["xAxis"], *plot["metrics"]} <= logged for plot in found)


def test_load_is_of_every_gpu() -> None:
    cpu, gpus, memory = (plot["config"]["metrics"] for plot in panels(load()))
    assert cpu == ["system/cpu", "system/memory_percent"]
    assert len(gpus) == len(memory) == 8 and gpus[7] == "system/gpu.7.gpu"


def test_report_tells_what_was_found() -> None:
    page = report(PLACE, SUMMARY)
    texts = [block.text for block in page.blocks if hasattr(block, "text")]
    assert texts[0] == "Trial 0003, dev WER 25.0%, CER 12.5%: a tie."
    assert texts[1] == "what mattered is unknown: 3 trials can be compared; it takes 80."
    assert len(report(PLACE, replace(SUMMARY, language="x" * 200)).title) == 128


def test_pages_are_saved_once_and_written_over_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    run = study(tmp_path)
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        for summary in (None, SUMMARY, None, SUMMARY):
            draw_pages(run, "online", summary)
        made, again = server.asked("UpsertView2")
        told, told_again = server.asked("upsertView")
    assert (made["entityName"], made["projectName"], made["displayName"]) == ("me", "cuarzo", "study")
    assert "id" not in made and again["id"] == "id of project-view" and made["name"] == again["name"]
    assert named(json.loads(made["spec"]), "Parameter Importance")
    assert told["id"] is None and told_again["id"] == "id of runs" and told["type"] == "runs"
    spec = json.loads(told["spec"])
    assert len(named(spec, "Run History Line Plot")) == 6 and len(named(spec, "Weave")) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("W&B")]
    assert lines[0].startswith(f"W&B workspace: {server.url}/me/cuarzo?nw=") and lines[0] == lines[2]
    assert lines[1].startswith(f"W&B report: {server.url}/me/cuarzo/reports/study") and len(lines) == 4


def test_pages_that_cannot_be_saved_cost_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    with served() as server:
        server.always = status(401, b'{"errors":[{"message":"who are you"}]}', Content_Type="application/json")
        sign_in(monkeypatch, tmp_path, server.url)
        draw_pages(study(tmp_path), "online", SUMMARY)
        end_service()
    line = capsys.readouterr().out
    assert line.startswith("W&B could not save the study's report: ") and line.count("\n") == 1


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_offline_asks_nobody(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                             capsys: pytest.CaptureFixture[str]) -> None:
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        draw_pages(study(tmp_path), mode, SUMMARY)
    assert server.operations == [] and capsys.readouterr().out == ""


def study(folder: Path) -> RunFolder:
    run = RunFolder(folder / "study", StudyConfig().resolved())
    run.path.mkdir()
    return run
