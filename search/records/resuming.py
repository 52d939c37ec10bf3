"""The flag that resumes a run."""

import shlex
from pathlib import Path


def resume_flag(folder: Path) -> str:
    """The flag that resumes a run, to paste after `python search/run.py` or `train.py`."""
    return f"--resume {shlex.quote(str(folder))}"
