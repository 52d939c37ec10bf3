"""All that is used of W&B without being in its documentation (W&B 0.31, wandb-workspaces 0.4).

`tests/test_search_trials_wandb_private.py` says what broke where a new version of W&B moves a part.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def services() -> Iterator[int]:
    """The process ids of W&B's own processes that this one has started: W&B has no way to end one that hangs."""
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "wandb-core":
                    yield int(child)


def drop_link(run: Any) -> None:
    """Remove W&B's link to its own log in the person's cache: it dangles as soon as either of the two is elsewhere."""
    with contextlib.suppress(Exception):  # W&B logs, whatever it is called
        Path(run.settings.log_user).with_name("debug-core.log").unlink(missing_ok=True)


def view_of(workspace: Any) -> list[str]:
    """The name and the id by which W&B's servers know a saved workspace."""
    return [workspace._internal_name, workspace._internal_id]


def write_over(workspace: Any, view: list[str]) -> None:
    """Have `save` write over the workspace of this name and id; `from_url` would ask the servers for it first, and
    fail where a person has removed it."""
    workspace._internal_name, workspace._internal_id = view
