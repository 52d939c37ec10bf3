"""What becomes of a trial that raises: a failure with its reason, unless the disk was full."""

import errno
from pathlib import Path
from typing import Any

import pytest

from search import workers
from search.record import read_failure, write_failure
from search.workers import run_trial

JOB = {"id": "0000", "recipe": {}, "seed": 0}


class Setting:
    num_workers = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder


@pytest.mark.parametrize(("error", "reason"), [
    (MemoryError("no room for 3 GB"), "MemoryError: no room for 3 GB"),
    (ValueError("first\nsecond"), "ValueError: first")])
def test_trial_that_raises_keeps_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception,
                                            reason: str) -> None:
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") == reason
    run_trial({"job": JOB}, setting)
    assert len(calls) == 1  # it would fail in the same way again


def test_full_disk_is_no_failure_of_the_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    with pytest.raises(OSError, match="No space"):
        run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") is None


def test_reason_that_was_found_first_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        write_failure(tmp_path / "0000", "found first")
        raise ValueError("later")

    monkeypatch.setattr(workers, "_train_here", fail)
    setting: Any = Setting(tmp_path)
    run_trial({"job": JOB}, setting)
    assert read_failure(tmp_path / "0000") == "found first"
