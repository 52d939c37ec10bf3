"""Files of a study: writing JSON, and hashing any file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from files.atomic import write_aside


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: Any) -> None:
    """Write JSON, aside and renamed."""
    write_aside(path, json.dumps(values, ensure_ascii=False, indent=1).encode())
