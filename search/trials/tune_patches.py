"""Two errors of Ray Tune 2.60 that would cost a trial or the whole search, mended while it runs."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


def patch_tune() -> None:
    """Once for a process; again does nothing."""
    _wrap(RayActorManager, "_actor_task_failed", _lost_for_its_memory)
    _wrap(TuneController, "_process_trial_failure", _lost_before_its_start)


def _wrap(owner: type, name: str, mend: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    known = getattr(owner, name)
    if not hasattr(known, "__wrapped__"):
        setattr(owner, name, wraps(known)(mend(known)))


def _lost_for_its_memory(known: Callable[..., None]) -> Callable[..., None]:
    """A process that Ray ended for its memory is a lost one.

    Tune knows actors that died and tasks that raised; any other error of Ray ends the whole search.
    """
    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        known(manager, tracked_actor_task=tracked_actor_task, exception=exception)

    return failed


def _lost_before_its_start(known: Callable[..., None]) -> Callable[..., None]:
    """A trial whose process is lost while it is made ready for it is started again, as any other.

    Tune takes such a loss twice, for the process and for what it was doing: the first time it puts the trial back in
    line, the second time it gives it up, as only trials that run are to be started again.
    """
    def failed(controller: TuneController, trial: Trial, exception: Exception) -> None:
        was_made_ready = trial in controller._resetting_trials
        controller._resetting_trials.discard(trial)  # else Tune would wait for the lost process
        if trial.status == Trial.PENDING:
            if isinstance(exception, RayActorError) and trial not in controller._trial_to_actor:
                return  # it is back in line
            if was_made_ready:
                controller._set_trial_status(trial, Trial.RUNNING)
        known(controller, trial, exception)

    return failed
