"""What is used of Ray beside its documentation: a test for each part, which says what broke where Ray moves it."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray._raylet import AuthenticationTokenLoader
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.util.placement_group import placement_group, placement_group_table

from search import cluster, ray_private
from search.ray_private import patch_tune
from search.trials.watchdog import why_lost

pytestmark = pytest.mark.timeout(120)


def test_started_ray_is_known_by_the_file_that_ray_start_leaves(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_private.read_ray_address() is None, "Ray tells of a cluster where none was started"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6379\n")
    assert ray_private.read_ray_address() == "127.0.0.1:6379", "Ray leaves the address of `ray start` elsewhere"


def test_token_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = AuthenticationTokenLoader.instance()

    def token() -> str:
        ray_private.forget_token()
        return str(loader.get_raw_token(ignore_auth_mode=True))

    try:
        for said in ("a" * 64, "b" * 64):
            monkeypatch.setenv("RAY_AUTH_TOKEN", said)
            assert token() == said, "Ray keeps the token that it read first: a study would not join its own Ray"
    finally:
        monkeypatch.undo()
        ray_private.forget_token()


def test_interfaces_come_with_their_addresses() -> None:
    found = list(ray_private.addresses_here())
    assert any(address == "127.0.0.1" for _, address in found), "Ray's psutil is gone: DDP would ask the node's name"


def test_trial_is_stopped_and_awaited_by_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ray_private.is_stopped(), "outside of a trial there is nothing to stop"
    from ray.train._internal import session

    known = {name for kind in (session._TrainSession,) for name in vars(kind)}
    assert "finish" in known, "a stopped trial would end before its W&B run is closed"
    waited: list[float] = []
    stop = SimpleNamespace(is_set=lambda: True)
    monkeypatch.setattr(session, "_session", SimpleNamespace(
        stop_event=stop, finish=lambda timeout: waited.append(timeout)))
    assert ray_private.is_stopped()
    ray_private.await_end(2.0)
    assert waited == [2.0]


def test_what_the_patches_of_tune_reach_for_is_there() -> None:
    for owner, name in ((RayActorManager, "_actor_task_failed"), (TuneController, "_process_trial_failure"),
                        (TuneController, "_set_trial_status")):
        assert callable(getattr(owner, name, None)), f"{owner.__name__}.{name}: Tune takes failures in another way"
    source = Path(str(ray.__file__)).parent / "tune" / "execution" / "tune_controller.py"
    for name in ("_resetting_trials", "_trial_to_actor"):
        assert f"self.{name}" in source.read_text(), f"{name}: Tune keeps its trials in another way"
    assert Trial.PENDING == "PENDING" and Trial.RUNNING == "RUNNING"


def test_process_that_ray_ended_for_its_memory_is_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Exception] = []

    def known(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        seen.append(exception)

    monkeypatch.setattr(RayActorManager, "_actor_task_failed", known)
    patch_tune()
    patch_tune()
    task: Any = None
    manager: Any = None
    for error in (OutOfMemoryError("running low on memory"), ActorDiedError(), ValueError("a bug")):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
    assert [type(error) for error in seen] == [RayActorError, ActorDiedError, ValueError]
    assert "ran out of memory" in why_lost(str(seen[0]))


@pytest.mark.slow
def test_driver_knows_its_own_ray_and_the_groups_that_nobody_has(tmp_path: Path) -> None:
    assert not ray_private.has_started_ray() and ray_private.started_processes() == []

    class Creator:
        def reserve(self) -> str:
            group = placement_group([{"CPU": 0.1}])
            ray.get(group.ready())
            return str(group.id.hex())

        def stop(self) -> bool:
            return ray_private.is_stopped()

    with cluster.connected():
        assert ray_private.has_started_ray(), "a local Ray is taken for a cluster: its limits would be cluster.yaml's"
        names = [Path(str(process.args[0])).name for process in ray_private.started_processes()
                 if isinstance(process.args, list)]
        assert "raylet" in names and all(process.poll() is None for process in ray_private.started_processes())
        creator: Any = ray.remote(num_cpus=0)(Creator).remote()
        name = ray.get(creator.reserve.remote())
        assert list(ray_private.orphaned_groups()) == [], "its creator lives"
        ray.kill(creator)
        orphaned = []
        while not orphaned:
            orphaned = [group.id.hex() for group in ray_private.orphaned_groups()]
        assert orphaned == [name], "a group that nobody has would keep its CPUs until the study ends"
        cluster.free_orphaned_groups()
        while placement_group_table()[name]["state"] != "REMOVED":
            pass
        assert list(ray_private.orphaned_groups()) == []
    assert not ray_private.has_started_ray()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_trial_whose_process_dies_while_it_is_made_ready_is_started_again(tmp_path: Path) -> None:
    flag = tmp_path / "died"

    class TwoSteps(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.steps = 0

        def step(self) -> dict[str, Any]:
            self.steps += 1
            return {"number": self.config["number"], "done": self.steps == 2}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if new_config["number"] == 2 and not flag.exists():
                flag.touch()
                os._exit(1)
            self.steps = 0
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

    patch_tune()
    with cluster.connected():
        results = tune.Tuner(
            tune.with_resources(TwoSteps, {"CPU": 1}), param_space={"number": tune.grid_search([0, 1, 2, 3])},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0,
                                      failure_config=tune.FailureConfig(max_failures=2))).fit()
    assert flag.exists()
    assert [(result.metrics or {}).get("number") for result in results] == [0, 1, 2, 3]
    assert not results.errors
