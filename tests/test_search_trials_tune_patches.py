"""Errors of Ray Tune: what would cost a trial or the whole search costs nothing with our mends."""

import os
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError

from search import cluster
from search.trials.tune_patches import patch_tune
from search.trials.watchdog import why_lost


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
