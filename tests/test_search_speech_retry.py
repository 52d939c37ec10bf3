"""What may pass is tried again and not for ever; what a disk cannot do is said."""

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

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
            said = "no locks on this disk (no): start no second process while this one downloads file\n"
            assert capsys.readouterr().err == said
    else:
        with pytest.raises(OSError, match="no"), alone(tmp_path / "file"):
            pytest.fail("the block ran")
