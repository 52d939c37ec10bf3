"""Downloads from the broken server, without waits between attempts."""

import hashlib
from pathlib import Path
from typing import Any

from broken_server import Server

from search.speech.catalog import Remote
from search.speech.download import download

AT_ONCE = (0.0, 0.0, 0.0)
"""Waits before new attempts."""


def remote(server: Server, *, is_known: bool = False) -> Remote:
    """The server's file; `is_known` by size and hash."""
    known: dict[str, Any] = {"num_bytes": len(server.content), "sha256": hashlib.sha256(server.content).hexdigest()}
    return Remote(url=f"{server.url}/a/file.bin", terms="its terms", **(known if is_known else {}))


def get(server: Server, target: Path, *, is_known: bool = False, **options: Any) -> Path:
    return download(remote(server, is_known=is_known), target, **{"waits_s": AT_ONCE} | options)


def parts(target: Path) -> list[str]:
    """What is there beside the lock."""
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")
