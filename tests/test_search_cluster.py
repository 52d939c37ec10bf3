"""Studies on one machine keep to themselves, and a cluster counts with what it can grow to."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._raylet import AuthenticationTokenLoader

from search import cluster
from search.cluster import ClusterError, capacity, connected, cpus_for, nodes, resources

ROOT = Path(__file__).resolve().parents[1]

STUDY = """
from search.cluster import connected
import ray
with connected():
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
"""


def node(*, alive: bool = True, **offered: float) -> dict[str, Any]:
    """As Ray lists it."""
    return {"Alive": alive, "Resources": offered}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_second_study_on_a_machine_starts_a_ray_of_its_own() -> None:
    studies, addresses = [], []
    for _ in range(2):
        study = subprocess.Popen([sys.executable, "-c", STUDY], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        assert study.stdout is not None
        addresses.append(study.stdout.readline().strip())
        studies.append(study)
    for study in studies:
        study.communicate("\n", timeout=60)
    assert all(addresses) and addresses[0] != addresses[1]


@pytest.mark.parametrize("is_there", [True, False], ids=["no Ray answers", "nobody listens"])
def test_cluster_that_is_named_and_does_not_answer_is_no_local_study(is_there: bool,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was left behind by `ray start` is no cluster any more; Ray itself would try it for minutes."""
    addresses = []
    listener = socket.create_server(("127.0.0.1", 0))
    gone = f"127.0.0.1:{listener.getsockname()[1]}"
    if not is_there:
        listener.close()

    def init(address: str, **_: Any) -> None:
        addresses.append(address)
        if address != "local":
            raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "read_ray_address", lambda: gone)
    monkeypatch.setattr(os, "environ", os.environ | {"RAY_ADDRESS": gone})
    with pytest.raises(ClusterError, match=f"RAY_ADDRESS is '{gone}'"), connected():
        pass
    assert addresses == [gone] * is_there
    del os.environ["RAY_ADDRESS"]
    with connected():
        pass
    assert addresses == [gone, gone] * is_there + ["local"]
    listener.close()


@pytest.mark.parametrize("words", ["The current node timed out during startup. This could happen because ...",
                                   "Timed out waiting for file /tmp/ray/session_x/gcs_server_port_y"])
def test_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "read_ray_address", lambda: None)
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"})
    with pytest.raises(ClusterError, match="too busy or short of memory.*again when less.*session_latest/logs"
                       ), connected():
        pass


def test_ray_starts_again_after_its_token_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that starts Ray twice: the second Ray's own processes look for the token on disk again."""
    found: list[bool] = []
    loader = AuthenticationTokenLoader.instance()
    monkeypatch.setattr(ray, "init", lambda **_: found.append(loader.has_token(ignore_auth_mode=True)))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "read_ray_address", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    with connected():
        pass
    token.unlink()
    with connected():
        pass
    assert found == [True, False]


def test_autoscaling_cluster_counts_the_workers_it_may_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(CPU=16.0)])
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    bootstrap = tmp_path / "ray_bootstrap_config.yaml"
    bootstrap.write_text(yaml.safe_dump(config))
    workers = config["available_node_types"]
    num_gpu_nodes = min(config["max_workers"], sum(kind.get("max_workers", 0) for kind in workers.values()))
    assert sum("GPU" in offered for offered in nodes(bootstrap)) == num_gpu_nodes > 0
    assert nodes(tmp_path / "none.yaml") == [{"CPU": 16.0}]
    # A head that was started again keeps the file, and a Ray of the study's own has no autoscaler.
    monkeypatch.setattr(cluster, "has_started_ray", lambda: True)
    assert nodes(bootstrap) == [{"CPU": 16.0}]
    assert resources() == {"CPU": 16.0, "GPU": 0.0}


@pytest.mark.parametrize(("offered", "workers", "gpus", "cpus"), [
    ([node(CPU=16.0)] + [node(CPU=8.0, GPU=1.0)] * 8, 8, 1.0, 8.0),  # the head's CPUs are of no use to who needs a GPU
    ([node(CPU=16.0, GPU=4.0)], 4, 1.0, 4.0),
    ([node(CPU=16.0, GPU=1.0)], 4, 0.25, 4.0),
    ([node(CPU=10.0), node(CPU=2.0)], 2, 0.0, 5.0),
    ([node(CPU=2.0)], 2, 0.0, 1.0),
    ([node(CPU=2.0)], 8, 0.0, 1.0),
])
def test_workers_of_a_training_get_the_cpus_beside_their_gpus(monkeypatch: pytest.MonkeyPatch, workers: int,
                                                              offered: list[dict[str, Any]], gpus: float,
                                                              cpus: float) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: offered)
    assert cpus_for(workers, gpus) == cpus
    assert cpus == 1.0 or capacity(workers, cpus, gpus) == 1


def test_trial_that_does_not_fit_is_refused_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(CPU=4.0, GPU=1.0)])
    assert capacity(1, 1.0, 0.25) == 4
    assert capacity(2, 1.0, 0.0) == 2
    with pytest.raises(ClusterError, match="wants? 4 CPUs and 2 GPUs; the cluster has 4 and 1"):
        capacity(2, 2.0, 1.0)


def test_half_a_cpu_a_trial_runs_four_on_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(CPU=2.0)])
    assert capacity(1, 0.5, 0.0) == 4


def test_no_trial_is_counted_that_would_have_to_span_nodes_or_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [node(CPU=3.0), node(CPU=3.0), node(alive=False, CPU=64.0)])
    assert capacity(1, 2.0, 0.0) == 2
    with pytest.raises(ClusterError, match="wants? 4 CPUs and 0 GPUs; the cluster has 6 and 0"):
        capacity(1, 4.0, 0.0)
    monkeypatch.setattr(ray, "nodes", lambda: [node(CPU=8.0, GPU=2.0)])
    assert [capacity(1, 1.0, gpus) for gpus in (0.4, 0.3333, 2.0)] == [4, 6, 1]


def test_memory_bounds_the_trials_of_each_node_and_leaves_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = node(CPU=8.0, memory=6e9, object_store_memory=4e9), node(CPU=8.0, memory=100e9)
    monkeypatch.setattr(ray, "nodes", lambda: [small, large, node(CPU=2.0)])
    assert capacity(1, 1.0, 0.0, worker_bytes=3e9) == 2 + 8 + 2  # of 8 GB; of the last node nothing is known
    monkeypatch.setattr(ray, "nodes", lambda: [small])
    assert capacity(1, 1.0, 0.0, worker_bytes=30e9) == 1


def test_workers_get_the_project_and_nothing_else_that_is_installed(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """After an installation that is not editable its folder is site-packages, of gigabytes."""
    assert cluster.code_for_workers(ROOT) == {"working_dir": str(ROOT)}
    assert cluster.code_for_workers(tmp_path) == {"py_modules": [
        str(tmp_path / name) for name in cluster.PACKAGES]}
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: told.append(options["runtime_env"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "ROOT", tmp_path)
    monkeypatch.setattr(os, "environ", os.environ | {"PYTHONPATH": "/mine"})
    for address in (None, "10.0.0.1:6379"):
        monkeypatch.setattr(cluster, "read_ray_address", lambda address=address: address)
        with connected():
            pass
    local, packaged = told
    assert os.environ["PYTHONPATH"] == "/mine" and "working_dir" not in packaged | local
    assert len(packaged["py_modules"]) == len(cluster.PACKAGES)
