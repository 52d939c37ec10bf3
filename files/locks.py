"""Locks between processes, which the kernel releases when the process that holds them ends, however it dies."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock

NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""The error numbers of file systems without locks."""


def file_lock(path: Path) -> BaseFileLock:
    """A lock on a file, which is created if missing, never removed, and keeps its content.

    Never filelock's fallback, a file whose existence is the lock: one left by a killed process would block the others.
    """
    return FileLock(path, fallback_to_soft=False, preserve_lock_file=True)
