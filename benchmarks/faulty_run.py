"""`search/run.py` with trials that raise on request: the one that finds the file `raise` next to `trials/`.

Ray's workers import this module, so it must not be run as a script.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from search.command_line.commands import run
from search.trials import run_trials
from search.trials.checkpointing import CheckpointCallback
from search.trials.context import TrialContext
from search.trials.trainable import run_trial

FLAG = "raise"

REASON = "told to raise"


def faulty_trial(config: dict[str, Any], context: TrialContext) -> None:
    """Stands for `search.trials.trainable.run_trial`: the same, but for the fault."""
    before, flag = CheckpointCallback.on_train_batch_end, context.folder.parent / FLAG

    def on_train_batch_end(callback: CheckpointCallback, *values: Any) -> None:
        raise_if_told(flag)
        before(callback, *values)

    with patch.object(CheckpointCallback, "on_train_batch_end", on_train_batch_end):
        run_trial(config, context)


def raise_if_told(flag: Path) -> None:
    """Only one process finds the file."""
    try:
        flag.unlink()
    except FileNotFoundError:
        return
    raise RuntimeError(REASON)


def main(arguments: Sequence[str] | None = None) -> int:
    """The study."""
    with patch.object(run_trials, "run_trial", faulty_trial):
        return run(sys.argv[1:] if arguments is None else arguments)
