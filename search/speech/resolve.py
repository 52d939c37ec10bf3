"""Turn what the user named into a local file: a path stays as it is, a name from the catalog is downloaded."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import installation
from corpora.storage import Location, is_uri
from models.nemo import DamagedNemoFileError, NemoFileError, read_nemo
from search.records.disk_space import check_room, is_full
from search.records.files import write_json
from search.speech.catalog import LIBRISPEECH, MOZILLA, SOURCES, SUBSETS, Remote, is_name
from search.speech.download import ELSEWHERE, download, read_record
from search.speech.retry import WAITS_S, DownloadError, PassingError, alone, retried, say

KEY = "MDC_API_KEY"
"""The environment variable that Mozilla's client reads the key from."""

_PAGE = "https://mozilladatacollective.com/datasets/"


def local_path(name: str, cache: Path, *, server: str = "", waits_s: Sequence[float] = WAITS_S) -> Location:
    """The file or folder of a corpus or a source; a catalog name is downloaded into the cache once. A URI is unchanged.

    `server` (scheme and host) replaces the catalog's own, for a mirror with the same paths; for Mozilla's client, set
    the environment variable MDC_API_URL instead.

    Raises:
        ConfigError: the name is unknown, or the cache cannot be written or has too little space.
        DownloadError: the file cannot be downloaded.
    """
    if is_uri(name):
        return name
    if not is_name(name):
        return Path(name).expanduser()
    folder = cache / "downloads"
    if name in SOURCES:
        remote = _at(SOURCES[name], server)
        return download(remote, folder / "sources" / remote.file_name, check=_check_source, waits_s=waits_s)
    if name.startswith(LIBRISPEECH):
        remote = _at(SUBSETS[name.removeprefix(LIBRISPEECH)], server)
        return download(remote, folder / "librispeech" / remote.file_name, waits_s=waits_s)
    return _from_mozilla(name, folder / "mdc" / name.removeprefix(MOZILLA), waits_s)


def _check_source(path: Path) -> None:
    """Raise if another download may help. An intact file that cannot be used is kept; opening it gives the reason."""
    try:
        read_nemo(path)
    except DamagedNemoFileError:
        raise
    except NemoFileError:
        return


def _at(remote: Remote, server: str) -> Remote:
    if not server:
        return remote
    return Remote(url=urlunsplit((*urlsplit(server)[:2], urlsplit(remote.url).path, "", "")), terms=remote.terms,
                  num_bytes=remote.num_bytes, sha256=remote.sha256)


# --- Mozilla Data Collective ----------------------------------------------------------------------------------------


def _from_mozilla(name: str, folder: Path, waits_s: Sequence[float]) -> Path:
    """A dataset's archive, downloaded with Mozilla's own client; its record then saves the network."""
    record = folder / "archive.json"
    if archive := _recorded(record):
        return archive
    client = _client(name)
    check_room(folder, 0, ELSEWHERE)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / "archive"):
        if archive := _recorded(record):  # another process has downloaded it meanwhile
            return archive
        dataset = name.removeprefix(MOZILLA)
        details = retried(lambda: _asked(name, lambda: client.get_dataset_details(dataset)), lambda: 0, name, waits_s)
        if not details.filename or Path(details.filename).name != details.filename:
            raise DownloadError(f"{name}: Mozilla names its file {details.filename!r}, which is not a file name. "
                                "Download it yourself and give its path.")
        say(f"downloading {details.filename} of {details.name or dataset}\n"
            f"its terms apply ({details.licenseAbbreviation or details.license or 'see its page'}): "
            f"{details.datasetUrl or _PAGE + dataset}")
        part = folder / f"{details.filename}.part"
        num_bytes = int(details.sizeBytes or 0)
        check_room(folder, num_bytes - _size(part), ELSEWHERE, details.filename)

        def attempt() -> None:
            if num_bytes and _size(part) >= num_bytes:  # the client would request bytes past the end forever
                part.unlink()
            _asked(name, lambda: client.download_dataset(dataset, str(folder), sys.stderr.isatty()))

        retried(attempt, lambda: _size(part), name, waits_s)
        archive = folder / str(details.filename)
        # The client does not check the size; a server that ignores Range would send too much.
        if num_bytes and _size(archive) != num_bytes:
            came = _size(archive)
            archive.unlink()
            raise DownloadError(f"{name}: {came:,} bytes arrived; Mozilla's file has {num_bytes:,}. It was removed. "
                                "Run the same command again, or download it yourself and give its path.")
        write_json(record, {"file": archive.name, "num_bytes": _size(archive), "checksum": details.checksum})
    return archive


