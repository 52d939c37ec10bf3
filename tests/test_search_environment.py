"""A user without a name or a home is told what helps; real processes of such a user, where these tests are root."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from models.kernels import cpu
from search import cluster
from search.config import StudyConfig
from search.environment import name_person

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from search.command_line.commands import _script, run
code = _script()(lambda _: __import__("torch._dynamo"))()  # it asks for the user's name as it is imported
from models.kernels import cpu
print("kernels:", cpu.is_available(), flush=True)
print("code:", code, run(["--out", sys.argv[2]]))
"""


def test_name_and_home_that_are_known_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "me")
    name_person()
    assert os.environ["HOME"] == "/home/me" and "USER" not in os.environ


def test_user_whom_nobody_knows_gets_a_name_and_the_root_for_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", *NAMES):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", fail)
    name_person()
    assert os.environ["USER"] == f"user{os.getuid()}" and os.environ["HOME"] == "/"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"),
                    reason="no root, or no setpriv: a user without a name was not tried")
@pytest.mark.parametrize("home", [{}, {"HOME": "/"}])
def test_real_user_without_a_name_has_kernels_and_is_told_of_the_cache(tmp_path: Path, home: dict[str, str]) -> None:
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")  # Python may lie in root's home
    ran = subprocess.run(
        ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", *may_read, sys.executable, "-c", PROGRAM,
         str(ROOT), "/dev/shm/no-run-of-4711"], cwd="/", env={"PATH": os.environ["PATH"], **home}, capture_output=True,
        text=True, timeout=120)
    said = ran.stdout + ran.stderr
    assert "Traceback" not in said and "kernels: True" in said and "code: 0 1" in said, said
    assert "error: /.cache/cuarzo: cannot be written" in said and "--cache or CUARZO_CACHE" in said


def test_python_code_of_a_user_without_a_home_finds_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is no folder's name."""
    def fail(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "CUARZO_CACHE", *NAMES):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert cpu.library_folder() == Path("/.cache/cuarzo/kernels")
    assert StudyConfig().cache_folder == Path("/.cache/cuarzo")


def test_ray_of_a_user_who_may_not_write_at_home_has_its_token_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "read_ray_address", lambda: None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(os, "environ", os.environ | {"TMPDIR": "/tmp"})
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    with cluster.connected():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
