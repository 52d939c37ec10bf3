"""A file is written whole or not at all, by whoever writes it."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from files.atomic import aside_of, write_aside, write_shared
from spaces.recipe import Recipe


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    write_aside(file, b"before")

    def broken(content: IO[bytes]) -> None:
        content.write(b"aft")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_shared(file, broken)
    assert file.read_bytes() == b"before"
    write_shared(file, lambda content: content.write(b"after"))
    assert file.read_bytes() == b"after" and not aside_of(file).exists()


def test_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as refused:
        Recipe().save(tmp_path)
    assert refused.value.filename == str(tmp_path) and list(tmp_path.parent.glob("*.part")) == []


def test_threads_that_write_one_file_are_not_in_each_others_way(tmp_path: Path) -> None:
    """As the budget's own thread and the main one do with spent.json."""
    def write(number: int) -> None:
        write_aside(tmp_path / "file", b"%d" % number * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(100)))
    assert len(set((tmp_path / "file").read_bytes())) <= 2 and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_file_is_on_the_disk_before_its_name_and_its_name_before_all_that_follows(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(
        "folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    write_aside(tmp_path / "file", b"content")
    assert events == ["file", "rename", "folder"]


def test_recipe_that_a_person_saves_outlives_a_power_cut_and_a_full_disk(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "of" / "mine" / "recipe.yaml"
    Recipe().save(str(file))
    before, synced = file.read_bytes(), []

    def full(number: int) -> None:
        synced.append(number)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Recipe(network="5x5").save(file)
    assert synced and file.read_bytes() == before and list(file.parent.iterdir()) == [file]
