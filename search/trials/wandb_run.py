"""W&B: a run for each trial, written by its own rank zero, and one for the study. Its trouble costs a line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ray
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from search.environment import set_up_wandb, wandb_variables
from search.records.trial_record import Epoch, TrialRecord
from search.task import Measures
from search.trials.wandb_private import drop_link, services
from spaces.recipe import nested

if TYPE_CHECKING:
    from search.trials.context import TrialContext

log = logging.getLogger(__name__)

PROJECT = "cuarzo"

Mode = Literal["online", "offline"]

MODES: dict[str, tuple[Mode, ...]] = {"online": ("online", "offline"), "offline": ("offline",), "off": ()}
"""Where W&B is to record, and where instead if that fails."""

EPOCH = "dev/epoch"
"""What trials are drawn over."""

START_PATIENCE_S, END_PATIENCE_S = 15, 5
"""How long a trial waits for W&B's servers at its start and its end. A stopped one has to leave within 10 s, of
which W&B's own process takes some; what is not sent by then is on disk."""


def choose_mode(wanted: str) -> str:
    """Where W&B records a study: as wanted, or `offline`, with a line that says why its servers cannot be used."""
    if wanted != "online":
        return wanted
    reason = _why_not_online()
    if reason is None:
        return wanted
    print(f"W&B stays offline: {reason}. Nothing is lost: `wandb sync` sends what is in the run's folder wandb/ later.",
          flush=True)
    return "offline"


def _why_not_online() -> str | None:
    import wandb

    set_up_wandb()
    try:
        if wandb.login(verify=True, prompt=False):
            return None
    except Exception as error:  # a key that is none, one that is refused, no network
        reason = first_sentence(error)
        return reason.partition(": ")[0] + ": no answer" if "not respond in time" in reason else reason
    return "no key in WANDB_API_KEY or .netrc; `wandb login` keeps one"


def variables(mode: str) -> dict[str, str]:
    """What W&B goes by here, for workers on other machines: its environment variables, and the key of `wandb login`.

    A secret: it may be kept in memory alone.
    """
    found = wandb_variables()
    if mode == "online" and "WANDB_API_KEY" not in found:
        import wandb

        with contextlib.suppress(Exception):  # without it a trial on another machine says so, and stays offline
            found["WANDB_API_KEY"] = str(wandb.Api().api_key)
    return found


def first_sentence(error: BaseException) -> str:
    """What an error says, on one line, and no user and password of WANDB_BASE_URL or a proxy that it repeats."""
    line = re.sub(r"://[^/@\s]*@", "://…@", " ".join(str(error).split()))
    return line.rstrip(".")[:300] or type(error).__name__


# --- a trial --------------------------------------------------------------------------------------------------------


