"""Locks between processes, which the kernel ends with the process that holds them, however it dies."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock

NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


def file_lock(path: Path) -> BaseFileLock:
    """A lock on a file, which is made, stays, and keeps what is in it.

    Never filelock's own second way, a file that is there or not: one that a killed process left would stand in the way.
    """
    return FileLock(path, fallback_to_soft=False, preserve_lock_file=True)
