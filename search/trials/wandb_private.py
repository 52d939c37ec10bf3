"""Every use of undocumented parts of W&B (W&B 0.31, wandb-workspaces 0.4).

`tests/test_search_trials_wandb_private.py` reports what a new version of W&B breaks.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def services() -> Iterator[int]:
    """Process ids of the W&B services that this process started; W&B has no way to end one that hangs."""
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "wandb-core":
                    yield int(child)


def drop_link(run: Any) -> None:
    """Remove W&B's link to its log in the user's cache, which would dangle as soon as either of the two is moved."""
    with contextlib.suppress(Exception):  # the run logs without it
        Path(run.settings.log_user).with_name("debug-core.log").unlink(missing_ok=True)


def view_of(workspace: Any) -> list[str]:
    """The name and the id of a saved workspace on W&B's servers."""
    return [workspace._internal_name, workspace._internal_id]


def write_over(workspace: Any, view: list[str]) -> None:
    """Make `save` overwrite the workspace of this name and id; `from_url` would load it from the servers first, and
    fail if the user has deleted it."""
    workspace._internal_name, workspace._internal_id = view
