"""Find the split in the name of a file or folder."""

import re

from corpora.manifest import ManifestError

EVAL = "eval"
"""Some call dev so, others test."""
_WORDS = {
    "train": "train", "training": "train", "dev": "dev", "devel": "dev", "development": "dev", "val": "dev",
    "valid": "dev", "validation": "dev", "test": "test", "testing": "test", EVAL: EVAL, "evaluation": EVAL,
}
_TAIL = re.compile(r"(manifest|subset|split|set|data|list)s?$")
"""What a name may append to the word: trainset, devmanifest."""


def named_split(name: str) -> str:
    """The split that a name contains as a separate word: train, dev, test or eval; "" if there is none.

    Raises:
        ManifestError: it contains two.
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    said = {_WORDS[word] for found in words if (word := _TAIL.sub("", found.lower())) in _WORDS}
    if len(said) > 1:
        raise ManifestError(f"{name}: names {' and '.join(sorted(said))}, but a manifest is one split. Say which with "
                            "--train, --dev or --test, or rename it.")
    return said.pop() if said else ""