class TrialLogger(WandbLogger):
    """Lightning's, but what W&B stumbles over while a trial trains is not the trial's."""

    _has_failed = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log, or say once that it does not work."""
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            if not self._has_failed:
                log.warning("W&B run %s lacks figures: %s", self.version, first_sentence(error))
            self._has_failed = True


def trial_logger(context: TrialContext, record: TrialRecord, hand_recipe: str | None = None) -> TrialLogger | None:
    """Begin the W&B run of one trial, group = study; a resumed trial goes on in its own run.

    Where W&B's servers fail it, the run goes on offline; where W&B itself does, without.
    """
    for mode in MODES[context.wandb]:
        try:
            return _begin_trial(context, record, hand_recipe, mode)
        except Exception as error:
            log.warning("trial %s: no %s W&B run: %s", record.id, mode, first_sentence(error))
            end_service()
    return None


def end_service(patience_s: float = END_PATIENCE_S) -> None:
    """End W&B's own process: it may have died, or still hold the id of the run that could not begin.

    It waits for servers that do not answer, and W&B for it without an end: after `patience_s` it is killed. What is not
    sent by then is on disk.
    """
    import wandb

    def end() -> None:
        with contextlib.suppress(Exception, SystemExit):  # W&B exits where its process was killed
            wandb.teardown()

    ending = threading.Thread(target=end, name="wandb-teardown", daemon=True)
    ending.start()
    ending.join(patience_s)
    if ending.is_alive():
        for service in services():
            with contextlib.suppress(OSError):
                os.kill(service, signal.SIGKILL)
        ending.join(patience_s)


def _begin_trial(context: TrialContext, record: TrialRecord, hand_recipe: str | None, mode: Mode) -> TrialLogger:
    import wandb

    if context.wandb_variables is not None:
        set_up_wandb(**ray.get(context.wandb_variables))
    # Nested, as W&B's panels take a dot in a name for a dictionary inside the configuration.
    config = nested(record.recipe.flat()) | {"seed": record.seed, "study": context.study}
    # Not Lightning's `offline`: it sets a variable that would hold for all later trials of this process.
    logger = TrialLogger(
        project=PROJECT, name=record.id, id=run_id(context.study, record.id), group=context.study, resume="allow",
        save_dir=str(wandb_folder(context.folder.parent)), mode=mode, job_type="trial", log_model=False,
        config=config | ({"hand_recipe": hand_recipe} if hand_recipe else {}), tags=_tags(record),
        settings=wandb.Settings(silent=True, init_timeout=START_PATIENCE_S, finish_timeout=END_PATIENCE_S))
    run = logger.experiment
    drop_link(run)
    # By name, for Lightning has a rule for "*": the global step, which recipes differ in.
    measures = context.task.measures
    own = [field.name for field in fields(Epoch) if field.name != "metrics"]
    for name in (*own, *(metric.name for metric in measures.metrics), measures.best):
        run.define_metric(f"dev/{name}", step_metric=EPOCH if name != "epoch" else None)
    return logger


def close_trial(logger: TrialLogger, record: TrialRecord, context: TrialContext, examples: list[list[str]],
                error: BaseException | None) -> None:
    """End a trial's W&B run with what the sweep's panels show; `error` is what ended the trial early."""
    run = logger.experiment
    try:
        summary = trial_summary(record, context.rungs, context.task.measures, error)
        run.summary.update(summary)
        run.tags = (*_tags(record), f"rung-{summary['rung']}")
        # Panels can group by what is in the configuration, not by the summary.
        run.config.update({"rung": summary["rung"]}, allow_val_change=True)
        if examples:
            logger.log_table("examples", columns=["reference", "hypothesis"], data=examples)
    except Exception as trouble:
        log.warning("trial %s: its W&B run lacks its end: %s", record.id, first_sentence(trouble))
    try:
        run.finish(exit_code=int(isinstance(error, Exception)))
    except Exception as trouble:
        log.warning("trial %s: W&B could not close its run: %s", record.id, first_sentence(trouble))
        end_service()


def trial_summary(record: TrialRecord, rungs: Sequence[int], measures: Measures,
                  error: BaseException | None) -> dict[str, Any]:
    """What became of a trial: state, rungs passed, figures of the best epoch; seconds are those of training and dev."""
    best, last = record.best, record.epochs[-1] if record.epochs else None
    ended = "failed" if isinstance(error, Exception) else "stopped"
    return {"state": "complete" if record.is_complete else ended, "epochs": len(record.epochs),
            "rung": sum(epochs <= len(record.epochs) for epochs in rungs),
            "seconds": last.train_s if last else 0.0, "gpu_seconds": last.gpu_s if last else 0.0,
            } | ({f"best_{metric.name}": best[metric.name] for metric in measures.shown} if best else {})


def _tags(record: TrialRecord) -> tuple[str, ...]:
    return record.recipe.optimizer.name, record.recipe.vocabulary.kind


def run_id(study: str, name: str) -> str:
    """The id of a W&B run, without the signs that W&B refuses in ids and in artifacts' names."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{study}-{name}")


# --- the study ------------------------------------------------------------------------------------------------------


def wandb_folder(run: Path) -> Path:
    """The run's folder, which W&B puts its `wandb` folder into, and what an offline run has yet to send."""
    run.mkdir(parents=True, exist_ok=True)
    set_up_wandb(WANDB_DIR=str(run), WANDB_DATA_DIR=str(run / "wandb"))
    return run
