"""A download goes on where it broke, and nothing but the whole and right file takes its place."""

import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
from broken_server import Handler, Server, all_of_it, announces, breaks_after, honest, interrupts, status
from downloading import AT_ONCE, get, parts, remote

import search.speech.retry
from search.config import ConfigError
from search.records.disk_space import is_full
from search.speech.catalog import Remote
from search.speech.download import download, is_whole, record_of
from search.speech.retry import DownloadError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


# --- whole ----------------------------------------------------------------------------------------------------------


def test_file_comes_once_and_is_known_again_without_network(
    server: Server, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get(server, target) == target and target.read_bytes() == server.content
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("its terms") == 1
    record = json.loads(record_of(target).read_text())
    assert record["sha256"] == hashlib.sha256(server.content).hexdigest() and record["num_bytes"] == len(server.content)
    assert parts(target) == ["file.bin", "file.bin.json"]
    server.always = status(500)
    assert get(server, target) == target
    assert server.asked == [None] and capsys.readouterr().err == ""


def test_file_that_lost_bytes_since_is_downloaded_again_and_a_change_is_told(
    server: Server, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    get(server, target)
    target.write_bytes(b"less")
    assert not is_whole(target)
    server.content = b"something else"
    get(server, target)
    assert target.read_bytes() == b"something else"
    assert "has changed since it was downloaded before (SHA-256 " in capsys.readouterr().err


# --- resumed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_hard", [False, True])
def test_connection_that_breaks_twice_is_gone_on_with(server: Server, target: Path, is_hard: bool) -> None:
    server.plan = [breaks_after(100_000, hard=is_hard), breaks_after(50_000, hard=is_hard)]
    assert get(server, target).read_bytes() == server.content
    first, second, third = (int(asked[6:-1]) if asked else 0 for asked in server.asked)
    assert first == 0 and 0 <= second <= 100_000 and second <= third <= 150_000
    if not is_hard:  # a reset throws away what was not read yet
        assert (second, third) == (100_000, 150_000)


def test_part_of_an_earlier_process_is_gone_on_with(server: Server, target: Path) -> None:
    server.always = breaks_after(70_000)
    with pytest.raises(DownloadError, match=r"the connection ended at 70,000 of 307,200 bytes; 1 attempts failed"):
        get(server, target, waits_s=())
    assert parts(target) == ["file.bin.part", "file.bin.part.json"] and not target.exists()
    server.always = honest
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None, "bytes=70000-"]


def test_content_that_changed_meanwhile_is_taken_from_its_start(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000)]
    part_then_change(server)
    assert get(server, target).read_bytes() == server.content == bytes(200_000)
    assert server.asked == [None, "bytes=100000-"]


def part_then_change(server: Server) -> None:
    """After the first answer there is another file of another ETag."""
    first = server.plan.pop()

    def answer(handler: Handler) -> None:
        first(handler)
        server.content, server.etag = bytes(200_000), '"second"'

    server.plan.append(answer)


def test_part_of_other_content_that_ignores_if_range_is_not_mixed_in(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000), status(206, b"x" * 207_200, ETag='"second"',
                                                 Content_Range="bytes 100000-307199/307200")]
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-", None]


def test_server_that_ignores_range_sends_it_all_again(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000), all_of_it]
    assert get(server, target).read_bytes() == server.content


def test_without_etag_and_hash_a_part_is_not_trusted_and_with_a_hash_it_is(server: Server, target: Path) -> None:
    server.etag = ""
    server.plan = [breaks_after(100_000)]
    assert get(server, target).read_bytes() == server.content
    server.plan = [breaks_after(100_000)]
    assert get(server, target.with_name("known"), is_known=True).read_bytes() == server.content
    assert server.asked == [None, None, None, "bytes=100000-"]


def test_hash_is_proof_enough_where_mirrors_give_other_etags(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000)]
    part_then_change(server)
    whole = server.content
    known = remote(server, is_known=True)
    first = server.plan.pop()

    def mirror(handler: Handler) -> None:
        first(handler)
        server.content = whole

    server.plan = [mirror]
    assert download(known, target, waits_s=AT_ONCE).read_bytes() == whole
    assert server.asked == [None, "bytes=100000-"]


def test_part_that_is_no_beginning_any_more_is_dropped(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000), status(416, Content_Range="bytes */10")]
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-", None]


def test_process_that_ended_before_the_check_needs_no_network(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000)]
    with pytest.raises(DownloadError):
        get(server, target, waits_s=())
    target.with_name("file.bin.part").write_bytes(server.content)
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None]


@pytest.mark.parametrize("state", ["", "{", "[]", '{"url": 1}'])
def test_damaged_state_of_a_part_is_a_part_of_unknown_content(server: Server, target: Path, state: str) -> None:
    server.plan = [breaks_after(100_000)]
    with pytest.raises(DownloadError):
        get(server, target, waits_s=())
    target.with_name("file.bin.part.json").write_text(state)
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None, None]


def test_ctrl_c_keeps_the_part(server: Server, target: Path, ctrl_c: None) -> None:
    stop = threading.Event()
    server.plan = [interrupts(target.with_name("file.bin.part"), stop)]
    with pytest.raises(KeyboardInterrupt):
        get(server, target)
    stop.set()
    kept = target.with_name("file.bin.part").stat().st_size
    assert kept and not target.exists()
    assert get(server, target).read_bytes() == server.content and server.asked == [None, f"bytes={kept}-"]


