"""W&B's pages for a study: a workspace while it runs and a report at its end, made with `wandb-workspaces`."""

from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from wandb_workspaces import expr

from search.records.files import read_json, write_json
from search.records.measured import Importance
from search.records.run_folder import RunFolder
from search.results.cautions import TITLES
from search.results.figures import AXES
from search.results.importance import LOGARITHMIC, importance_line
from search.results.run_summary import StudySummary
from search.trials.wandb_private import view_of, write_over
from search.trials.wandb_run import EPOCH, PROJECT

MAX_RUNS = 200
"""Curves in one panel; W&B's own default is 10."""

MAX_GPUS = 8
"""GPUs per node, as W&B numbers them."""

WIDTH = 24
"""Columns of W&B's grid."""


@dataclass(frozen=True, kw_only=True)
class WandbGroup:
    """Where W&B keeps a study's runs."""

    entity: str
    """The user or team."""
    study: str
    """The group of the study's runs."""
    objective: str = "wer"
    """The error rate that the study minimises."""

    def runs(self, job_type: str) -> expr.And:
        """A filter for the study's runs of a kind, `trial` or `study`."""
        return expr.And(expr.Metric("Group") == self.study, expr.Metric("JobType") == job_type)


def save(run: RunFolder, summary: StudySummary | None) -> str:
    """Save the study's workspace on W&B's servers, or its report if there is a summary; returns the address.

    An earlier version is overwritten: its id is kept in `dashboards.json`.
    """
    place = WandbGroup(entity=_entity(), study=run.unique_name, objective=run.config.objective)
    file = run.path / "dashboards.json"
    known = dict(read_json(file)) if file.exists() else {}
    if summary:
        written = report(place, summary)
        written.id = known.get("report", "")
        written.save()
        write_json(file, known | {"report": written.id})
        return str(written.url)
    view = workspace(place)
    if "workspace" in known:
        write_over(view, known["workspace"])
    view.save()
    write_json(file, known | {"workspace": view_of(view)})
    return str(view.url)


def _entity() -> str:
    import wandb

    api = wandb.Api()
    entity = str(api.settings.get("entity") or api.default_entity)
    api.create_project(PROJECT, entity)  # changes nothing where it exists
    return entity


# --- pages ----------------------------------------------------------------------------------------------------------


def workspace(place: WandbGroup) -> workspaces.Workspace:
    """A view of the study's trials, best first, which fills while they run."""
    best = f"best_{place.objective}"
    sections = {"What decides": choices(place.objective), "Learning curves": curves(place.objective),
                "Examples": [table("examples")], "Load": load()}
    return workspaces.Workspace(
        entity=place.entity, project=PROJECT, name=place.study[:128],
        sections=[workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=workspaces.WorkspaceSettings(x_axis=EPOCH, max_runs=MAX_RUNS),
        runset_settings=workspaces.RunsetSettings(
            filters=place.runs("trial"), order=[expr.Ordering(expr.Summary(best), ascending=True)],
            pinned_columns=["run:displayName", f"summary:{best}", "summary:state", "summary:rung",
                            "config:optimizer.value.name"]))


def report(place: WandbGroup, summary: StudySummary) -> reports.Report:
    """The study's results, in words and in the same panels."""
    return reports.Report(
        entity=place.entity, project=PROJECT, title=f"{place.study}: QuartzNet for {summary.language}"[:128],
        description=summary.verdict, width="fluid", blocks=[
            *(reports.P(f"Careful: {said}.") for said in summary.cautions),
            reports.P(f"Trial {summary.winner}, dev WER {summary.dev.wer:.1%}, CER {summary.dev.cer:.1%}: "
                      f"{summary.verdict}."),
            reports.P(importance_line(summary.importance or Importance()) + "."),
            reports.H2("What decides"), _grid(place, choices(place.objective)),
            reports.H2("Learning curves"), _grid(place, curves(place.objective)),
            reports.H2("Transcripts of the trials"), _grid(place, [table("examples")]),
            reports.H2("All trials"), _grid(place, [table("trials")], "study"),
            reports.H2("Load"), _grid(place, load())])


def _grid(place: WandbGroup, panels: list[Any], job_type: str = "trial") -> reports.PanelGrid:
    runs = reports.Runset(entity=place.entity, project=PROJECT, name=job_type, filters=place.runs(job_type))
    return reports.PanelGrid(runsets=[runs], panels=panels)


# --- panels ---------------------------------------------------------------------------------------------------------


Choices = list[reports.ParallelCoordinatesPlot | reports.ParameterImportancePlot | reports.ScatterPlot]


def choices(objective: str) -> Choices:
    """The recipes' fields against the error rate that is minimised."""
    best, title = f"best_{objective}", TITLES[objective]
    columns = [reports.ParallelCoordinatesPlotColumn(metric=reports.Config(name), display_name=label,
                                                     log=True if name in LOGARITHMIC else None)
               for name, label in AXES.items()]
    rate = reports.ParallelCoordinatesPlotColumn(metric=reports.SummaryMetric(best), display_name=title)
    return [_wide(reports.ParallelCoordinatesPlot(title=f"Recipes and their best dev {title}",
                                                  columns=[*columns, rate])),
            reports.ParameterImportancePlot(with_respect_to=best,
                                            layout=reports.Layout(x=0, y=10, w=WIDTH // 2, h=8)),
            reports.ScatterPlot(title=f"Best dev {title} by learning rate", x=reports.Config("optimizer.lr"),
                                log_x=True, y=reports.SummaryMetric(best),
                                layout=reports.Layout(x=WIDTH // 2, y=10, w=WIDTH // 2, h=8))]


def curves(objective: str) -> list[reports.LinePlot]:
    """Dev error rate over epochs: each trial, and means by rung and by optimizer."""
    groups = {"": None, " by rung": reports.Config("rung"), " by optimizer": reports.Config("optimizer.name")}
    return [reports.LinePlot(
        title=f"Dev {TITLES[objective]}{name}", x=EPOCH, y=[f"dev/{objective}"], title_x="epoch",
        max_runs_to_show=MAX_RUNS, groupby=group,
        groupby_aggfunc="mean" if group else None, groupby_rangefunc="minmax" if group else None,
        layout=_third(place)) for place, (name, group) in enumerate(groups.items())]


def table(name: str) -> reports.WeavePanelSummaryTable:
    """A logged table: a trial's `examples` are references and transcripts, the study's are `trials`."""
    return _wide(reports.WeavePanelSummaryTable(table_name=name))


def load() -> list[reports.LinePlot]:
    """The load of the trials' machines over time."""
    metrics = {"CPU and memory, %": ["system/cpu", "system/memory_percent"],
               "GPUs, %": [f"system/gpu.{gpu}.gpu" for gpu in range(MAX_GPUS)],
               "GPUs' memory, %": [f"system/gpu.{gpu}.memoryAllocated" for gpu in range(MAX_GPUS)]}
    return [reports.LinePlot(title=title, x="RelativeTime(Process)", y=names, max_runs_to_show=MAX_RUNS,
                             layout=_third(place)) for place, (title, names) in enumerate(metrics.items())]


def _wide(panel: Any) -> Any:
    panel.layout = reports.Layout(x=0, y=0, w=WIDTH, h=10)
    return panel


def _third(place: int) -> reports.Layout:
    return reports.Layout(x=WIDTH // 3 * place, y=0, w=WIDTH // 3, h=8)
