"""Download a file from an HTTP server: resumed, checked, and put in place only when it is complete."""

import contextlib
import email.utils
import http.client
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from files.atomic import aside_of, take_place
from search.records.disk_space import check_room
from search.records.files import sha256, write_json
from search.speech.catalog import Remote
from search.speech.retry import WAITS_S, DownloadError, PassingError, alone, retried, say

TIMEOUT_S = 30.0
"""Timeout to connect, and between two parts of a response."""
MAX_WAIT_S = 120.0
"""If a server asks for a longer pause, the download fails until a later start."""

_CHUNK_BYTES = 1 << 20
_COUNT = r"[0-9]{1,18}"
"""A number of bytes in a header."""
_PAGES = ("text/html", "application/xhtml+xml", "application/json")
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may go away on a retry."""
ELSEWHERE = "name another folder with CUARZO_CACHE (or --cache, if that was given)"
_FIX = "Get the file in another way, with a browser for example, and give its path."


@dataclass(frozen=True, kw_only=True)
class _PartOf:
    """What a part belongs to; stored next to it."""

    url: str
    validator: str
    """The server's strong ETag or its date; empty if it gave neither."""
    num_bytes: int | None
    """Size of the whole file; None if the server did not say."""


def download(remote: Remote, target: Path, *, check: Callable[[Path], object] | None = None,
             waits_s: Sequence[float] = WAITS_S, timeout_s: float = TIMEOUT_S) -> Path:
    """Download a file to `target`, once, resuming a part that an earlier attempt left.

    `check` opens the download, and raises ValueError if it is damaged. A record of its size and hash is written next to
    the target, so that it is recognised next time without a network.

    Raises:
        DownloadError: the server cannot be reached, refuses, breaks off again and again, or sends something else.
        ConfigError: no permission to write, or too little room.
    """
    if is_whole(target):
        return target
    check_room(target.parent, 0, ELSEWHERE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target):
        if is_whole(target):  # another process has downloaded it meanwhile
            return target
        say(f"downloading {remote.url}\n{remote.terms}")
        _bring(remote, target, waits_s, timeout_s)
        _check(remote, target, check)
        take_place(aside_of(target), target)
        _state_of(target).unlink(missing_ok=True)
    return target


def is_whole(target: Path) -> bool:
    """Whether a file is there as it was downloaded, according to its record."""
    size = read_record(record_of(target)).get("num_bytes")
    return size is not None and target.is_file() and target.stat().st_size == size


def record_of(target: Path) -> Path:
    """The record next to a file: its origin, date, size and hash."""
    return target.with_name(target.name + ".json")


