"""Content counts, and what has not changed is not read again."""

import os
import time
from pathlib import Path

import pytest

from corpora import content
from corpora.content import MISSING, content_keys

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of equal size, written long ago as far as the clock of this test goes."""
    (tmp_path / "clips").mkdir()
    for name in "abc":
        (tmp_path / "clips" / name).write_text(f"sound of {name}")
    return [str(tmp_path / "clips" / name) for name in "abc"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, in any order."""
    read: list[str] = []
    key_of = content._key_of
    monkeypatch.setattr(content, "_key_of", lambda path, is_whole: (read.append(path), key_of(path, is_whole))[1])
    monkeypatch.setattr(content, "_SETTLED_S", -1000.0)
    return read


def test_what_has_not_changed_is_read_once(files: list[str], reads: list[str], tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "x.keys"
    first = content_keys(files, memory)
    assert sorted(reads) == files and len(set(first)) == 3
    assert content_keys(files[::-1], memory) == first[::-1] and len(reads) == 3


def test_same_length_and_date_do_not_hide_another_content(files: list[str], reads: list[str], tmp_path: Path) -> None:
    memory = tmp_path / "x.keys"
    first = content_keys(files, memory)
    date = os.stat(files[1])
    Path(files[1]).write_text("sound of x")
    os.utime(files[1], ns=(date.st_atime_ns, date.st_mtime_ns))
    del reads[:]
    second = content_keys(files, memory)
    assert reads == [files[1]]
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
    (tmp_path / "aside").write_text("sound of y")
    os.utime(tmp_path / "aside", ns=(date.st_atime_ns, date.st_mtime_ns))
    os.replace(tmp_path / "aside", files[1])
    assert content_keys(files, memory)[1] not in (first[1], second[1])


def test_touched_and_copied_files_keep_their_keys(files: list[str], tmp_path: Path) -> None:
    first = content_keys(files, tmp_path / "x.keys")
    os.utime(files[0], (0, 0))
    (tmp_path / "copy").write_bytes(Path(files[2]).read_bytes())
    assert content_keys([*files, str(tmp_path / "copy")], tmp_path / "x.keys") == [*first, first[2]]


def test_what_was_just_written_is_not_remembered(files: list[str], monkeypatch: pytest.MonkeyPatch,
                                                 tmp_path: Path) -> None:
    read = []
    monkeypatch.setattr(content, "_key_of", lambda path, is_whole: read.append(path) or b"k" * 16)
    monkeypatch.setattr(content.time, "time", lambda: max(os.stat(path).st_ctime for path in files) + 1)
    for _ in range(2):
        content_keys(files, tmp_path / "x.keys")
    assert len(read) == 6
    monkeypatch.setattr(content.time, "time", lambda: time.monotonic() + 1e11)
    for _ in range(2):
        content_keys(files, tmp_path / "x.keys")
    assert len(read) == 9


def test_what_is_no_file_has_no_key_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert content_keys([str(tmp_path / "pipe"), str(tmp_path), "/dev/zero", str(tmp_path / "absent"), "a\0b", ""]) == [
        MISSING] * 6


def test_memory_that_is_damaged_or_cannot_be_written_costs_time_alone(files: list[str], tmp_path: Path) -> None:
    first = content_keys(files)
    (tmp_path / "x.keys").write_bytes(b"cuarzo contents\1" + b"half")
    (tmp_path / "file").touch()
    assert content_keys(files, tmp_path / "x.keys") == first == content_keys(files, tmp_path / "file" / "x.keys")


def test_huge_file_is_known_by_pieces_all_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_WHOLE_BYTES", 10_000)
    monkeypatch.setattr(content, "_PIECE_BYTES", 10)
    path = tmp_path / "long.wav"
    keys = []
    for place in (None, 0, 50_000, 99_999):
        held = bytearray(100_000)
        if place is not None:
            held[place] = 1
        path.write_bytes(held)
        keys.append(content_keys([str(path)])[0])
    assert keys[0] != keys[1] and keys[0] != keys[3]
    held[50_001] = 1
    path.write_bytes(held)
    assert content_keys([str(path)], is_whole=True) != content_keys([str(path)])
