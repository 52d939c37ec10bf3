"""The scripts find the project wherever they are started from, and importing one moves nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("run", "train", "transcribe")
"""Those that import nothing heavy by themselves."""


def test_importing_a_script_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    """A program's first place is its own folder, where its other modules are."""
    (tmp_path / "mine.py").write_text("""
import importlib, sys
before = [*sys.path]
for name in sys.argv[1:]:
    importlib.import_module(f"search.{name}")
assert sys.path[:len(before)] == before, sys.path
""")
    subprocess.run([sys.executable, "mine.py", *SCRIPTS], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True,
                   timeout=120)


@pytest.mark.parametrize("flags", [[], ["-P"]])
def test_script_finds_the_project_from_another_folder_and_keeps_the_library(tmp_path: Path, flags: list[str]) -> None:
    program = "import runpy, sys; sys.argv = ['x', '--help']; runpy.run_path(sys.path.pop(), run_name='__main__')"
    for script in SCRIPTS:
        path = str(ROOT / "search" / f"{script}.py")
        for command in ([*flags, path, "--help"], ["-c", f"import sys; sys.path.append({path!r}); {program}"]):
            ran = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                                 env={})
            assert ran.returncode == 0 and "usage:" in ran.stdout, ran.stderr
