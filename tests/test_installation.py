"""What is installed is what Cuarzo needs, or one line says what is wrong and how to put it right."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import installation

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("run", "train", "transcribe", "report", "compare")
PACKAGES = ("corpora", "files", "models", "search", "spaces")
PYTHONS = ("3.11", "3.12", "3.13")


def project() -> dict[str, object]:
    read: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return read


def lock() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.lstrip().startswith("#")]


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A Python of its own, with `path` before what is installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(p) for p in (path, ROOT) if p)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def pretend(folder: Path, name: str, version: str) -> Path:
    """A folder that says another version of a package is installed, as `pip` would note it."""
    noted = folder / f"{name}-{version}.dist-info"
    noted.mkdir(parents=True)
    (noted / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The line on standard error of a script that failed without a traceback."""
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    [line] = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("version", PYTHONS)
def test_lock_has_one_version_of_every_requirement_on_every_python(version: str) -> None:
    described = project()["project"]
    assert isinstance(described, dict)
    wanted = [Requirement(line) for group in (described["dependencies"], *described["optional-dependencies"].values())
              for line in group]
    here = {"python_version": version, "python_full_version": f"{version}.9", "sys_platform": "linux",
            "platform_machine": "x86_64"}
    locked: dict[str, str] = {}
    for pin in lock():
        if pin.marker is None or pin.marker.evaluate(here):
            [exact] = pin.specifier
            assert exact.operator == "==" and "*" not in exact.version and pin.url is None
            assert pin.name not in locked, f"{pin.name} has two versions"
            locked[pin.name] = exact.version
    assert len(wanted) > 20 and len(locked) > 100
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(locked[name]), f"{requirement} and {locked[name]}"


def test_lock_is_made_by_the_documented_command() -> None:
    [command] = re.findall(r"^#    (uv pip compile .*)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    page = "docs/decisions/dependencies.md"
    assert f"`{command}`" in (ROOT / page).read_text(encoding="utf-8")
    assert page in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_build_takes_the_locks_setuptools() -> None:
    described = project()["build-system"]
    assert isinstance(described, dict)
    [pin] = [pin for pin in lock() if pin.name == "setuptools"]
    assert described["requires"] == [str(pin)]


def test_the_readme_ci_and_the_clusters_install_from_the_lock() -> None:
    always = {"README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/cluster.md", "docs/corpora.md",
              "docs/transcribing.md", "cluster.yaml", ".ci/environments"}
    for name in always | {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}:
        text = (ROOT / name).read_text(encoding="utf-8")
        ours = re.findall(r"pip\"? install[^\n`]*-e [^\n]*", text)
        lowest_and_newest = [line for line in ours if "--resolution" in line]
        assert ours or name not in always, name
        assert all("constraints.txt" in line for line in ours if line not in lowest_and_newest), name
        assert len(lowest_and_newest) == (2 if name == ".ci/environments" else 0)


@pytest.mark.parametrize("version", PYTHONS)
def test_pythons_are_those_that_are_said(version: str) -> None:
    described = project()["project"]
    assert isinstance(described, dict)
    said = SpecifierSet(described["requires-python"])
    oldest, (major, minor) = installation.OLDEST_PYTHON, installation.NEWEST_PYTHON
    assert said == SpecifierSet(f">={'.'.join(map(str, oldest))},<{major}.{minor + 1}")
    assert said.contains(f"{version}.9") and version in (ROOT / ".ci/environments").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_version_is_one_line_of_every_script(script: str, tmp_path: Path) -> None:
    line = one_line(python(f"search/{script}.py", "x", "y", path=pretend(tmp_path, "torch", "2.11.0")))
    assert "torch 2.11.0 is installed; it must be <2.16,>=2.13" in line
    assert line.endswith(f" -m pip install -c {ROOT}/constraints.txt -e '{ROOT}[demo]'")


@pytest.mark.parametrize("package", PACKAGES)
def test_wrong_version_is_the_last_line_of_an_import(package: str, tmp_path: Path) -> None:
    ended = python("-c", f"import {package}", path=pretend(tmp_path, "torch", "2.11.0"))
    assert ended.returncode == 1
    assert "InstallationError: torch 2.11.0 is installed; it must be" in ended.stderr.splitlines()[-1]


def test_missing_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    code = ("import installation, pathlib; "
            "print(installation.unfit(['no-such-package>=1', 'torch>=2', \"other; python_version < '3'\"]))")
    assert python("-c", code).stdout.strip() == "['no-such-package is not installed']"


def test_broken_installation_is_one_line(tmp_path: Path) -> None:
    """What `pip` leaves when it is killed: a folder with the name and no metadata."""
    (tmp_path / "optuna-5.0.0.dist-info").mkdir()
    assert "optuna is not installed" in one_line(python("search/run.py", path=tmp_path))


@pytest.mark.parametrize("script", ["run", "train", "transcribe"])
def test_library_that_cannot_be_loaded_is_one_line(script: str, tmp_path: Path) -> None:
    broken = tmp_path / "site-packages" / "yaml"
    if script == "transcribe":
        broken = broken.with_name("torchaudio")
    broken.mkdir(parents=True)
    (broken / "lib.so").write_bytes(b"no library")
    (broken / "__init__.py").write_text("import ctypes\nctypes.CDLL(__file__.replace('__init__.py', 'lib.so'))\n")
    line = one_line(python(f"search/{script}.py", "recipe.yaml", "clip.wav", path=broken.parent)
                    if script != "run" else python("search/run.py", path=broken.parent))
    assert re.search(r"(PyYAML|torchaudio) [\d.]+\S* cannot be loaded \(OSError: .*lib.so: ", line), line
    assert "--force-reinstall --no-deps" in line and line.endswith(("PyYAML", "torchaudio"))


def test_an_error_of_ours_is_no_installations(tmp_path: Path) -> None:
    try:
        raise OSError("not of a library")
    except OSError as error:
        assert installation.explain(error) is None


@pytest.mark.parametrize("name", ["installation", *(f"search/{script}" for script in SCRIPTS)])
def test_an_old_python_can_read_what_refuses_it(name: str) -> None:
    ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_an_old_python_is_refused_in_one_line() -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    old = [path for place in (Path("/usr/bin"), *versions.glob("*/bin")) for path in place.glob("python3.*")
           if re.fullmatch(r"python3\.(6|7|8|9|10)", path.name)]
    if not old:
        pytest.skip("no Python older than 3.11 is here: this check did not run")
    for interpreter in old:
        ended = subprocess.run([interpreter, "search/run.py"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "this is Python 3." in one_line(ended) and "Cuarzo needs 3.11.4 to 3.13" in ended.stderr


def test_transcribing_loads_neither_ray_nor_training(shared_data: Path) -> None:
    code = ("import sys; from search.command_line.commands import transcribe; code = transcribe(sys.argv[1:]); "
            "print(code, *sorted({'ray', 'pytorch_lightning', 'optuna', 'wandb', 'plotly'} & set(sys.modules)))")
    ended = python("-c", code, str(shared_data / "reference/quartznet5x5_small_random.nemo"), "nothing.wav")
    assert ended.stdout.split() == ["1"], ended.stdout + ended.stderr
