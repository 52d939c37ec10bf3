"""W&B: a run for each trial, written by its own rank zero, and a run for the study."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import WandbLogger

from search.record import TrialRecord

if TYPE_CHECKING:
    from search.setting import TrialSetting

log = logging.getLogger(__name__)

PROJECT = "cuarzo"


def trial_logger(setting: TrialSetting, record: TrialRecord) -> WandbLogger | None:
    """The W&B run of one trial: config = recipe, group = study; a resumed trial goes on in its own run."""
    if setting.wandb == "off":
        return None
    os.environ["WANDB_SILENT"] = "true"
    return WandbLogger(
        project=PROJECT, name=record.id, id=f"{setting.study}-{record.id}", group=setting.study, resume="allow",
        save_dir=str(_folder(setting.folder.parent)), offline=setting.wandb == "offline", job_type="trial",
        config=record.recipe.flat() | {"seed": record.seed}, log_model=False)


def log_study(folder: Path, study: str, mode: str, *, config: dict[str, Any], summary: dict[str, Any],
              trials: list[dict[str, Any]], best: Path) -> None:
    """Record the study as a run of its own: a table of its trials, and the best recipe as an artifact."""
    if mode == "off":
        return
    try:
        _log_study(folder, study, mode, config, summary, trials, best)
    except Exception:  # whatever W&B stumbles over, the study is done and on disk
        log.warning("W&B could not record the study; `wandb sync` may upload what is in %s", folder / "wandb",
                    exc_info=True)


def _log_study(folder: Path, study: str, mode: str, config: dict[str, Any], summary: dict[str, Any],
               trials: list[dict[str, Any]], best: Path) -> None:
    import wandb

    columns = list(dict.fromkeys(name for row in trials for name in row))
    table = wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in trials],
                        allow_mixed_types=True)
    run = wandb.init(project=PROJECT, name=study, id=f"{study}-study", group=study, job_type="study", resume="allow",
                     dir=str(_folder(folder)), mode="offline" if mode == "offline" else "online", config=config,
                     settings=wandb.Settings(silent=True))
    run.log({"trials": table})
    run.summary.update(summary)
    artifact = wandb.Artifact(f"{study}-best", type="recipe")
    artifact.add_dir(str(best))
    run.log_artifact(artifact)
    run.finish()


def _folder(run: Path) -> Path:
    """The run's folder, which W&B puts its `wandb` folder into."""
    run.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DIR"] = str(run)
    return run
