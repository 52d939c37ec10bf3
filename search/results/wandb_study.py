"""W&B's run of a study, its best model and its pages; if W&B fails, a line says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from search.records.measured import plain
from search.records.run_folder import RunFolder
from search.results.run_summary import RunSummary, StudySummary, TrainingSummary
from search.trials.wandb_private import drop_link
from search.trials.wandb_run import (
    MODES,
    PROJECT,
    START_PATIENCE_S,
    Mode,
    end_service,
    first_sentence,
    run_id,
    wandb_folder,
)
from spaces.recipe import nested

UPLOAD_PATIENCE_S = 1800
"""Enough for a study's models, up to 0.3 GB."""


def log_study(run: RunFolder, mode: str, summary: StudySummary, trials: list[dict[str, Any]]) -> None:
    """Record the study as its own run, and its best recipe and model as an artifact of the trial that made it."""
    _record(mode, lambda how: _log_study(run, how, summary, trials, _log_best(run, how, summary)))


def draw_pages(run: RunFolder, mode: str, summary: StudySummary | None = None) -> None:
    """Save a study's workspace, or its report if there is a summary, and print its address; only when online."""
    if mode != "online":
        return
    page = "report" if summary else "workspace"
    try:
        from search.results import wandb_pages  # takes a second to import, only needed here

        address = wandb_pages.save(run, summary)
    except Exception as error:  # the study does not depend on its pages
        print(f"W&B could not save the study's {page}: {first_sentence(error)}", flush=True)
    else:
        print(f"W&B {page}: {address}", flush=True)


def log_training(run: RunFolder, mode: str, summary: TrainingSummary) -> None:
    """Record the recipe and the model of a production training as an artifact of its run."""
    _record(mode, lambda how: _log_best(run, how, summary))


def _record(mode: str, log_all: Callable[[Mode], Any]) -> None:
    for how in MODES[mode]:
        try:
            log_all(how)
            return
        except Exception as error:  # whatever fails in W&B, the study is finished and on disk
            print(f"W&B could not record this {how}: {first_sentence(error)}", flush=True)
            end_service()


def _log_best(run: RunFolder, mode: Mode, summary: RunSummary) -> Any:
    """Log `best/` from the W&B run of the training whose weights it holds, so that W&B shows their origin."""
    import wandb

    artifact = wandb.Artifact(run_id(run.unique_name, "best"), type="model", metadata={
        "study": run.unique_name, "trial": summary.exported, "recipe": nested(summary.recipe),
        "dev": plain(summary.dev)})
    with _begin(run, mode, summary.exported, job_type="trial") as trial:  # before add_dir, or W&B prints a line
        # Not copied: an offline run takes no disk space, and the files stay where they are.
        artifact.add_dir(str(run.best), policy="immutable", skip_cache=True)
        trial.log_artifact(artifact, aliases=["best", "latest"])
        return artifact.wait(UPLOAD_PATIENCE_S) if mode == "online" else artifact


def _log_study(run: RunFolder, mode: Mode, summary: StudySummary, trials: list[dict[str, Any]], best: Any) -> None:
    import wandb

    columns = list(dict.fromkeys(name for row in trials for name in row))
    table = wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in trials],
                        allow_mixed_types=True)
    with _begin(run, mode, "study", job_type="study", config=asdict(run.config)) as study:
        study.log({"trials": table})
        # In W&B `trials` is the table, which the number of them by state would hide.
        study.summary.update({name: value for name, value in summary.values().items() if name != "trials"})
        if mode == "online":  # W&B cannot use an artifact offline
            study.use_artifact(best)


def _begin(run: RunFolder, mode: Mode, name: str, **options: Any) -> Any:
    """A run of the driver's; machine metrics and console output are the trial's, if there is one."""
    import wandb

    begun = wandb.init(project=PROJECT, name=run.name if name == "study" else name, id=run_id(run.unique_name, name),
                      group=run.unique_name, resume="allow", dir=str(wandb_folder(run.path)), mode=mode, **options,
                      settings=wandb.Settings(silent=True, init_timeout=START_PATIENCE_S, console="off",
                                              finish_timeout=UPLOAD_PATIENCE_S, x_disable_meta=True,
                                              x_disable_stats=True))
    drop_link(begun)
    return begun
