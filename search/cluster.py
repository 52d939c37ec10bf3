"""Connect to the Ray cluster that this runs on, or start a local Ray, and count how many trials fit on it."""

import contextlib
import logging
import math
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.placement_group import remove_placement_group

from corpora import node_cache
from search.environment import ENVIRONMENT, import_from, keep_token_in_memory, name_person, set_up_ray
from search.ray_private import forget_token, has_started_ray, orphaned_groups, read_ray_address, started_processes
from search.records.disk_space import nearest, ray_folder
from search.wording import counted

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("corpora", "files", "models", "search", "spaces")
"""The project's packages that workers import."""

BOOTSTRAP_CONFIG = Path(os.path.expanduser("~/ray_bootstrap_config.yaml"))
"""The cluster.yaml that `ray up` leaves on the head node."""


USABLE_MEMORY = 0.8
"""Share of a node's or a GPU's memory for trials. The rest is for what is not measured with a trial: W&B's process,
Ray, the system. Ray ends processes when 95 % are in use."""


NOT_SHARED = "is not on storage that all nodes share"


class ClusterError(RuntimeError):
    """A cluster that cannot be reached, cannot hold one trial, or whose nodes do not see the same folders."""


ANSWER_S = 10.0
"""A reachable head node answers much sooner, even across continents."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray inside the block: to a cluster that runs here, or else to a local Ray that ends with the block.

    An existing connection of the caller is used, and stays open.
    """
    name_person()
    set_up_ray()
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    _connect()
    try:
        yield
    finally:
        _disconnect()


def _disconnect() -> None:
    """Disconnect from Ray, and kill the processes that we started: SIGTERM, which Ray would try first, is blocked there
    (`supervised`), and Ray's agents would outlive it by half a minute."""
    ours = started_processes()
    agents = [child for process in ours for child in _children(process.pid)]
    for process in ours:
        process.terminate = process.kill
    ray.shutdown()
    for agent in agents:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children")
                for child in tasks.read_text(encoding="ascii").split()]
    except OSError:  # the process has already ended, or this is not Linux
        return []


