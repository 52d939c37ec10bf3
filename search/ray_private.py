"""All that is used of Ray without being in its documentation (Ray 2.60): nothing else of ours reaches in there.

`tests/test_search_ray_private.py` says what broke where a new version of Ray moves a part.
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
    """HOST:PORT of the Ray that `ray start` left on this machine, None where there is none.

    `ray.init(address="auto")` would also find the local Ray of another study.
    """
    address: str | None = utils.read_ray_address()
    return address


def forget_token() -> None:
    """Have Ray read its token anew: it keeps the first one that it has read, or found missing, for the process."""
    AuthenticationTokenLoader.instance().reset_cache()


def has_started_ray() -> bool:
    """Whether this process has started the Ray that it is connected to; no public call says so."""
    node = worker._global_node
    return node is not None and bool(node.is_head())


def started_processes() -> list[Any]:
    """The processes (Popen) of the Ray that this one has started: `ray.shutdown` gives them too long to end."""
    if not has_started_ray():
        return []
    return [info.process for infos in worker._global_node.all_processes.values() for info in infos]


def orphaned_groups() -> Iterator[PlacementGroup]:
    """The placement groups of this driver whose creator is dead.

    Ray's public table of groups does not say who made one, nor whether that one lives.
    """
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    for entry in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(entry)
        has_dead_creator = group.creator_actor_dead and not ray.ActorID(group.creator_actor_id).is_nil()
        is_reserved = group.state != PlacementGroupTableData.REMOVED and not group.is_detached
        if has_dead_creator and is_reserved and group.creator_job_id == job:
            yield PlacementGroup(ray.PlacementGroupID(group.placement_group_id))


def addresses_here() -> Iterator[tuple[str, str]]:
    """This machine's network interfaces and their addresses, by the psutil that Ray brings and puts on the path."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            yield str(name), str(one.address)


# --- a trial of Ray Tune, in its process ----------------------------------------------------------------------------


def is_stopped() -> bool:
    """Whether Tune wants the trial of this process to end; a function that trains learns it in `report` alone."""
    session = get_session()
    return session is not None and session.stop_event.is_set()


def await_end(patience_s: float) -> None:
    """Wait for the thread of a stopped trial, which closes its W&B run: Tune ends the process without it."""
    get_session().finish(timeout=patience_s)


def unwrapped(error: BaseException) -> BaseException:
    """What a worker raised, without what Ray wrapped it in: not all of these have a public name for what is inside."""
    for name in ("controller_failure", "_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return unwrapped(inner)
    return error


# --- two errors of Ray Tune that would cost a trial or the whole search, fixed while it runs -------------------------


def patch_tune() -> None:
    """Once for a process; again does nothing."""
    _wrap(RayActorManager, "_actor_task_failed", _lost_for_its_memory)
    _wrap(TuneController, "_process_trial_failure", _lost_before_its_start)


def _wrap(owner: type, name: str, fix: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    known = getattr(owner, name)
    if not hasattr(known, "__wrapped__"):
        setattr(owner, name, wraps(known)(fix(known)))


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
