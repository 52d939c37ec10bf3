"""W&B: a run for each trial, written by its rank zero, and one for the study. If W&B fails, a line says so."""

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
"""The modes to try, in order, for each setting."""

EPOCH = "dev/epoch"
"""The horizontal axis of the trials' curves."""

START_PATIENCE_S, END_PATIENCE_S = 15, 5
"""How long a trial waits for W&B's servers at its start and its end. A stopped trial must leave within 10 s, some of
which W&B's own process takes; what has not been sent by then is on disk."""


def choose_mode(wanted: str) -> str:
    """The mode as wanted, or `offline`, after printing why W&B's servers cannot be used."""
    if wanted != "online":
        return wanted
    reason = _why_not_online()
    if reason is None:
        return wanted
    print(f"W&B stays offline: {reason}. Nothing is lost: `wandb sync` can upload the run's wandb/ folder later.",
          flush=True)
    return "offline"


def _why_not_online() -> str | None:
    import wandb

    set_up_wandb()
    try:
        if wandb.login(verify=True, prompt=False):
            return None
    except Exception as error:  # a malformed key, a rejected one, no network
        reason = first_sentence(error)
        return reason.partition(": ")[0] + ": no answer" if "not respond in time" in reason else reason
    return "no key in WANDB_API_KEY or .netrc; `wandb login` saves one"


def variables(mode: str) -> dict[str, str]:
    """W&B's settings on this machine, for workers on others: its environment variables, and the key of `wandb login`.

    This is a secret, so keep it in memory only.
    """
    found = wandb_variables()
    if mode == "online" and "WANDB_API_KEY" not in found:
        import wandb

        with contextlib.suppress(Exception):  # without a key, a trial on another machine says so and stays offline
            found["WANDB_API_KEY"] = str(wandb.Api().api_key)
    return found


def first_sentence(error: BaseException) -> str:
    """An error's message on one line, without the credentials that WANDB_BASE_URL or a proxy's URL may contain."""
    line = re.sub(r"://[^/@\s]*@", "://…@", " ".join(str(error).split()))
    return line.rstrip(".")[:300] or type(error).__name__


# --- a trial --------------------------------------------------------------------------------------------------------


class TrialLogger(WandbLogger):
    """Lightning's logger, except that an error of W&B does not fail the trial."""

    _has_failed = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log, or warn once if that fails."""
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            if not self._has_failed:
                log.warning("W&B run %s lacks figures: %s", self.version, first_sentence(error))
            self._has_failed = True


def trial_logger(context: TrialContext, record: TrialRecord, hand_recipe: str | None = None) -> TrialLogger | None:
    """Start the W&B run of one trial, with the study as its group; a resumed trial continues its own run.

    If W&B's servers fail, the run is offline; if W&B itself fails, there is none.
    """
    for mode in MODES[context.wandb]:
        try:
            return _begin_trial(context, record, hand_recipe, mode)
        except Exception as error:
            log.warning("trial %s: no %s W&B run: %s", record.id, mode, first_sentence(error))
            end_service()
    return None


def end_service(patience_s: float = END_PATIENCE_S) -> None:
    """End W&B's own process, which may have died, or still hold the id of the run that could not start.

    It waits for servers that do not answer, and W&B waits for it forever, so it is killed after `patience_s`. What has
    not been sent by then is on disk.
    """
    import wandb

    def end() -> None:
        with contextlib.suppress(Exception, SystemExit):  # W&B exits if its process was killed
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
    # Nested, because W&B's panels read a dot in a name as a nested dictionary.
    config = nested(record.recipe.flat()) | {"seed": record.seed, "study": context.study}
    # Not Lightning's `offline`, which sets a variable that would apply to all later trials of this process.
    logger = TrialLogger(
        project=PROJECT, name=record.id, id=run_id(context.study, record.id), group=context.study, resume="allow",
        save_dir=str(wandb_folder(context.folder.parent)), mode=mode, job_type="trial", log_model=False,
        config=config | ({"hand_recipe": hand_recipe} if hand_recipe else {}), tags=_tags(record),
        settings=wandb.Settings(silent=True, init_timeout=START_PATIENCE_S, finish_timeout=END_PATIENCE_S))
    run = logger.experiment
    drop_link(run)
    # By name, because for "*" Lightning defines the global step, which is not comparable between recipes.
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
        # Panels can group by the configuration, not by the summary.
        run.config.update({"rung": summary["rung"]}, allow_val_change=True)
        if examples:
            logger.log_table("examples", columns=["reference", "hypothesis"], data=examples)
    except Exception as trouble:
        log.warning("trial %s: its W&B run lacks its final figures: %s", record.id, first_sentence(trouble))
    try:
        run.finish(exit_code=int(isinstance(error, Exception)))
    except Exception as trouble:
        log.warning("trial %s: W&B could not close its run: %s", record.id, first_sentence(trouble))
        end_service()


def trial_summary(record: TrialRecord, rungs: Sequence[int], measures: Measures,
                  error: BaseException | None) -> dict[str, Any]:
    """A trial's outcome: state, rungs passed, figures of the best epoch; seconds cover training and validation."""
    best, last = record.best, record.epochs[-1] if record.epochs else None
    ended = "failed" if isinstance(error, Exception) else "stopped"
    return {"state": "complete" if record.is_complete else ended, "epochs": len(record.epochs),
            "rung": sum(epochs <= len(record.epochs) for epochs in rungs),
            "seconds": last.train_s if last else 0.0, "gpu_seconds": last.gpu_s if last else 0.0,
            } | ({f"best_{metric.name}": best[metric.name] for metric in measures.shown} if best else {})


def _tags(record: TrialRecord) -> tuple[str, ...]:
    return record.recipe.optimizer.name, record.recipe.vocabulary.kind


def run_id(study: str, name: str) -> str:
    """The id of a W&B run, without the characters that W&B rejects in ids and artifact names."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{study}-{name}")


# --- the study ------------------------------------------------------------------------------------------------------


def wandb_folder(run: Path) -> Path:
    """The run's folder, in which W&B creates its `wandb` folder and keeps what an offline run has not sent."""
    run.mkdir(parents=True, exist_ok=True)
    set_up_wandb(WANDB_DIR=str(run), WANDB_DATA_DIR=str(run / "wandb"))
    return run
