"""All that is set in the environment of the driver and of trials, where libraries look.

`installation.py` alone sets some too: it runs before any library can be imported.
"""

import os
import pwd
import secrets
from collections.abc import Mapping
from pathlib import Path

# --- the driver -----------------------------------------------------------------------------------------------------


def name_person() -> None:
    """Set USER and HOME where neither the environment nor the system's list of users knows them.

    PyTorch asks for the name as it is imported, W&B and Ray for the home. It is the root then, as Docker has it, where
    nothing can be written: the caches that have to be elsewhere are named by the checks of each.
    """
    try:
        person = pwd.getpwuid(os.getuid())
        name, home = person.pw_name, person.pw_dir
    except KeyError:
        name, home = f"user{os.getuid()}", "/"
    if not any(os.environ.get(variable) for variable in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = name
    if not os.environ.get("HOME"):
        os.environ["HOME"] = home or "/"


ENVIRONMENT = {
    # Ray Train polls its workers this often; its default of 2 s throttles every report (Ray 2.60).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A stopped trial ends its W&B run before its actor takes the next one.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "15",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The watchdog says what was lost, in one line.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that reports nothing costs that trial, not the study.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Each trial of a reused actor is a new thread, which glibc would give a heap of its own to keep.
    "MALLOC_ARENA_MAX": "2",
    # Idle workers are ended after a second: those that made features would keep half a gigabyte each.
    "RAY_num_workers_soft_limit": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # Under `ray job submit` the job's working directory would be in the way of ours, which is the same.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "WANDB_SILENT": "true",
    "PYTHONWARNINGS": "ignore",
}
"""What Ray and W&B go by, in the driver and in every worker."""


def set_up_ray() -> None:
    """Set what a person has not set otherwise, before Ray is connected to."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})


def keep_token_in_memory() -> None:
    """Give a local Ray a token that is in the environment of its processes and in no file."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def import_from(folder: Path) -> None:
    """Have the workers of a local Ray import our packages from the folder that this process took them from."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


# --- W&B, in the driver and in trials -------------------------------------------------------------------------------


WANDB_SERVICE = "WANDB_SERVICE"
"""By which a process tells its children where its own W&B process is."""

OF_THIS_PROCESS = ("WANDB_DIR", "WANDB_DATA_DIR", WANDB_SERVICE)
"""What W&B is told, or tells itself, in the driver alone."""


def wandb_variables() -> dict[str, str]:
    """What W&B goes by here and should go by on other machines."""
    return {name: value for name, value in os.environ.items()
            if name.startswith("WANDB_") and name not in OF_THIS_PROCESS}


def set_up_wandb(**variables: str) -> None:
    """Have W&B go by these, silently, and start a process of ours: the one that a parent's environment names may end
    before we do, or be gone."""
    os.environ.pop(WANDB_SERVICE, None)
    os.environ.update({"WANDB_SILENT": "true"} | variables)


# --- the workers of trials ------------------------------------------------------------------------------------------


TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
            "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT")
"""From these Ray's local mode and PyTorch conclude that there are other processes to wait for."""

FOREIGN = ("TORCHELASTIC_", "PL_")
"""Beginnings of names: the first have PyTorch wait for a store of torchrun's own, the second are Lightning's defaults
for any trainer (PL_TRAINER_MAX_STEPS), which a recipe's figures must not depend on."""


def forget_launcher() -> None:
    """Take out of this worker's environment what PyTorch, Ray and Lightning would obey."""
    for name in [name for name in os.environ if name in TORCHRUN or name.startswith(FOREIGN)]:
        del os.environ[name]


def speak_through(interface: str | None) -> None:
    """Have Gloo and NCCL use a network interface of this node."""
    os.environ.update(socket_variables(interface, os.environ))


def socket_variables(interface: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """What tells Gloo and NCCL which interface is theirs; what a person has set stays.

    Left to itself Gloo takes the address that the node's own name resolves to: 127.0.1.1 by the `/etc/hosts` of Debian
    and Ubuntu, where no other node reaches it.
    """
    if interface is None:
        return {}
    wanted = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}  # without = a beginning of names
    return {name: value for name, value in wanted.items() if not environment.get(name)}
