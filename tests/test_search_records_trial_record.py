"""A trial's record is read as it was written, and a failure is kept with its reason."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from told_study import RECIPE, write_trial

from search.records.trial_record import (
    Epoch,
    TrialRecord,
    first_line,
    is_complete,
    read_failure,
    records,
    write_failure,
)

pytestmark = pytest.mark.timeout(60)


def epoch(number: int, wer: float) -> Epoch:
    return Epoch(epoch=number, metrics={"wer": wer, "best_wer": wer}, train_s=1.0, outside_s=0.5, to_first_step_s=0.1,
                 gpu_s=0.0)


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "0007").mkdir()
    record = TrialRecord(tmp_path / "0007", RECIPE, seed=3, patience=2, epochs=[epoch(1, 0.5), epoch(2, 0.25)])
    record.save()
    assert TrialRecord.load(tmp_path / "0007") == record
    assert [found.id for found in records(tmp_path)] == ["0007"]
    assert Epoch.from_flat(epoch(1, 0.5).flat()) == epoch(1, 0.5)


@pytest.mark.parametrize(("wers", "patience", "ended"), [
    ([0.5], None, False), ([0.5, 0.4, 0.3], None, True), ([0.4, 0.5], 1, True), ([0.5, 0.4], 1, False), ([], 1, False)])
def test_training_is_complete_at_its_last_epoch_or_without_patience(tmp_path: Path, wers: list[float],
                                                                    patience: int | None, ended: bool) -> None:
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=3))
    record = TrialRecord(tmp_path, recipe, 0, patience=patience,
                         epochs=[epoch(number, wer) for number, wer in enumerate(wers, 1)])
    assert not is_complete(tmp_path)
    record.save()
    assert is_complete(tmp_path) is record.is_complete is ended
    assert (record.best.metrics["wer"] if record.best else None) == min(wers, default=None)


def test_what_dev_heard_is_read_from_the_trials_folder(tmp_path: Path) -> None:
    record = write_trial(tmp_path, "0003", 0.4)
    assert TrialRecord.load(record.folder).dev_hypotheses() == record.dev_hypotheses() != []


def test_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    write_failure(tmp_path, "ValueError: the loss is nan\u00b7")
    assert read_failure(tmp_path) == "ValueError: the loss is nan\u00b7"


class NoWordsError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("half made")


class OwnCauseError(Exception):
    cause = "its own"


def test_reason_of_any_error_can_be_had_and_written_down(tmp_path: Path) -> None:
    """A file's name may hold what is no letter, or a terminal's own signs."""
    said = [first_line(error) for error in (NoWordsError(), ValueError("a\udcff\x1b[31m.wav"), OwnCauseError("mine"))]
    assert said == ["NoWordsError: its message cannot be had (RuntimeError)", r"ValueError: a\udcff\x1b[31m.wav",
                    "OwnCauseError: mine"]
    for reason in said:
        write_failure(tmp_path, reason)
        assert read_failure(tmp_path) == reason


def test_error_is_one_line_and_a_full_gpu_says_what_helps() -> None:
    assert first_line(ValueError("first\nsecond")) == "ValueError: first"
    assert first_line(ValueError("\n\n first:\n\tsecond\nthird")) == "ValueError: first: second"
    assert (first_line(MemoryError()), first_line(OSError("\n"))) == ("MemoryError", "OSError")
    assert len(first_line(ValueError("x" * 10_000_000))) < 1000
    assert first_line(ExceptionGroup("two", [ValueError("one"), KeyError("x")])) == "ValueError: one"
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has 1 GiB free. And so on.")
    assert first_line(full) == ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has 1 GiB free. "
                                "Lower max_audio_s_per_pass, or raise gpus_per_worker where it is below 1")