def _recorded(record: Path) -> Path | None:
    """The archive that a record describes, if it is complete."""
    known = read_record(record)
    archive = record.parent / str(known.get("file"))
    return archive if archive.is_file() and _size(archive) == known.get("num_bytes") else None


def _client(name: str) -> Any:
    """Mozilla's client, after checking that it has a key.

    Raises:
        DownloadError: the package or the key is missing.
    """
    page = _PAGE + name.removeprefix(MOZILLA)
    try:
        import datacollective
    except ImportError as error:
        raise DownloadError(f"{name}: Mozilla's client is not installed. Install it with "
                            f"{installation.command('mdc')}, or download the archive from {page} and give its "
                            "path.") from error
    key = os.environ.get(KEY)  # the client has read a .env file by now
    if not key:
        raise DownloadError(f"{name}: {KEY} is not set. Accept the dataset's terms on {page}, create a key in your "
                            f"profile there and set {KEY} to it; or download the archive there and give its path.")
    if not (key.isascii() and key.isprintable()):  # the client's own error would print the key
        raise DownloadError(f"{name}: {KEY} holds a line break or another character that no key contains. Set it to "
                            "the key alone.")
    return datacollective


def _asked(name: str, ask: Callable[[], Any]) -> Any:
    """Call the client, and turn its many errors into one of two.

    Raises:
        PassingError: the connection broke, or the server has a problem; the client resumes when it is called again.
        DownloadError: the server refuses, or there is no such dataset.
        KeyboardInterrupt, and the client's own error if the disk is full.
    """
    import requests
    from datacollective.errors import AuthenticationError, RateLimitError
    from datacollective.errors import DownloadError as BrokenError

    page = _PAGE + name.removeprefix(MOZILLA)
    try:
        return ask()
    except (BrokenError, OSError, RuntimeError, ValueError) as broken:
        error = broken.__cause__ if isinstance(broken, BrokenError) and broken.__cause__ else broken
        if isinstance(error, KeyboardInterrupt):  # the client mistakes Ctrl-C for a broken connection
            raise KeyboardInterrupt from broken
        if is_full(broken):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        is_of_network = isinstance(error, requests.RequestException) and not isinstance(error, ValueError)
        if isinstance(error, RateLimitError) or (is_of_network and (status is None or status >= 500)):
            what = f"answers {status}" if status else f"broke the connection ({type(error).__name__})"
            raise PassingError(f"the server {what}") from broken
        # Without the part of a URL after "?": its signature lets anyone download.
        why = re.sub(r"\?\S*", "", (str(error).splitlines() or [type(error).__name__])[0]).rstrip(". ")
        fix = "Download it yourself and give its path."
        if isinstance(error, AuthenticationError):
            fix = f"Create a new key in your profile on mozilladatacollective.com and set {KEY} to it."
        elif isinstance(error, PermissionError):
            fix = f"Accept the dataset's terms on {page}, with the account that the key belongs to."
        elif isinstance(error, FileNotFoundError):
            fix = "Check the id: it is the last part of the URL of the dataset's page."
        raise DownloadError(f"{name}: {why}. {fix}") from broken


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
