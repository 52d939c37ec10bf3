"""Which split a file's or a folder's name says."""

import re

from corpora.manifest import ManifestError

EVAL = "eval"
"""Dev to some, test to others."""
_WORDS = {
    "train": "train", "training": "train", "dev": "dev", "devel": "dev", "development": "dev", "val": "dev",
    "valid": "dev", "validation": "dev", "test": "test", "testing": "test", EVAL: EVAL, "evaluation": EVAL,
}
_TAIL = re.compile(r"(manifest|subset|split|set|data|list)s?$")
"""What a name may hang to the word: trainset, devmanifest."""


def named_split(name: str) -> str:
    """The split that a name says as a word of its own: train, dev, test or eval; "" where it says none.

    Raises:
        ManifestError: it says two.
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    said = {_WORDS[word] for found in words if (word := _TAIL.sub("", found.lower())) in _WORDS}
    if len(said) > 1:
        raise ManifestError(f"{name}: names {' and '.join(sorted(said))}, and a manifest is one split. Say which with "
                            "--train, --dev or --test, or rename it.")
    return said.pop() if said else ""
