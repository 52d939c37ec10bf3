"""The environment variables that are set for libraries, in the driver and in trials.

Only `installation.py` sets others: it runs before any library can be imported.
"""

import os
import pwd
import secrets
from collections.abc import Mapping
from pathlib import Path

# --- the driver -----------------------------------------------------------------------------------------------------


def name_person() -> None:
    """Set USER and HOME if neither the environment nor the system's user database has them.

    PyTorch needs the name when it is imported; W&B and Ray need the home. As in Docker, the home is then the root,
    where nothing can be written: the checks of each cache say which ones must be elsewhere.
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
    # A trial that reports nothing fails alone, not the whole study.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Each trial of a reused actor is a new thread, for which glibc would create a heap and keep it.
    "MALLOC_ARENA_MAX": "2",
    # End idle workers after a second: each one that made features would hold half a gigabyte.
    "RAY_num_workers_soft_limit": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # Under `ray job submit`, the job's working directory would conflict with ours, although they are the same.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "WANDB_SILENT": "true",
    "PYTHONWARNINGS": "ignore",
}
"""Settings of Ray and W&B, in the driver and in every worker."""


def set_up_ray() -> None:
    """Set the variables that the user has not set, before connecting to Ray."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})


def keep_token_in_memory() -> None:
    """Give a local Ray a token that is in the environment of its processes and in no file."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def import_from(folder: Path) -> None:
    """Make the workers of a local Ray import our packages from the same folder as this process."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


# --- W&B, in the driver and in trials -------------------------------------------------------------------------------


WANDB_SERVICE = "WANDB_SERVICE"
"""Tells a process's children where its W&B process is."""

OF_THIS_PROCESS = ("WANDB_DIR", "WANDB_DATA_DIR", WANDB_SERVICE)
"""Variables that apply to this process only."""


def wandb_variables() -> dict[str, str]:
    """W&B's settings on this machine that should also apply on others."""
    return {name: value for name, value in os.environ.items()
            if name.startswith("WANDB_") and name not in OF_THIS_PROCESS}


def set_up_wandb(**variables: str) -> None:
    """Give W&B these settings, silence it, and make it start its own process: the one that the parent's environment
    names may end before this process does, or be gone already."""
    os.environ.pop(WANDB_SERVICE, None)
    os.environ.update({"WANDB_SILENT": "true"} | variables)


# --- the workers of trials ------------------------------------------------------------------------------------------


TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
            "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT")
"""Variables from which Ray's local mode and PyTorch conclude that there are other processes to wait for."""

FOREIGN = ("TORCHELASTIC_", "PL_")
"""Prefixes: the first makes PyTorch wait for torchrun's store; the second sets Lightning's defaults for any trainer
(PL_TRAINER_MAX_STEPS), on which a recipe's results must not depend."""


def forget_launcher() -> None:
    """Remove a launcher's variables from this worker's environment: PyTorch, Ray and Lightning would follow them."""
    for name in [name for name in os.environ if name in TORCHRUN or name.startswith(FOREIGN)]:
        del os.environ[name]


def speak_through(interface: str | None) -> None:
    """Make Gloo and NCCL use this network interface of the node."""
    os.environ.update(socket_variables(interface, os.environ))


def socket_variables(interface: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that choose the interface of Gloo and NCCL; those that the user has set stay.

    By default, Gloo uses the address that the node's own name resolves to: 127.0.1.1 in the `/etc/hosts` of Debian and
    Ubuntu, which no other node can reach.
    """
    if interface is None:
        return {}
    wanted = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}  # without =, a prefix
    return {name: value for name, value in wanted.items() if not environment.get(name)}
