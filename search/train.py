"""`python search/train.py runs/NAME/best/recipe.yaml`: train a recipe to its end, for production."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # in place of search/, so that `models` and `spaces` are ours

if __name__ == "__main__":
    from installation import check_or_exit

    check_or_exit()
    from search.commands import train

    sys.exit(train())
