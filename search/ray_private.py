"""Every use of undocumented parts of Ray (2.60); no other module of ours touches them.

`tests/test_search_ray_private.py` reports what a new version of Ray breaks.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import ray
from ray._private import utils, worker
from ray._private.state import state
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.train._internal.session import get_session
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.util.placement_group import PlacementGroup

# --- the Ray that this process is connected to ----------------------------------------------------------------------


def read_ray_address() -> str | None:
    """HOST:PORT of the Ray that `ray start` started on this machine; None if there is none.

    `ray.init(address="auto")` would also find the local Ray of another study.
    """
    address: str | None = utils.read_ray_address()
    return address


def forget_token() -> None:
    """Have Ray read its token anew: it keeps the first one that it has read, or found missing, for the process."""
    AuthenticationTokenLoader.instance().reset_cache()


def has_started_ray() -> bool:
    """Whether this process started the Ray that it is connected to; no public call says so."""
    node = worker._global_node
    return node is not None and bool(node.is_head())


def started_processes() -> list[Any]:
    """The processes (Popen) of the Ray that this process started: `ray.shutdown` gives them too long to end."""
    if not has_started_ray():
        return []
    return [info.process for infos in worker._global_node.all_processes.values() for info in infos]


def orphaned_groups() -> Iterator[PlacementGroup]:
    """The placement groups of this driver whose creator is dead.

    Ray's public table of groups does not say who created a group, or whether its creator is alive.
    """
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    for entry in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(entry)
        has_dead_creator = group.creator_actor_dead and not ray.ActorID(group.creator_actor_id).is_nil()
        is_reserved = group.state != PlacementGroupTableData.REMOVED and not group.is_detached
        if has_dead_creator and is_reserved and group.creator_job_id == job:
            yield PlacementGroup(ray.PlacementGroupID(group.placement_group_id))


def addresses_here() -> Iterator[tuple[str, str]]:
    """This machine's network interfaces and their addresses, from the psutil that Ray bundles and puts on the path."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            yield str(name), str(one.address)


# --- a trial of Ray Tune, in its process ----------------------------------------------------------------------------


def is_stopped() -> bool:
    """Whether Tune wants this process's trial to end; a function trainable is only told so inside `report`."""
    session = get_session()
    return session is not None and session.stop_event.is_set()


def await_end(patience_s: float) -> None:
    """Wait for the thread of a stopped trial, which closes its W&B run: Tune would end the process without waiting."""
    get_session().finish(timeout=patience_s)


def unwrapped(error: BaseException) -> BaseException:
    """The error that a worker raised, without Ray's wrappers, not all of which have a public attribute for it."""
    for name in ("controller_failure", "_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return unwrapped(inner)
    return error


# --- two errors of Ray Tune that would cost a trial or the whole search, fixed while it runs -------------------------


def patch_tune() -> None:
    """Patch Tune, once per process."""
    _wrap(RayActorManager, "_actor_task_failed", _lost_for_its_memory)
    _wrap(TuneController, "_process_trial_failure", _lost_before_its_start)


def _wrap(owner: type, name: str, fix: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    known = getattr(owner, name)
    if not hasattr(known, "__wrapped__"):
        setattr(owner, name, wraps(known)(fix(known)))


def _lost_for_its_memory(known: Callable[..., None]) -> Callable[..., None]:
    """Treat a process that Ray ended for its memory as a lost process.

    Tune handles actors that died and tasks that raised; any other Ray error ends the whole search.
    """
    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        known(manager, tracked_actor_task=tracked_actor_task, exception=exception)

    return failed


def _lost_before_its_start(known: Callable[..., None]) -> Callable[..., None]:
    """Restart a trial whose process is lost while being reset for it, like any other lost trial.

    Tune handles such a loss twice, for the process and for what it was doing. The first time it queues the trial again;
    the second time it gives it up, because it only restarts running trials.
    """
    def failed(controller: TuneController, trial: Trial, exception: Exception) -> None:
        was_made_ready = trial in controller._resetting_trials
        controller._resetting_trials.discard(trial)  # else Tune would wait for the lost process
        if trial.status == Trial.PENDING:
            if isinstance(exception, RayActorError) and trial not in controller._trial_to_actor:
                return  # it is queued again
            if was_made_ready:
                controller._set_trial_status(trial, Trial.RUNNING)
        known(controller, trial, exception)

    return failed
