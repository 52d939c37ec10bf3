"""The command `cuarzo`: `python search/run.py` of the folder that Cuarzo is installed from."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Run a study with this folder's code, ahead of any other `models` or `search` in the environment."""
    if not (ROOT / "search" / "run.py").is_file():
        print("error: Cuarzo runs from its own folder, and this is a copy without it. In the folder, run "
              "pip install -c constraints.txt -e . (with -e), or python search/run.py.", file=sys.stderr)
        return 1
    sys.path.insert(0, str(ROOT))
    from installation import check_or_exit

    check_or_exit()
    from search.command_line.commands import run

    return run()
