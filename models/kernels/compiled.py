"""A shared library, compiled on first use, cached, and loaded only from folders that nobody else can write."""

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

from files.atomic import take_place

log = logging.getLogger(__name__)

_COMPILE_LIMIT_S = 120.0


class NoPlaceError(OSError):
    """There is no folder in which a library can be kept safely."""


def load(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library of a C++ source, from the first usable and safe folder: cache, home or temporary.

    Raises:
        NoPlaceError: there is none; the message says why for each.
        OSError, subprocess.SubprocessError: the compiler is missing or fails.
    """
    compiler = _compiler()
    stem = f"{source.stem}-{_key(compiler, flags, source)}"
    reasons = []
    for place in _places():
        try:
            place = _made(place)
            if reason := _why_unsafe(place):
                # Worth a warning only if there is a library that would have been loaded.
                log.log(logging.WARNING if any(place.glob(f"{stem}-*.so")) else logging.INFO,
                        "%s: is not loaded from: %s.", place, reason)
                reasons.append(f"{place}: {reason}")
                continue
            return ctypes.CDLL(str(find(place, stem) or _compile(place, stem, [*compiler, *flags, str(source)])))
        except OSError as error:  # not writable, a full disk, a disk mounted noexec
            reasons.append(f"{place}: {error.strerror or error}")
    raise NoPlaceError(f"no folder can keep them ({'; '.join(reasons)}). Set CUARZO_CACHE to a folder that you alone "
                       "can write.")


def find(place: Path, stem: str) -> Path | None:
    """The library in a safe folder, if its content has the hash in its name; a truncated or swapped one does not."""
    for path in sorted(place.glob(f"{stem}-*.so")):
        if path.is_symlink() or _why_unsafe(path):
            continue
        if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
            return path
        log.warning("%s: is not what was compiled, so it is not loaded but compiled again.", path)
    return None


def _compile(place: Path, stem: str, command: Sequence[str]) -> Path:
    """Compile aside and rename, so that several processes may do it at once."""
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
    """Candidate folders, from the configured one to the one that always exists."""
    if os.environ.get("CUARZO_CACHE"):
        yield Path(os.environ["CUARZO_CACHE"]) / "kernels"
    yield Path("~/.cache/cuarzo/kernels")
    yield Path(tempfile.gettempdir()) / f"cuarzo-kernels-{os.geteuid()}"


def _made(place: Path) -> Path:
    """The folder with links resolved, created if missing, writable by this user only."""
    try:
        place = place.expanduser().resolve()
    except RuntimeError as error:  # a user without a home
        raise OSError(str(error)) from error
    for folder in reversed([place, *place.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o700 if folder == place else 0o755, exist_ok=True)
    return place


def _why_unsafe(path: Path) -> str | None:
    """Why other users could have written or replaced a file or folder; None if they could not.

    The owner of the root folder is trusted; in a container that need not be user 0.
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
    """What `-march=native` depends on; a home folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return os.uname().machine
    return next((line for line in lines if line.startswith(("flags", "Features"))), os.uname().machine)
