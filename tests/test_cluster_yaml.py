"""cluster.yaml is one that Ray takes, with GPU nodes that come from none and the versions that the project needs."""

import copy
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.util import prepare_config, validate_config

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return read


def commands(config: dict[str, Any], *names: str) -> str:
    return "\n".join(command for name in names for command in config[name])


def test_ray_takes_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0, "one head"


def test_ray_would_refuse_a_field_that_it_does_not_know(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="min_wokers"):
        changed = copy.deepcopy(config)
        changed["available_node_types"]["gpu"]["min_wokers"] = 0
        validate_config(prepare_config(changed))


def test_gpu_nodes_come_from_none_on_spot_up_to_a_ceiling(config: dict[str, Any]) -> None:
    gpu = prepare_config(copy.deepcopy(config))["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] >= 1 and gpu["resources"]["CPU"] >= 2
    assert gpu["min_workers"] == 0 and 0 < gpu["max_workers"] <= config["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["idle_timeout_minutes"] <= 10


def test_head_has_no_gpu_and_is_not_taken_back(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert "GPU" not in head["resources"] and head["resources"]["CPU"] > 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_nodes_install_the_lock_and_ray_is_the_images(config: dict[str, Any], project: dict[str, Any]) -> None:
    (remote, _), = config["file_mounts"].items()
    assert f'pip install -q -c {remote}/constraints.txt -e "{remote}[aws]"' in commands(config, "setup_commands")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    [locked] = [line.removeprefix("ray==") for line in lines if line.startswith("ray==")]
    ours = next(r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    assert ours.specifier.contains(locked) and ours.extras == {"default", "train", "tune"}
    kubernetes = yaml.safe_load((ROOT / "docs/kuberay.yaml").read_text(encoding="utf-8"))
    assert kubernetes["spec"]["rayClusterSpec"]["rayVersion"] == locked
    assert f"FROM rayproject/ray:{locked}-py3" in (ROOT / "docs/cluster.md").read_text(encoding="utf-8")


def test_python_on_the_nodes_is_one_that_the_project_takes(config: dict[str, Any], project: dict[str, Any]) -> None:
    used = set(re.findall(r"python(3\.\d+)", commands(config, "setup_commands", "initialization_commands")))
    assert len(used) == 1
    assert SpecifierSet(project["requires-python"]).contains(f"{used.pop()}.9")


def test_project_is_carried_to_every_node(config: dict[str, Any]) -> None:
    (_, local), = config["file_mounts"].items()
    assert (ROOT / local / "constraints.txt").is_file()


def test_data_does_not_travel_with_the_folder_and_can_be_sent_by_its_name(config: dict[str, Any]) -> None:
    """Ray gives `rsync_exclude` to `ray rsync-up` and `rsync-down` too; a folder's filter leaves named files alone."""
    assert config["rsync_filter"] == [".gitignore", ".rayignore"] and not config.get("rsync_exclude")
    assert {".git", "*.nemo", "*.tar.gz"} <= set((ROOT / ".rayignore").read_text(encoding="utf-8").split())


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_leaves_data_in_the_folder_and_takes_what_it_is_given(config: dict[str, Any], tmp_path: Path) -> None:
    folder, node, storage = (tmp_path / name for name in ("folder", "node", "storage"))
    for path in (folder / "search/run.py", folder / "runs/x/study.db", folder / "model.nemo", folder / "es.tar.gz"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    for name in config["rsync_filter"]:
        shutil.copy(ROOT / name, folder)
    options: Any = {name: config.get(name) for name in ("rsync_filter", "rsync_exclude")}
    rsync = ["rsync", "-a", *SSHCommandRunner._create_rsync_filter_args(None, options)]
    subprocess.run([*rsync, f"{folder}/", f"{node}/"], check=True)
    assert {path.name for path in node.rglob("*") if path.is_file()} == {"run.py", *config["rsync_filter"]}
    subprocess.run([*rsync, "es.tar.gz", "model.nemo", f"{storage}/"], check=True, cwd=folder)
    assert {path.name for path in storage.iterdir()} == {"es.tar.gz", "model.nemo"}


def test_runs_and_cache_are_on_storage_that_all_nodes_mount(config: dict[str, Any]) -> None:
    mount = re.search(r"sudo mount -t nfs4 -o (\S+) (\S+):/ (\S+)$", commands(config, "initialization_commands"), re.M)
    assert mount and config["provider"]["region"] in mount[2], "the file system is of the cluster's region"
    assert "lookupcache=positive" in mount[1], "a node would not see for a minute what another one has written"
    cache = re.search(r"CUARZO_CACHE=([^\s\\]+)", commands(config, "setup_commands"))
    assert cache and cache[1].startswith(mount[3] + "/")


def test_dashboard_runs_and_workers_find_the_head(config: dict[str, Any]) -> None:
    head = commands(config, "head_start_ray_commands")
    assert "ray start --head" in head and "--include-dashboard=true" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    port = re.search(r"--port=(\d+)", head)
    assert port and f"--address=$RAY_HEAD_IP:{port[1]}" in commands(config, "worker_start_ray_commands")


def test_no_node_keeps_the_others_out_by_a_token_of_its_own(config: dict[str, Any]) -> None:
    """Ray 2.60 takes a token that it finds in a home folder, and the nodes share none."""
    assert "export RAY_AUTH_MODE=disabled" in commands(config, "setup_commands")
