"""Words for a shell: commands that are printed to be pasted, such as the one that resumes a run."""

import re
import shlex
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def quoted(text: str | Path) -> str:
    """The text quoted for a shell, on one line and without terminal control characters."""
    if not _CONTROL.search(str(text)):
        return shlex.quote(str(text))
    safe = str(text).replace("\\", r"\\").replace("'", r"\'")
    return "$'" + _CONTROL.sub(lambda sign: "".join(f"\\x{byte:02x}" for byte in sign[0].encode()), safe) + "'"


def command(*words: str | Path) -> str:
    """A shell command of these words."""
    return " ".join(map(quoted, words))


def resume_flag(folder: Path) -> str:
    """The flag that resumes a run, to paste after `python search/run.py` or `train.py`."""
    return f"--resume {quoted(folder)}"
