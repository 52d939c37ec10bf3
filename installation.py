"""Check that this Python has what Cuarzo needs; if not, one line says what is wrong and which command fixes it.

It runs before everything else, needs only the standard library, and parses under Python 3.6.
"""

import os
import shlex
import sys
import traceback
from pathlib import Path

OLDEST_PYTHON = (3, 11, 4)
NEWEST_PYTHON = (3, 13)
"""As in pyproject.toml's `requires-python`, which an old Python cannot read."""

ROOT = Path(__file__).resolve().parent


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Lightning reads a number from each of these when it is imported."""


class InstallationError(ImportError):
    """A package that Cuarzo needs is missing, has an unsupported version, or cannot be loaded."""


def check() -> None:
    """Check that Python and every required package have a version that pyproject.toml allows.

    Raises:
        InstallationError: one of them does not, or is missing.
    """
    here = sys.version_info[:3]
    if here < OLDEST_PYTHON or here[:2] > NEWEST_PYTHON:
        raise InstallationError(
            "this is Python {}.{}.{} ({}); Cuarzo needs {}.{}.{} to {}.{}. Make an environment with one of these and "
            "install it there: python3.{} -m venv .venv && {}".format(
                *here, sys.executable, *OLDEST_PYTHON, *NEWEST_PYTHON, NEWEST_PYTHON[1],
                command(python=".venv/bin/python")))
    wrong = unfit(required())
    if wrong:
        raise InstallationError("{}. Install what Cuarzo needs: {}".format("; ".join(wrong), command()))
    forget_unreadable_ranks()


def forget_unreadable_ranks() -> None:
    """Remove ranks that are not numbers from the environment; Lightning cannot be imported with them."""
    for name in RANKS:
        try:
            int(os.environ.get(name, "0"))
        except ValueError:
            del os.environ[name]


def check_or_exit() -> None:
    """The same for a script: the line goes to standard error, and the exit code is 1."""
    try:
        check()
    except InstallationError as error:
        sys.exit(f"error: {error}")


def required() -> "list[str]":
    """The requirements in pyproject.toml; none if a copy of the code comes without it."""
    import tomllib

    if not (ROOT / "pyproject.toml").exists():
        return []
    with open(ROOT / "pyproject.toml", "rb") as file:
        requirements: list[str] = tomllib.load(file)["project"]["dependencies"]
    return requirements


def unfit(requirements: "list[str]") -> "list[str]":
    """A clause for each requirement that the installed packages do not meet."""
    from importlib import metadata

    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging is not installed"]
    wrong = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None:  # an interrupted installation leaves a name without a version
            wrong.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is installed; it must be {requirement.specifier}")
    return wrong


def explain(error: BaseException) -> "str | None":
    """The message for an error while loading a library; None for any other error."""
    from importlib import metadata

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, ImportError) and not any(frame.f_code.co_name == "<module>" for frame in frames):
        return None
    if isinstance(error, InstallationError):
        return str(error)
    library = _library(error, [frame.f_code.co_filename for frame in frames])
    if library is None:
        return None
    names = metadata.packages_distributions().get(library, [library])
    try:
        named = f"{names[0]} {metadata.version(names[0])}"
    except metadata.PackageNotFoundError:
        named = library
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        return f"{named} is not installed. Install what Cuarzo needs: {command()}"
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    first_line = (str(first).splitlines() or [""])[0]
    return (f"{named} cannot be loaded ({type(first).__name__}: {first_line}). Install the tested version again: "
            f"{command(anew=names[0])}")


def _library(error: BaseException, files: "list[str]") -> "str | None":
    """The top-level name of the library being imported when the error occurred; None if it is ours."""
    for file in files:
        inside = file.replace("\\", "/").partition("/site-packages/")[2]
        if inside:
            return inside.partition("/")[0].partition(".")[0]
    name = (getattr(error, "name", None) or "").partition(".")[0]
    ours = not name or (ROOT / name).exists() or (ROOT / (name + ".py")).exists()
    return None if ours else name


def command(extra: str = "demo", python: "str | None" = None, anew: "str | None" = None) -> str:
    """The command to install Cuarzo with an extra, or one library again, at the lock's versions, from any folder."""
    words = [python or sys.executable or "python", "-m", "pip", "install", "-c", str(ROOT / "constraints.txt")]
    words += ["--force-reinstall", "--no-deps", anew] if anew else ["-e", f"{ROOT}[{extra}]"]
    return " ".join(map(shlex.quote, words))
