"""`search/run.py` with trials that raise when they are told to: the one that finds the file `raise` beside `trials/`.

Ray's workers import this module, so it must not be run as a script.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from search import jobs
from search.checkpoints import Keeper
from search.commands import run
from search.setting import TrialSetting
from search.workers import run_trial

FLAG = "raise"

REASON = "told to raise"


def faulty_trial(config: dict[str, Any], setting: TrialSetting) -> None:
    """Stands for `search.workers.run_trial`: the same, but for the fault."""
    before, flag = Keeper.on_train_batch_end, setting.folder.parent / FLAG

    def on_train_batch_end(keeper: Keeper, *values: Any) -> None:
        raise_if_told(flag)
        before(keeper, *values)

    with patch.object(Keeper, "on_train_batch_end", on_train_batch_end):
        run_trial(config, setting)


def raise_if_told(flag: Path) -> None:
    """Only one process finds the file."""
    try:
        flag.unlink()
    except FileNotFoundError:
        return
    raise RuntimeError(REASON)


def main(arguments: Sequence[str] | None = None) -> int:
    """The study."""
    with patch.object(jobs, "run_trial", faulty_trial):
        return run(sys.argv[1:] if arguments is None else arguments)
