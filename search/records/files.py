"""Files of a study: writing JSON, and hashing any file."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from files.atomic import write_aside
from search.config import ConfigError


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Restore the file from a copy.") from None


@contextlib.contextmanager
def damage_named(path: Path, mend: str = "Restore the file from a copy, or move it away.") -> Iterator[None]:
    """Inside the block a value that is not of its kind, or is missing, is the fault of what a file of ours holds.

    Raises:
        ConfigError: in place of Python's own error, with the file's name.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".: ")
        raise ConfigError(f"{path}: cannot be read ({why}). {mend}") from error


def write_json(path: Path, values: Any) -> None:
    """Write JSON to a temporary file and rename it."""
    write_aside(path, json.dumps(values, ensure_ascii=False, indent=1).encode())
