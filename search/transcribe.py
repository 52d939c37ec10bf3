"""`python search/transcribe.py MODEL CLIP…`: print what a model hears."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # in place of search/, so that `models` and `spaces` are ours

if __name__ == "__main__":
    from installation import check_or_exit

    check_or_exit()
    from search.commands import transcribe

    sys.exit(transcribe())