@contextlib.contextmanager
def progress_of(name: str, num_bytes: int | None, start: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with speed and remaining time on a terminal's standard error; yields a function of bytes."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(name, total=num_bytes, completed=start)
        yield lambda more: progress.advance(bar, more)


# --- bring ----------------------------------------------------------------------------------------------------------


def _bring(remote: Remote, target: Path, waits_s: Sequence[float], timeout_s: float) -> None:
    """Fill the part until it is complete according to the server."""
    part = aside_of(target)

    def size() -> int:
        return part.stat().st_size if part.exists() else 0

    def attempt() -> None:
        held = _held(remote, target)
        if held is not None and size() == held.num_bytes:  # the process ended between the last byte and the check
            return
        try:
            with _ask(remote, held, size(), timeout_s) as answer:
                start, now = _begin(remote, answer, held, size())
                if not start:  # before recording that the part belongs to something else
                    part.write_bytes(b"")
                check_room(target.parent, (now.num_bytes or start) - start, ELSEWHERE, target.name)
                write_json(_state_of(target), asdict(now))
                _copy(answer, part, start, now.num_bytes, timeout_s)
        except PassingError as error:
            if error.is_part_wrong:
                part.unlink(missing_ok=True)
            raise

    retried(attempt, size, remote.url, waits_s)


def _held(remote: Remote, target: Path) -> _PartOf | None:
    """What the part belongs to; None unless it is known to belong to the server's present file."""
    part, state = aside_of(target), read_record(_state_of(target))
    if not part.exists() or state.get("url") != remote.url:
        return None
    try:
        held = _PartOf(**state)
    except TypeError:
        return None
    is_sure = bool(held.validator or remote.sha256)
    return held if is_sure and part.stat().st_size <= (held.num_bytes or sys.maxsize) else None


@contextlib.contextmanager
def _ask(remote: Remote, held: _PartOf | None, size: int, timeout_s: float) -> Iterator[http.client.HTTPResponse]:
    """The server's response, for the rest of the file if there is a part of it."""
    headers = {"User-Agent": "cuarzo", "Accept-Encoding": "identity"}
    if held is not None and size:
        headers["Range"] = f"bytes={size}-"
        if remote.sha256 is None:  # a hash is better, and mirrors of one file differ in ETag and date
            headers["If-Range"] = held.validator
    try:
        answer = urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(remote, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # the last: it redirects to an invalid address
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise DownloadError(f"{remote.url}: the server cannot be trusted ({_words(error)}). A proxy may be "
                                "in between: set SSL_CERT_FILE to a file with its certificate.") from error
        raise PassingError(f"the server cannot be reached ({_words(error)})") from error
    with answer:
        yield answer


def _of_status(remote: Remote, error: urllib.error.HTTPError) -> Exception:
    """The error for a failure status."""
    status = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
    if error.code == 416:  # the part is not a prefix of the present file; the next attempt asks for all of it
        return PassingError(f"the server has no such part ({status})", is_part_wrong=True)
    if error.code in _PASSING:
        wait_s = _retry_after_s(error.headers.get("Retry-After", ""))
        if wait_s > MAX_WAIT_S:
            return DownloadError(f"{remote.url}: the server answers {status}, and asks to wait {wait_s:,.0f} "
                                 f"s; the limit is {MAX_WAIT_S:.0f} s. Run the same command later.")
        return PassingError(f"the server answers {status}", wait_s)
    if 300 <= error.code < 400:
        return DownloadError(f"{remote.url}: the server's redirects are circular or invalid ({status}). {_FIX}")
    if error.code in (404, 410):
        return DownloadError(f"{remote.url}: the server has no such file ({status}); it may have moved. {_FIX}")
    return DownloadError(f"{remote.url}: the server refuses ({status}). {_FIX}")


def _retry_after_s(text: str) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 if it holds neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _begin(remote: Remote, answer: http.client.HTTPResponse, held: _PartOf | None, size: int) -> tuple[int, _PartOf]:
    """The byte at which the response starts, and what it is a part of."""
    if answer.headers.get_content_type() in _PAGES:
        raise DownloadError(f"{remote.url}: the server sent a page ({answer.headers.get_content_type()}) instead of "
                            f"the file, perhaps a login, a notice or a proxy's page. {_FIX}")
    etag, length = answer.headers.get("ETag", ""), answer.headers.get("Content-Length", "")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    start, num_bytes = 0, int(length) if re.fullmatch(_COUNT, length) else None
    if answer.status == 206:
        where = re.fullmatch(rf"bytes ({_COUNT})-{_COUNT}/({_COUNT})", answer.headers.get("Content-Range", "").strip())
        is_same = held and (remote.sha256 or held.validator == validator)
        if not where or not held or not is_same or int(where[1]) != size or held.num_bytes not in (None, int(where[2])):
            raise PassingError("the server sent a part that was not requested, or of other content",
                               is_part_wrong=True)
        start, num_bytes = size, int(where[2])
    elif answer.status != 200:
        raise DownloadError(f"{remote.url}: the server answers {answer.status} instead of the file. {_FIX}")
    if None not in (num_bytes, remote.num_bytes) and num_bytes != remote.num_bytes:
        raise DownloadError(f"{remote.url}: the server announces {num_bytes:,} bytes; the file has "
                            f"{remote.num_bytes:,}. {_FIX}")
    return start, _PartOf(url=remote.url, validator=validator, num_bytes=num_bytes)


def _copy(answer: http.client.HTTPResponse, part: Path, start: int, num_bytes: int | None, timeout_s: float) -> None:
    """Append the response after the first `start` bytes of the part, as it arrives."""
    size = start
    with part.open("ab" if start else "wb") as file, progress_of(part.stem, num_bytes, start) as advance:
        while True:
            try:
                chunk = answer.read1(_CHUNK_BYTES)
            except TimeoutError as error:
                raise PassingError(f"nothing arrived for {timeout_s:g} s, at {size:,} bytes") from error
            except (OSError, http.client.HTTPException) as error:
                raise PassingError(f"the connection broke at {size:,} bytes ({_words(error)})") from error
            if not chunk:
                break
            file.write(chunk)
            size += len(chunk)
            advance(len(chunk))
    if num_bytes is not None and size != num_bytes:
        raise PassingError(f"the connection ended at {size:,} of {num_bytes:,} bytes", is_part_wrong=size > num_bytes)


# --- check ----------------------------------------------------------------------------------------------------------


def _check(remote: Remote, target: Path, check: Callable[[Path], object] | None) -> None:
    """Check a complete part against what is known and record it; remove it if it does not match."""
    part = aside_of(target)
    num_bytes, digest = part.stat().st_size, sha256(part)
    wrong = ""
    if remote.num_bytes not in (None, num_bytes):
        wrong = f"{num_bytes:,} bytes arrived; the file has {remote.num_bytes:,}"
    elif remote.sha256 not in (None, digest):
        wrong = f"what arrived has the SHA-256 {digest}; the file's is {remote.sha256}"
    elif check is not None:
        try:
            check(part)
        except ValueError as error:
            why = " ".join(str(error).removeprefix(f"{part}: ").split())
            wrong = f"what arrived ({num_bytes:,} bytes) cannot be opened: {why}"
    if wrong:
        part.unlink()
        raise DownloadError(f"{remote.url}: {wrong.rstrip('.')}. It was removed; run the same command again. If "
                            f"that does not help: {_FIX}")
    before = read_record(record_of(target)).get("sha256", digest)
    if before != digest:
        say(f"{remote.url}: has changed since it was downloaded before (SHA-256 {before[:12]}, now {digest[:12]})")
    write_json(record_of(target), {"url": remote.url, "num_bytes": num_bytes, "sha256": digest,
                                   "downloaded": datetime.now(UTC).isoformat(timespec="seconds")})


def _state_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def read_record(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty if the file is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _words(error: BaseException) -> str:
    """An error's reason in one line."""
    reason = getattr(error, "reason", error)
    return " ".join(str(getattr(reason, "strerror", None) or reason or type(error).__name__).split())
