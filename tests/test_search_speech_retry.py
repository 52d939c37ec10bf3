"""What may pass is tried again and not for ever; what a disk cannot do is said."""

import errno
import fcntl
import socket
import ssl
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from broken_server import Server, breaks_after, status
from downloading import get, parts

from search.speech.catalog import Remote
from search.speech.download import download
from search.speech.retry import GAIN_BYTES, DownloadError, PassingError, alone, retried

pytestmark = pytest.mark.timeout(30)

LITTLE = GAIN_BYTES - 1


def attempts(*sizes: int) -> tuple[Callable[[], str], Callable[[], int]]:
    """An attempt for each size, after which the file has it; one more brings it whole. And what tells the size."""
    held = [0, *sizes]

    def attempt() -> str:
        if len(held) == 1:
            return "whole"
        held.pop(0)
        raise PassingError("it broke")

    return attempt, lambda: held[0]


@pytest.mark.parametrize("sizes", [
    (), (1, 2), (GAIN_BYTES, 2 * GAIN_BYTES, 3 * GAIN_BYTES, 4 * GAIN_BYTES), (1, 1, 1 + GAIN_BYTES, 0)])
def test_attempts_that_fail_twice_in_a_row_at_most_end_well(sizes: tuple[int, ...]) -> None:
    assert retried(*attempts(*sizes), "a/file", waits_s=(0.0, 0.0)) == "whole"


@pytest.mark.parametrize("sizes", [
    (0, 0, 0), (LITTLE, LITTLE + 1, LITTLE + 2),
    (GAIN_BYTES, 0, GAIN_BYTES), (GAIN_BYTES, 0, GAIN_BYTES + 1)])
def test_what_is_lost_and_brought_once_more_counts_for_nothing(sizes: tuple[int, ...]) -> None:
    attempt, size = attempts(*sizes)
    with pytest.raises(DownloadError, match=rf"a/file: it broke; 3 attempts .* {sizes[-1]:,} bytes are kept"):
        retried(attempt, size, "a/file", waits_s=(0.0, 0.0))
    assert attempt() == "whole"


def test_wait_is_what_was_asked_for_where_that_is_longer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("search.speech.retry.time.sleep", slept.append)
    troubles = iter([PassingError("busy", wait_s=7), PassingError("busy", wait_s=1)])

    def attempt() -> None:
        for trouble in troubles:
            raise trouble

    retried(attempt, lambda: 0, "a/file", waits_s=(2.0, 3.0))
    assert slept == [7, 3]
    assert capsys.readouterr().err == "file: busy; trying again in 7 s\nfile: busy; trying again in 3 s\n"


@pytest.mark.parametrize("is_known", [True, False])
def test_disk_without_locks_is_told_and_another_trouble_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_known: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK if is_known else errno.EIO, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    if is_known:
        with alone(tmp_path / "file"):
            said = "no locks on this disk (no): start no other process while this one downloads file\n"
            assert capsys.readouterr().err == said
    else:
        with pytest.raises(OSError, match="no"), alone(tmp_path / "file"):
            pytest.fail("the block ran")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


@pytest.mark.parametrize(("code", "said"), [
    (404, r"the server has no such file \(404 Not Found\); it may have moved"), (410, r"\(410 Gone\)"),
    (403, r"the server refuses \(403 Forbidden\)"), (401, r"\(401 Unauthorized\)"),
    (204, "the server answers 204 instead of the file")])
def test_status_that_stays_is_not_tried_again(server: Server, target: Path, code: int, said: str) -> None:
    server.always = status(code)
    with pytest.raises(DownloadError, match=said) as error:
        get(server, target)
    assert len(server.asked) == 1 and "give its path" in str(error.value) and "\n" not in str(error.value)


def test_page_in_place_of_the_file_is_refused(server: Server, target: Path) -> None:
    server.always = status(200, b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match=r"the server sent a page \(text/html\) instead of the file"):
        get(server, target)
    assert parts(target) == []


def test_server_that_leads_in_a_circle(server: Server, target: Path) -> None:
    server.always = status(302, Location="/again")
    with pytest.raises(DownloadError, match=r"the server's redirects are circular or invalid \(302 Found\)"):
        get(server, target)


def test_server_that_leads_to_what_is_no_address(server: Server, target: Path) -> None:
    server.always = status(302, Location="http://[elsewhere/")
    with pytest.raises(DownloadError, match=r"the server cannot be reached \(Invalid IPv6 URL\)"):
        get(server, target)


def test_certificate_that_nobody_vouches_for_is_not_tried_again(
    target: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError(1, "self-signed certificate in certificate chain"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DownloadError, match=r"cannot be trusted \(self-signed certificate in certificate chain\).*"
                                            "SSL_CERT_FILE"):
        download(Remote(url="https://behind.a.proxy/x", terms=""), target)
    assert slept == []


def test_redirect_is_followed_and_the_part_asked_for_behind_it(server: Server, target: Path) -> None:
    away = status(302, Location="/elsewhere?signature=1")
    server.plan = [away, breaks_after(100_000), away]
    assert get(server, target).read_bytes() == server.content
    assert server.paths == ["GET /a/file.bin", "GET /elsewhere?signature=1"] * 2
    assert server.asked[-1] == "bytes=100000-"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which are not waited for."""
    waits: list[float] = []
    monkeypatch.setattr("search.speech.retry.time.sleep", waits.append)
    return waits


def test_busy_server_is_asked_again_when_it_says(server: Server, target: Path, slept: list[float]) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    server.plan = [status(503, Retry_After="7"), status(503), status(429, Retry_After=at),
                   status(500, Retry_After="?"), status(500, Retry_After="\xb2")]
    assert get(server, target, waits_s=(1.0, 2.0, 4.0, 8.0, 9.0)).read_bytes() == server.content
    assert slept[0:2] == [7, 2] and 50 < slept[2] <= 60 and slept[3:] == [8, 9]


def test_server_that_asks_for_a_long_pause_is_left(server: Server, target: Path, slept: list[float]) -> None:
    server.always = status(503, Retry_After="3600")
    with pytest.raises(DownloadError, match=r"503 Service Unavailable, and asks to wait 3,600 s; the limit is 120"):
        get(server, target)
    assert slept == []


def test_no_network_is_one_line(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(DownloadError, match=r"the server cannot be reached \(Connection refused\); 2 attempts failed"):
        download(Remote(url=f"http://127.0.0.1:{port}/x", terms=""), target, waits_s=(0.0,))