def _connect() -> None:
    """Connect to the cluster that `ray start` (and so `ray up`) made here, or that RAY_ADDRESS names; else start a Ray.

    Not by Ray's own `auto`: it would also find the local Ray of another study, and to connect to that one and leave it
    again was seen to hang the other study's trials. On a cluster the code travels as Ray's working directory; a local
    Ray finds it where the driver does.
    """
    # Ray writes these into logs that everybody may read: no key is among them, nor what may hold one.
    variables = {name: os.environ[name] for name in ENVIRONMENT}
    variables |= {k: v for k, v in os.environ.items() if k == node_cache.VARIABLE}
    named = os.environ.get("RAY_ADDRESS")
    if address := named or read_ray_address():
        excluded = [".git", "runs", "tests", ".venv", "venv", "*.tar.gz", "*.nemo", "__pycache__"]
        packaged = code_for_workers(ROOT) | {"excludes": excluded, "env_vars": variables}
        try:
            _answers(address)
            ray.init(address=address, runtime_env=packaged, logging_level=logging.ERROR, log_to_driver=False)
            return
        except ConnectionError as error:
            if named:
                raise ClusterError(f"RAY_ADDRESS is {named!r}, and this machine cannot join a Ray cluster there. Start "
                                   "Ray here and there, or unset RAY_ADDRESS for a local Ray.") from error
            print(f"the Ray cluster that was here ({address}) does not answer: a local Ray is started", flush=True)
    _check_sockets(ray_folder())
    # Ray keeps the token of an earlier start in memory, where the processes of this one do not find it.
    forget_token()
    if not os.access(nearest(Path.home() / ".ray"), os.W_OK):
        keep_token_in_memory()  # Ray would write it there
    if is_checkout(ROOT):  # else they find what is installed, as this process does
        import_from(ROOT)
    try:
        # The dashboard frees the worker groups of stopped trials; without it a sweep hangs (Ray issue 54305).
        ray.init(address="local", include_dashboard=True, runtime_env={"env_vars": variables},
                 logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray has no type of its own for it
        if not re.search("timed out (during startup|waiting for file)", str(error), re.IGNORECASE):
            raise
        raise ClusterError("Ray did not start in time: the machine is too busy or short of memory. Run the same "
                           f"command again when less runs on it; Ray's own logs are in {_logs()}.") from error


def _logs() -> Path:
    return ray_folder() / "ray" / "session_latest" / "logs"


def _answers(address: str) -> None:
    """See that somebody listens at HOST:PORT: Ray itself tries an address that is gone for minutes.

    Raises:
        ConnectionError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return  # Ray's to understand
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def is_checkout(root: Path) -> bool:
    """Whether a folder is a checkout of the project, and not site-packages, as after `pip install .`."""
    return (root / "pyproject.toml").is_file()


def code_for_workers(root: Path) -> dict[str, Any]:
    """The part of a runtime environment that ships the code to other nodes: the project's folder if it is a checkout,
    otherwise only its packages."""
    if is_checkout(root):
        return {"working_dir": str(root)}
    return {"py_modules": [str(root / name) for name in PACKAGES]}


SOCKET_BYTES, BELOW_BYTES = 107, len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead")
"""The longest socket path on Linux, and the length of what Ray appends to its temporary folder."""


def _check_sockets(folder: Path) -> None:
    """Refuse a temporary folder in which Ray could not create sockets.

    Raises:
        ClusterError: its path is too long.
    """
    length = len(os.fsencode(folder))
    if length > SOCKET_BYTES - BELOW_BYTES:
        raise ClusterError(f"{folder}: its path has {length} bytes; Ray creates sockets in it, for which Linux allows "
                           f"{SOCKET_BYTES - BELOW_BYTES}. Name a shorter folder with RAY_TMPDIR, as RAY_TMPDIR=/tmp; "
                           "other temporary files stay where TMPDIR says.")


def check_shared(folder: Path) -> None:
    """Refuse to work on a node that does not see a folder created by the driver.

    Raises:
        ClusterError: the folder does not exist here; what is written to it would stay on this node, out of the driver's
            sight.
    """
    if not folder.is_dir():
        raise ClusterError(f"{folder}: {NOT_SHARED}; {socket.gethostname()} has no such folder. Name folders with "
                           "--out and --cache that every node mounts at the same path.")


def nodes(bootstrap: Path = BOOTSTRAP_CONFIG) -> list[dict[str, float]]:
    """What each node offers (CPU, GPU, memory in bytes), including nodes that the autoscaler may still add.

    The autoscaler's limits come from the configuration that `ray up` leaves on the head node; elsewhere, and on a local
    Ray, only the present nodes count.
    """
    now = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    if has_started_ray() or not bootstrap.exists():
        return now
    config = yaml.safe_load(bootstrap.read_text(encoding="utf-8"))
    head, grown = config.get("head_node_type"), []
    for name, kind in config.get("available_node_types", {}).items():
        count = 1 if name == head else min(kind.get("max_workers", 0), config.get("max_workers", 2))
        grown += [{key: float(value) for key, value in kind.get("resources", {}).items()}] * count
    return max(now, grown, key=lambda nodes: (_total(nodes, "GPU"), _total(nodes, "CPU")))


def _total(nodes: Sequence[Mapping[str, float]], resource: str) -> float:
    return sum((node.get(resource, 0.0) for node in nodes), 0.0)


def resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster, including those that its autoscaler may still add."""
    offered = nodes()
    return {name: _total(offered, name) for name in ("CPU", "GPU")}


def usable_bytes(node: Mapping[str, float]) -> float:
    """Memory of a node that trials may use; infinite if it is unknown, as for a node that has yet to be added."""
    # Ray divides the free memory between these two, and the object store takes its part only when it is used.
    return USABLE_MEMORY * (node.get("memory", math.inf) + node.get("object_store_memory", 0.0))


def free_orphaned_groups() -> None:
    """Remove the placement groups of this driver whose creator is dead: Ray keeps them until the driver ends.

    Ray Train's own cleaner knows a group only once all its workers run; a controller that is killed before then, or
    while it starts them again, leaves the group's CPUs and GPUs reserved for nobody (Ray 2.60).
    """
    for group in orphaned_groups():
        remove_placement_group(group)


def capacity(num_workers: int, cpus_per_worker: float, gpus_per_worker: float, worker_bytes: float = 0.0) -> int:
    """Trials that the cluster can run at the same time, grown to its limit; where memory is short, at least one.

    Raises:
        ClusterError: not even one fits.
    """
    offered = nodes()
    fits = [_workers(node, cpus_per_worker, gpus_per_worker) for node in offered]
    if sum(fits) < num_workers:
        raise ClusterError(
            f"{counted(num_workers, 'worker')} of one training {'wants' if num_workers == 1 else 'want'} "
            f"{counted(num_workers * cpus_per_worker, 'CPU')} and {counted(num_workers * gpus_per_worker, 'GPU')}; "
            f"the cluster has {_total(offered, 'CPU'):g} and "
            f"{_total(offered, 'GPU'):g}. Use fewer workers, lower --cpus-per-worker or --gpus-per-worker (a worker "
            "has to fit on one node), or add nodes.")
    if worker_bytes:
        fits = [min(count, usable_bytes(node) // worker_bytes) for count, node in zip(fits, offered, strict=True)]
    return max(1, int(sum(fits)) // num_workers)


def cpus_for(num_workers: int, gpus_per_worker: float) -> float:
    """The largest whole number of CPUs, at least one, that each of this many workers can have besides its GPUs."""
    offered = nodes()
    for cpus in range(int(_total(offered, "CPU")) // num_workers, 1, -1):
        if sum(_workers(node, cpus, gpus_per_worker) for node in offered) >= num_workers:
            return float(cpus)
    return 1.0


def _workers(node: Mapping[str, float], cpus: float, gpus: float) -> float:
    """Number of workers that fit on a node; a share of a GPU must come from a single GPU."""
    fits = [node.get("CPU", 0.0) / cpus]
    if gpus:
        per_gpu = int(1 / gpus + 1e-6)
        fits.append(node.get("GPU", 0.0) * per_gpu if per_gpu else node.get("GPU", 0.0) / gpus)
    return int(min(fits) + 1e-6)
