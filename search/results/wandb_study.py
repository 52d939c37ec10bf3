"""W&B's run of a study, its best model and its pages. Its trouble costs a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from search.records.run_folder import RunFolder
from search.results.run_summary import RunSummary, StudySummary, TrainingSummary
from search.trials.wandb_run import (
    MODES,
    PROJECT,
    START_PATIENCE_S,
    Mode,
    drop_link,
    end_service,
    first_sentence,
    run_id,
    wandb_folder,
)
from spaces.recipe import nested

UPLOAD_PATIENCE_S = 1800
"""For a study's models, up to 0.3 GB."""


def log_study(run: RunFolder, mode: str, summary: StudySummary, trials: list[dict[str, Any]]) -> None:
    """Record the study as a run of its own, and its best recipe and model as an artifact of the trial that made it."""
    _record(mode, lambda how: _log_study(run, how, summary, trials, _log_best(run, how, summary)))


def draw_pages(run: RunFolder, mode: str, summary: StudySummary | None = None) -> None:
    """Save a study's workspace, or its report where there is a summary, and print its address; nothing but online."""
    if mode != "online":
        return
    page = "report" if summary else "workspace"
    try:
        from search.results import wandb_pages  # takes a second to import, which others need not wait for

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
        except Exception as error:  # whatever W&B stumbles over, the study is done and on disk
            print(f"W&B could not record this {how}: {first_sentence(error)}", flush=True)
            end_service()


def _log_best(run: RunFolder, mode: Mode, summary: RunSummary) -> Any:
    """Log `best/` from the W&B run of the training whose weights it holds, so that W&B draws where they come from."""
    import wandb

    artifact = wandb.Artifact(run_id(run.unique_name, "best"), type="model", metadata={
        "study": run.unique_name, "trial": summary.exported, "recipe": nested(summary.recipe),
        "dev": summary.dev})
    with _begin(run, mode, summary.exported, job_type="trial") as trial:  # before add_dir, or W&B prints a line
        # Not copied: an offline run costs the disk nothing, and the files stay where they are.
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
        if mode == "online":  # W&B knows no artifact that is used offline
            study.use_artifact(best)


def _begin(run: RunFolder, mode: Mode, name: str, **options: Any) -> Any:
    """A run of the driver's; what W&B itself notes of the machine and prints is the trial's, where it has one."""
    import wandb

    begun = wandb.init(project=PROJECT, name=run.name if name == "study" else name, id=run_id(run.unique_name, name),
                      group=run.unique_name, resume="allow", dir=str(wandb_folder(run.path)), mode=mode, **options,
                      settings=wandb.Settings(silent=True, init_timeout=START_PATIENCE_S, console="off",
                                              finish_timeout=UPLOAD_PATIENCE_S, x_disable_meta=True,
                                              x_disable_stats=True))
    drop_link(begun)
    return begun
