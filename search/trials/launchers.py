"""Give each worker its rank explicitly. What Slurm, LSF, MPI, torchrun or Kubernetes left in the environment belongs to
the job that Ray or the study was started in, not to the worker."""

import contextlib
import ipaddress
import os
from dataclasses import dataclass
from typing import Any

import ray
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.utilities import rank_zero_only
from ray.train.torch import TorchConfig

from search.environment import forget_launcher, speak_through
from search.ray_private import addresses_here


class OwnPlace(ClusterEnvironment):
    """A worker's rank in its trial, so that Lightning does not look for it in the environment."""

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0, node_rank: int = 0) -> None:
        super().__init__()
        self._rank, self._world_size, self._local_rank, self._node_rank = rank, world_size, local_rank, node_rank
        # On import, Lightning has read it from RANK, SLURM_PROCID and others.
        rank_zero_only.rank = rank  # type: ignore[attr-defined]

    @classmethod
    def in_group(cls) -> "OwnPlace":
        """The ranks that Ray Train has given this worker."""
        context = ray.train.get_context()
        return cls(context.get_world_rank(), context.get_world_size(), context.get_local_rank(),
                   context.get_node_rank())

    @property
    def creates_processes_externally(self) -> bool:
        """Ray has started all of them."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the process group, which Ray has started if there is one."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Its port."""
        return int(os.environ.get("MASTER_PORT", 0))

    @staticmethod
    def detect() -> bool:
        """Never detected: it is always passed explicitly."""
        return False

    def world_size(self) -> int:
        """Number of workers of the trial."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Ignored: the size is fixed."""

    def global_rank(self) -> int:
        """The worker's rank in its trial."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Ignored: the rank is fixed."""

    def local_rank(self) -> int:
        """The worker's rank on its node."""
        return self._local_rank

    def node_rank(self) -> int:
        """The node's rank."""
        return self._node_rank


# --- the process group ----------------------------------------------------------------------------------------------


@dataclass
class GroupConfig(TorchConfig):
    """PyTorch's process group as Ray Train starts it, without the launcher's environment variables."""

    @property
    def backend_cls(self) -> Any:
        """The class that starts it."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(prepare_worker)
        super().on_start(worker_group, backend_config)


def prepare_worker() -> None:
    """Before the process group starts, forget the launcher and choose the network interface that Ray uses here."""
    forget_launcher()
    speak_through(interface_of(ray.util.get_node_ip_address()))


def interface_of(address: str) -> str | None:
    """The network interface of this machine with this address; None if there is none, as behind NAT, or if no other
    machine can reach the address."""
    wanted = ipaddress.ip_address(address)
    if wanted.is_loopback:
        return None
    for name, found in addresses_here():
        with contextlib.suppress(ValueError):  # not an IP address, but a MAC address for example
            if ipaddress.ip_address(found.partition("%")[0]) == wanted:
                return name
    return None

