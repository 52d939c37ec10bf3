"""A lock is for one process, ends with it, and leaves the file as it is."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from files.locks import file_lock

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[1]

HOLDER = """
import os, sys, time
from pathlib import Path
from files.locks import file_lock
with file_lock(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_lock_ends_with_a_killed_process_whose_child_lives(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("who holds it")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(Timeout):
            file_lock(file).acquire(timeout=0)
        holder.kill()
        holder.wait()
        with file_lock(file):
            assert file.read_text() == "who holds it"
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.wait()
    assert file.read_text() == "who holds it"


def test_file_that_was_renamed_under_a_lock_is_whole(tmp_path: Path) -> None:
    """As a node's copy is, while another process waits to write it."""
    aside, copy = tmp_path / "copy.part", tmp_path / "copy"
    with file_lock(aside):
        aside.write_text("whole")
        aside.rename(copy)
    with file_lock(copy):
        assert copy.read_text() == "whole"
    assert copy.read_text() == "whole" and list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_disk_without_locks_is_an_error_and_no_file_stands_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                      number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = file_lock(tmp_path / "lock")
    with pytest.raises(OSError) as error:
        lock.acquire(timeout=0)
    assert error.value.errno == number and not lock.is_locked
    lock.release()
