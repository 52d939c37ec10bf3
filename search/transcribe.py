"""`python search/transcribe.py MODEL CLIP…`: print transcripts of clips."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]  # in place of search/, where Python has put that
    sys.path[:1] = [str(root), *(path for path in sys.path[:1] if Path(path).resolve() != root / "search")]
    from installation import check_or_exit

    check_or_exit()
    from search.command_line.commands import transcribe

    sys.exit(transcribe())
