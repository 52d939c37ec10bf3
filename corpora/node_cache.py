"""A node's local copies of files on shared storage, made once for all its processes."""

import errno
import logging
import os
import shutil
from pathlib import Path

from files.atomic import take_place
from files.locks import file_lock

VARIABLE = "CUARZO_NODE_CACHE"
"""Environment variable with a folder on each node's own disk; if unset, shared storage is read directly."""

SPARE_BYTES = 4 << 30
"""Left free on the node's disk for Ray's files and other programs."""

_log = logging.getLogger(__name__)


def nearby(path: Path) -> Path:
    """The node's copy of a file that never changes, or the file itself if there is no room for one.

    Copies are named after the file and its folder.
    """
    cache = os.environ.get(VARIABLE)
    if not cache:
        return path
    copy = Path(cache).expanduser() / path.parent.name / path.name
    try:
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy_once(path, copy)
    except OSError as error:
        _log.warning("%s: is read from shared storage, because it cannot be copied to %s (%s)", path, copy, error)
        return path
    return copy


def _copy_once(path: Path, copy: Path) -> None:
    """Write it aside and rename it, under a lock that the kernel releases with the process; later callers find it."""
    aside = copy.with_name(copy.name + ".part")
    with path.open("rb") as source, file_lock(aside):
        if copy.exists():  # made while this process waited; the name aside is then the copy's, or an empty file's
            aside.unlink(missing_ok=True)
            return
        if shutil.disk_usage(copy.parent).free < SPARE_BYTES + path.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with aside.open("wb") as file:  # without what a process that was killed left of its part
            shutil.copyfileobj(source, file, 1 << 20)
        take_place(aside, copy)
