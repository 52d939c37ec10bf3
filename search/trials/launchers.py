"""A worker's place is what we say. What Slurm, LSF, MPI, torchrun or Kubernetes left in the environment is not its own:
it is of the job that Ray or the study was started in."""

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
    """A worker's place among those of its trial, for Lightning, which asks nobody else then."""

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0, node_rank: int = 0) -> None:
        super().__init__()
        self._rank, self._world_size, self._local_rank, self._node_rank = rank, world_size, local_rank, node_rank
        # Lightning took it from RANK, SLURM_PROCID and others as it was imported.
        rank_zero_only.rank = rank  # type: ignore[attr-defined]

    @classmethod
    def in_group(cls) -> "OwnPlace":
        """As Ray Train has placed this worker."""
        context = ray.train.get_context()
        return cls(context.get_world_rank(), context.get_world_size(), context.get_local_rank(),
                   context.get_node_rank())

    @property
    def creates_processes_externally(self) -> bool:
        """Ray has started all there are."""
        return True

    @property
    def main_address(self) -> str:
        """Of a process group that Lightning would start; Ray has, where there is one."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Likewise."""
        return int(os.environ.get("MASTER_PORT", 0))

    @staticmethod
    def detect() -> bool:
        """It is given, never looked for."""
        return False

    def world_size(self) -> int:
        """Workers of the trial."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """It stays."""

    def global_rank(self) -> int:
        """The worker's number."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """It stays."""

    def local_rank(self) -> int:
        """The worker's number on its node."""
        return self._local_rank

    def node_rank(self) -> int:
        """The node's number."""
        return self._node_rank


# --- the process group ----------------------------------------------------------------------------------------------


@dataclass
class GroupConfig(TorchConfig):
    """PyTorch's process group as Ray Train starts it, in an environment that is its own."""

    @property
    def backend_cls(self) -> Any:
        """What starts it."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(prepare_worker)
        super().on_start(worker_group, backend_config)


def prepare_worker() -> None:
    """Before the process group starts: forget the launcher, and speak where Ray reaches this node."""
    forget_launcher()
    speak_through(interface_of(ray.util.get_node_ip_address()))


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has an address; None where none has it, as behind NAT, or where it
    is one that no other machine reaches."""
    wanted = ipaddress.ip_address(address)
    if wanted.is_loopback:
        return None
    for name, found in addresses_here():
        with contextlib.suppress(ValueError):  # of another kind, as an Ethernet address
            if ipaddress.ip_address(found.partition("%")[0]) == wanted:
                return name
    return None

