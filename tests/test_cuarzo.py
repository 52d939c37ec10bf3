"""The installed command: in place it runs the folder's own code, and a copy puts nothing beside anybody's `models`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
CALL = "import sys; sys.argv = ['cuarzo', '--help']; import cuarzo; sys.exit(cuarzo.main())"


def call(*path: Path) -> subprocess.CompletedProcess[str]:
    """The command as pip's script calls it, with these folders in the place of site-packages."""
    return subprocess.run([sys.executable, "-P", "-c", CALL], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))})


def test_command_runs_the_code_of_its_folder_before_packages_of_the_same_names(tmp_path: Path) -> None:
    for name in ("models", "search", "spaces", "corpora", "files"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('somebody else')")
    shown = call(tmp_path, ROOT)
    assert shown.returncode == 0 and "--corpus" in shown.stdout, shown.stderr


def test_copy_without_the_folder_says_so_in_one_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "cuarzo.py", tmp_path)
    shown = call(tmp_path)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (1, "", 1)
    assert "pip install -c constraints.txt -e ." in shown.stderr


def test_wheel_holds_one_module_of_a_name_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="there is none to build with")
    for name in ("pyproject.toml", "README.md", "LICENSE", "cuarzo.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("corpora", "files", "models", "search", "spaces"):
        shutil.copytree(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "-c", "from setuptools.build_meta import build_wheel; build_wheel('.')"],
                   cwd=tmp_path, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"cuarzo.py", "cuarzo-0.1.0.dist-info"}
