"""A shared library: compiled on first use, kept, and loaded only from where nobody else can have put it."""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from whole_files import take_place

log = logging.getLogger(__name__)

_COMPILE_LIMIT_S = 120.0


class NoPlaceError(OSError):
    """No folder is there in which a library can be kept safely."""


def load(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library of a C++ source, from the first place that is safe and can be used: cache, home or temporary folder.

    Raises:
        NoPlaceError: there is none, with the reason of each.
        OSError, subprocess.SubprocessError: the compiler is missing or fails.
    """
    compiler = _compiler()
    stem = f"{source.stem}-{_key(compiler, flags, source)}"
    reasons = []
    for place in _places():
        try:
            place = _made(place)
            if reason := _why_unsafe(place):
                # Only where something lies there that would have been loaded is it worth a word.
                log.log(logging.WARNING if any(place.glob(f"{stem}-*.so")) else logging.INFO,
                        "%s: is not loaded from: %s.", place, reason)
                reasons.append(f"{place}: {reason}")
                continue
            return ctypes.CDLL(str(find(place, stem) or _compile(place, stem, [*compiler, *flags, str(source)])))
        except OSError as error:  # no right to write, a full disk, a disk from which no code is run
            reasons.append(f"{place}: {error.strerror or error}")
    raise NoPlaceError(f"no folder can keep them ({'; '.join(reasons)}). Set CUARZO_CACHE to a folder that you alone "
                       "can write.")


def find(place: Path, stem: str) -> Path | None:
    """The library in a safe folder whose content has the hash in its name; one that was torn or swapped has not."""
    for path in sorted(place.glob(f"{stem}-*.so")):
        if path.is_symlink() or _why_unsafe(path):
            continue
        if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
            return path
        log.warning("%s: is not loaded: its content is not what was compiled. It is compiled again.", path)
    return None


def _compile(place: Path, stem: str, command: Sequence[str]) -> Path:
    """Compiled aside and renamed, so that any process may be first."""
    with tempfile.TemporaryDirectory(dir=place) as aside:
        made = Path(aside) / "made.so"
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True,
                       timeout=_COMPILE_LIMIT_S)
        made.chmod(0o700)
        library = place / f"{stem}-{_digest(made.read_bytes())}.so"
        take_place(made, library)
    return library


def _compiler() -> list[str]:
    compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("g++", "c++", "clang++")), "g++")]
    if shutil.which(compiler[0]) is None:
        raise FileNotFoundError(f"No such file or directory: {compiler[0]!r}")
    return compiler


def _places() -> Iterator[Path]:
    """From the one that was asked for to the one that is always there."""
    if os.environ.get("CUARZO_CACHE"):
        yield Path(os.environ["CUARZO_CACHE"]) / "kernels"
    yield Path("~/.cache/cuarzo/kernels")
    yield Path(tempfile.gettempdir()) / f"cuarzo-kernels-{os.geteuid()}"


def _made(place: Path) -> Path:
    """The folder without links, made where it is not there, for this user alone to write."""
    try:
        place = place.expanduser().resolve()
    except RuntimeError as error:  # a user without a home
        raise OSError(str(error)) from error
    for folder in reversed([place, *place.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o700 if folder == place else 0o755, exist_ok=True)
    return place


def _why_unsafe(path: Path) -> str | None:
    """Why others could have written a file or in a folder, or put another one in its place; None where they could not.

    Whom the root folder belongs to could do anything here: in a container that need not be user 0.
    """
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    for part in (path, *path.parents):
        state = part.stat()
        if state.st_uid not in trusted:
            return f"{part} belongs to user {state.st_uid}"
        is_shared = part != path and state.st_mode & stat.S_ISVTX  # as /tmp: all may write, none may rename
        if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_shared:
            return f"others may write {part} (chmod go-w)"
    return None


def _key(compiler: Sequence[str], flags: Sequence[str], source: Path) -> str:
    """What the library depends on."""
    parts = [*compiler, *flags, _cpu_features(), source.read_text(encoding="utf-8")]
    return _digest("\n".join(parts).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _cpu_features() -> str:
    """What `-march=native` depends on: a home folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return os.uname().machine
    return next((line for line in lines if line.startswith(("flags", "Features"))), os.uname().machine)
