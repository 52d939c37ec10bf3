"""The cost of finding the best recipe, by searcher: `python benchmarks/search.py --curves FILE`; see searchers.py.

A file of this name hides the package `search` from every script of this folder; when imported, it stands in for it.
"""

import sys
from pathlib import Path

if __name__ == "search":
    __path__ = [str(Path(__file__).resolve().parents[1] / "search")]

if __name__ == "__main__":
    from searchers import main

    sys.exit(main())