def test_two_at_a_time_download_once(server: Server, target: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        arrived.set()
        go_on.wait(20)
        all_of_it(handler)

    server.always = slow
    threads = [threading.Thread(target=get, args=(server, target)) for _ in range(2)]
    threads[0].start()
    assert arrived.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert server.asked == [None] and target.read_bytes() == server.content


# --- refused --------------------------------------------------------------------------------------------------------


def test_connection_that_breaks_again_and_again_is_one_line_with_what_is_kept(server: Server, target: Path) -> None:
    server.always = breaks_after(10)
    with pytest.raises(DownloadError, match=r"/a/file.bin: the connection ended at 40 of 307,200 bytes; 4 attempts "
                                            r"failed one after another. 40 bytes are kept. Check the network") as error:
        get(server, target)
    assert "\n" not in str(error.value) and len(server.asked) == 4


def test_attempts_that_bring_much_are_not_counted(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.speech.retry, "GAIN_BYTES", 50_000)
    server.plan = [breaks_after(50_000)] * 5
    assert get(server, target, waits_s=(0.0,)).read_bytes() == server.content


def test_server_that_sends_it_all_again_each_time_is_left(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.speech.retry, "GAIN_BYTES", 50_000)
    broken = [status(200, server.content[:num_bytes], Content_Length=str(len(server.content)), ETag=server.etag)
              for num_bytes in (60_000, 200_000)]
    server.plan = broken * 5  # every second one brings much, and never more than was there before
    with pytest.raises(DownloadError, match=r"the connection ended at 200,000 of 307,200 bytes; 3 attempts failed"):
        get(server, target, waits_s=(0.0, 0.0))
    assert len(server.asked) == 4


def test_part_that_brings_too_much_is_dropped(server: Server, target: Path) -> None:
    server.plan = [breaks_after(100_000), status(206, server.content[100_000:] + b"too much", ETag=server.etag,
                                                 Content_Range="bytes 100000-307199/307200")]
    assert get(server, target).read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-", None]


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "many"])
def test_length_that_is_no_number_is_none(server: Server, target: Path, length: str) -> None:
    server.always = status(200, b"all of it", Content_Length=length)
    assert get(server, target).read_bytes() == b"all of it"


@pytest.mark.parametrize(("difference", "said"), [
    (+10, r"the connection ended at 307,200 of 307,210 bytes"), (-10, "the SHA-256")])
def test_content_length_that_lies(server: Server, target: Path, difference: int, said: str) -> None:
    server.always = announces(difference)
    with pytest.raises(DownloadError, match=said):
        download(Remote(url=f"{server.url}/x", terms="", sha256=hashlib.sha256(server.content).hexdigest()), target,
                 waits_s=AT_ONCE)
    assert not target.exists()


@pytest.mark.parametrize("difference", [+10, -10])
def test_announced_length_that_is_not_the_recorded_one_is_refused_before_a_byte(
    server: Server, target: Path, difference: int
) -> None:
    server.always = announces(difference)
    with pytest.raises(DownloadError, match=f"announces {307_200 + difference:,} bytes; the file has 307,200"):
        get(server, target, is_known=True)
    assert parts(target) == [] and len(server.asked) == 1


def test_wrong_hash_removes_the_part(server: Server, target: Path) -> None:
    known = remote(server, is_known=True)
    server.content = bytes(len(server.content))
    with pytest.raises(DownloadError, match=rf"has the SHA-256 [0-9a-f]{{64}}; the file's is {known.sha256}. It was "
                                            "removed; run the same command again"):
        download(known, target, waits_s=AT_ONCE)
    assert not target.exists() and not target.with_name("file.bin.part").exists()


def test_wrong_size_without_an_announced_one_removes_the_part(server: Server, target: Path) -> None:
    known = remote(server, is_known=True)
    server.always = status(200, b"short", Content_Length=None)
    with pytest.raises(DownloadError, match="5 bytes arrived; the file has 307,200"):
        download(known, target, waits_s=AT_ONCE)
    assert not target.with_name("file.bin.part").exists()


def test_file_that_cannot_be_opened_is_not_kept(server: Server, target: Path) -> None:
    def check(path: Path) -> None:
        assert path.read_bytes() == server.content[:-10]
        raise ValueError(f"{path}: a truncated file.")

    server.always = announces(-10)
    with pytest.raises(DownloadError, match=r"what arrived \(307,190 bytes\) cannot be opened: a truncated file. It w"):
        get(server, target, check=check)
    assert not target.exists() and not record_of(target).exists()


def test_server_that_falls_silent_is_given_up_and_its_part_kept(server: Server, target: Path) -> None:
    def silent(handler: Handler) -> None:
        breaks_after(100_000)(handler)
        stop.wait(20)

    stop = threading.Event()
    server.always = silent
    with pytest.raises(DownloadError, match=r"nothing arrived for 0.2 s, at 100,000 bytes; 1 attempts failed"):
        get(server, target, waits_s=(), timeout_s=0.2)
    stop.set()
    assert target.with_name("file.bin.part").stat().st_size == 100_000


def test_no_room_is_told_before_the_first_byte(server: Server, target: Path) -> None:
    server.always = announces(10**15)
    with pytest.raises(ConfigError, match=re.escape("file.bin needs at least 1,000,000,000 MB there to begin. Make "
                                                    "room, or name another folder with CUARZO_CACHE")):
        get(server, target)


def test_disk_that_gets_full_is_said_as_such(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        get(server, target)
    assert is_full(error.value) and len(server.asked) == 1 and not target.exists()
