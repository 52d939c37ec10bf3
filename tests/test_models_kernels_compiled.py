"""A compiled library is loaded only where it is what was compiled, and where nobody else can have put it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from models.kernels import compiled

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")

FLAGS = ("-shared", "-fPIC")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, the home and the temporary folder of this test alone."""
    monkeypatch.setenv("CUARZO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "sum.cpp").write_text('extern "C" int answer() { return 42; }')
    return tmp_path


def load(folder: Path) -> Path:
    """As a new process does."""
    library = compiled.load(folder / "sum.cpp", FLAGS)
    assert library.answer() == 42
    return Path(library._name)


def test_library_is_compiled_once_for_its_user_alone(places: Path) -> None:
    made = load(places)
    assert made.parent == places / "cache" / "kernels" and not made.parent.stat().st_mode & 0o077
    before = made.stat().st_mtime_ns
    assert load(places) == made and made.stat().st_mtime_ns == before
    assert [made] == list(made.parent.iterdir())


@pytest.mark.parametrize("content", ["harm", "torn", ""])
def test_library_that_was_swapped_or_torn_is_not_loaded(places: Path, caplog: pytest.LogCaptureFixture,
                                                        content: str) -> None:
    made = load(places)
    whole = made.read_bytes()
    (places / "harm.cpp").write_text(f'#include <cstdio>\n__attribute__((constructor)) static void harm() '
                                     f'{{ fclose(fopen("{places / "ran"}", "w")); }}')
    subprocess.run(["g++", *FLAGS, "-o", str(places / "harm.so"), str(places / "harm.cpp")], check=True)
    made.unlink()
    made.write_bytes((places / "harm.so").read_bytes() if content == "harm" else content.encode())
    made.chmod(0o700)
    assert load(places) == made and made.read_bytes() == whole
    assert "is not what was compiled" in caplog.text and not (places / "ran").exists()


@pytest.mark.parametrize(("name", "mode"), [("cache", 0o777), ("cache/kernels", 0o770), ("cache/kernels", 0o707)])
def test_cache_that_others_may_write_is_not_loaded_from(places: Path, caplog: pytest.LogCaptureFixture, name: str,
                                                        mode: int) -> None:
    load(places)
    (places / name).chmod(mode)
    assert load(places).parent == places / "home" / ".cache" / "cuarzo" / "kernels"
    assert f"is not loaded from: others may write {places / name} (chmod go-w)" in caplog.text


def test_library_of_another_user_or_that_others_may_write_is_not_loaded(places: Path) -> None:
    made = load(places)
    stem = made.stem.rpartition("-")[0]
    assert compiled.find(made.parent, stem) == made
    made.chmod(0o770)
    assert compiled.find(made.parent, stem) is None
    made.chmod(0o700)
    made.rename(places / "aside.so")
    made.symlink_to(places / "aside.so")
    assert compiled.find(made.parent, stem) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["cache", "cache/kernels"])
def test_cache_of_another_user_is_not_loaded_from(places: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    load(places)
    os.chown(places / name, 4711, 4711)
    assert (places / "home") in load(places).parents
    assert "belongs to user 4711" in caplog.text


def test_temporary_folder_serves_where_home_cannot(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUARZO_CACHE", "/proc/cuarzo")
    monkeypatch.setenv("HOME", "/dev/null")
    assert load(places).parent == places / "tmp" / f"cuarzo-kernels-{os.geteuid()}"


def test_where_nothing_can_be_kept_each_place_is_named(places: Path, monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    places.chmod(0o777)
    with pytest.raises(compiled.NoPlaceError, match=r"(others may write .*){3}Set CUARZO_CACHE to a folder that you"):
        load(places)
    assert not caplog.records  # there was nothing that would have been loaded
