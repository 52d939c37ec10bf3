"""How a run is resumed, in the words of a command line."""

import shlex
from pathlib import Path


def resume_flag(folder: Path) -> str:
    """What goes on with a run, to be pasted behind `python search/run.py` or `train.py`."""
    return f"--resume {shlex.quote(str(folder))}"
