"""A disk without rights or room is refused before any work, and one that gets full is named, whoever met it."""

import contextlib
import errno
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from sqlalchemy import event

from models.kernels import cpu
from search import cluster
from search.config import ConfigError, StudyConfig
from search.records.disk_space import (
    MIN_FREE_BYTES,
    WEIGHTS_A_TRIAL_KEEPS,
    DiskFullError,
    check_disks,
    check_room,
    full_disk_named,
    is_full,
)
from search.records.files import write_json
from search.trials.interrupt import Interrupted

pytestmark = pytest.mark.timeout(60)

FULL = Path("/dev/full")
"""Every write to it meets a full disk."""


# --- before any work -------------------------------------------------------------------------------------------------


def test_room_is_enough_and_nothing_is_made(tmp_path: Path) -> None:
    libraries, run = cpu.library_folder(), tmp_path / "runs" / "first"
    check_disks(StudyConfig(cache=str(tmp_path / "cache")), run, resume=False, libraries=libraries)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_refused_with_what_is_free_and_needed(tmp_path: Path) -> None:
    message = (r": [\d,]+ MB are free on its disk; a study needs at least 1,000,000,000 MB there to begin. "
               "Make room, or go elsewhere")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "run")) + message):
        check_room(tmp_path / "run", 10**15, "go elsewhere")


def test_a_large_source_needs_room_for_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr("search.records.disk_space.check_room",
                        lambda folder, needed, *_: asked.append((folder.name, needed)))
    source = tmp_path / "en.nemo"
    with source.open("wb") as file:
        file.truncate(MIN_FREE_BYTES)
    config = StudyConfig(corpus=("es.tar.gz",), source=str(source), cache=str(tmp_path / "cache"))
    check_disks(config, tmp_path / "run", resume=False, libraries=cpu.library_folder())
    assert asked[:2] == [("run", WEIGHTS_A_TRIAL_KEEPS * MIN_FREE_BYTES), ("cache", MIN_FREE_BYTES)]


def test_folder_without_rights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(ConfigError, match="/run: cannot be written .this user has no right.*Make it writable, or go"):
        check_room(tmp_path / "run", 0, "go elsewhere")


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/run: cannot be written .*file is not a folder"):
        check_room(tmp_path / "file" / "run", 0, "go elsewhere")


# --- a disk that gets full -------------------------------------------------------------------------------------------


def full_write(folder: Path) -> None:
    with FULL.open("wb") as file:
        file.write(b"1" * 100_000)


def full_result(folder: Path) -> None:
    (folder / "summary.json.0.part").symlink_to(FULL)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("files.atomic.uuid4", lambda: SimpleNamespace(hex="0"))
        write_json(folder / "summary.json", {})


def full_database(folder: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(storage=storage)

    @event.listens_for(storage.engine, "connect")
    def _limit(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # it keeps what it has, and cannot grow

    storage.engine.dispose()
    for number in range(1000):
        study.set_user_attr(f"name {number}", "x" * 1000)


def full_array(folder: Path) -> None:
    raise OSError("Not enough free space to write 20000000 bytes after offset 128")  # NumPy 2.4's, without a number


def quota(folder: Path) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize("meet", [full_write, full_result, full_database, full_array, quota])
def test_full_disk_is_one_line_that_says_how_to_go_on(tmp_path: Path, meet: Callable[[Path], None]) -> None:
    with pytest.raises(DiskFullError) as caught, full_disk_named(tmp_path, tmp_path / "cache"):
        try:
            meet(tmp_path)
        except Exception as error:
            raise RuntimeError("somewhere above") from error
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: the disk is full") and "\n" not in message
    assert f"{tmp_path} " in message and "MB" in message and message.endswith(f"resume with --resume {tmp_path}")


def test_full_disk_is_found_behind_an_error_while_another_was_handled() -> None:
    try:
        try:
            full_write(Path())
        except OSError:
            raise KeyError("record") from None  # the context stays
    except KeyError as error:
        assert is_full(error)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EACCES, "denied"), Interrupted("stopped"),
                                   sqlite3.OperationalError("database is locked")])
def test_other_errors_pass_as_they_are(tmp_path: Path, error: Exception) -> None:
    error.__cause__ = error  # a ring is walked once
    with pytest.raises(type(error)) as caught, full_disk_named(tmp_path, tmp_path):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("folder", ["/proc/nope", "/proc/self/nope/runs", "/sys/nope"])
def test_folder_that_takes_no_files_is_not_called_full(folder: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_room(Path(folder), 1, "name another folder with --out")
    assert str(error.value).startswith(f"{folder}: cannot be written (") and "MB" not in str(error.value)


def test_disk_that_does_not_tell_its_size_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: (0, 0, 0))
    check_room(tmp_path / "run", 1, "name another folder with --out")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_names_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError) as error, full_disk_named(tmp_path / "my runs" / "a", tmp_path):
        FULL.write_text("x")
    assert str(error.value).endswith(f"resume with --resume '{tmp_path}/my runs/a'")
# --- temporary files ------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a megabyte that is full."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no right to mount: a real full disk was not tried")
    with contextlib.suppress(OSError), (folder / "filling").open("wb") as file:
        while True:
            file.write(bytes(4096))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR", "CUARZO_CACHE"])
def test_full_disk_of_other_folders_is_named_with_its_variable(full_disk: Path, tmp_path: Path, variable: str,
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(variable, str(full_disk))
    config = StudyConfig(cache=str(tmp_path / "cache"))
    if variable == "CUARZO_CACHE":  # of the kernels alone, where --cache is given; they can be done without
        check_disks(config, tmp_path / "run", resume=False, libraries=cpu.library_folder())
        said = capsys.readouterr().out
    else:
        with pytest.raises(ConfigError) as refused:
            check_disks(config, tmp_path / "run", resume=False, libraries=cpu.library_folder())
        said = str(refused.value)
    assert str(full_disk) in said and f"name another folder with {variable}" in said and "\n" not in said.strip()


@pytest.mark.parametrize("named", [True, False])
def test_disk_that_gets_full_is_named_and_no_other(full_disk: Path, tmp_path: Path, named: bool,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the error itself does not say which."""
    monkeypatch.setenv("TMPDIR", str(full_disk))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    run, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.raises(DiskFullError) as told, full_disk_named(run, cache):
        try:
            (full_disk / "another").write_bytes(bytes(8192))
        except OSError as error:
            raise error if named else RuntimeError(f"a task failed: {error.strerror}") from None
    assert str(told.value).startswith(f"{full_disk}: the disk is full") and f"--resume {run}" in str(told.value)


def test_kernels_that_a_full_disk_keeps_from_being_compiled_say_so(full_disk: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert cpu._fix(error, str(error)).startswith("make room in ")
    assert cpu._fix(OSError("x.so: failed to map segment from shared object"), "failed to map segment").startswith(
        "set CUARZO_CACHE to a folder ")
    assert cpu._fix(FileNotFoundError(errno.ENOENT, "No such file", "g++"), "No such file") == (
        "install a C++ compiler with OpenMP (g++)")


def test_temporary_folder_that_is_too_deep_for_sockets_is_refused_before_ray_starts(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("started"))
    monkeypatch.setattr(cluster, "read_ray_address", lambda: None)
    monkeypatch.setattr(os, "environ", os.environ | {"TMPDIR": str(tmp_path / ("x" * 80))})
    for name in ("RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(cluster.ClusterError, match=r"its path has \d+ bytes; .* allows 3\d\. Name a shorter"), \
            cluster.connected():
        pass
    cluster._check_sockets(Path("/tmp"))
