"""A trial that is stopped or killed goes on as if it never had been, and what it leaves is whole at every moment."""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_study import RECIPE, make_context

from files.saved import UnsafeFileError
from search.records.job import Job
from search.records.trial_record import ALIVE, TrialRecord
from search.speech.transcribe_split import load_trial
from search.task import TrialFailed
from search.trials import checkpointing
from search.trials.context import Link, TrialContext
from search.trials.train_worker import train


@pytest.fixture
def context(tmp_path: Path) -> TrialContext:
    return make_context(tmp_path)


class Stopping(Link):
    """Wants the trial to be left after so many looks, and remembers what it was told."""

    def __init__(self, after: float = math.inf) -> None:
        self.after, self.looks = after, 0
        self.epochs: list[int] = []

    def report(self, metrics: dict[str, Any]) -> None:
        self.epochs.append(metrics["epoch"])

    def is_stopped(self) -> bool:
        self.looks += 1
        return self.looks > self.after


class Harmful:
    """Runs code where a pickle of it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def run(context: TrialContext, name: str, link: Link, **options: int) -> TrialRecord:
    train(Job(id=name, recipe=RECIPE, seed=3, **options), context, link, time.time())
    return TrialRecord.load(context.folder / name)


def figures(record: TrialRecord) -> list[tuple[int, float, float]]:
    return [(epoch.epoch, epoch["wer"], epoch["loss"]) for epoch in record.epochs]


def weights(record: TrialRecord) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(record.last_checkpoint, weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("after", [0, 2, 3, 5])
def test_trial_stopped_inside_an_epoch_ends_as_if_it_had_not_been(context: TrialContext, after: int) -> None:
    whole = run(context, "whole", Stopping())
    with pytest.raises(SystemExit):
        run(context, "cut", Stopping(after))
    checkpoint = torch.load(context.folder / "cut" / "last.ckpt", weights_only=True)
    assert checkpoint["is_inside_epoch"] and checkpoint["global_step"] == after + 1 + after // 3
    link = Stopping()
    cut = run(context, "cut", link)
    assert link.epochs == [1, 2]  # those of before are told again: they may have been lost
    assert figures(cut) == figures(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name
    assert cut.epochs[-1].train_s >= cut.epochs[0].train_s > 0


def test_trial_killed_inside_an_epoch_goes_on_from_a_checkpoint_inside_it(context: TrialContext,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "CHECKPOINT_EVERY_S", 0.0)

    class Killed(Stopping):
        def is_stopped(self) -> bool:
            self.looks += 1
            if self.looks == 5:  # the second epoch's first step was kept, its second is lost
                raise KeyboardInterrupt
            return False

    whole = run(context, "whole", Stopping())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(context, "cut", Killed())
    checkpoint = torch.load(context.folder / "cut" / "last.ckpt", weights_only=True)
    assert checkpoint["is_inside_epoch"] and checkpoint["global_step"] == 5
    cut = run(context, "cut", Stopping())
    assert figures(cut) == figures(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name


def test_checkpoint_that_would_run_code_is_refused(context: TrialContext) -> None:
    with pytest.raises(SystemExit):
        run(context, "cut", Stopping(after=2))
    path, mark = context.folder / "cut" / "last.ckpt", context.folder / "ran"
    torch.save(torch.load(path, weights_only=True) | {"harm": Harmful(mark)}, path)
    with pytest.raises(TrialFailed, match=r"cut/last.ckpt: holds more than tensors \(posix.mkdir\).*remove it"):
        run(context, "cut", Stopping())
    assert not mark.exists()


def test_best_weights_that_would_run_code_are_refused(context: TrialContext) -> None:
    record = run(context, "whole", Stopping())
    torch.save({"harm": Harmful(context.folder / "ran")}, record.best_weights)
    with pytest.raises(UnsafeFileError, match=r"best.pt: holds more than tensors \(posix.mkdir\)"):
        load_trial(context, RECIPE, record.best_weights)
    assert not (context.folder / "ran").exists()


def test_patience_ends_a_training_early_and_for_good(context: TrialContext) -> None:
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=9),
                     optimizer=replace(RECIPE.optimizer, lr=1e-9))  # nothing gets better
    job = Job(id="a", recipe=recipe, seed=3, patience=2, keep_last=2)
    for _ in range(2):  # the second time it has nothing to do
        train(job, context, Stopping(), time.time())
        record = TrialRecord.load(context.folder / "a")
        assert record.is_complete and record.best is not None
        assert len(record.epochs) == record.best.epoch + 2 < 9
    kept = sorted(path.name for path in record.folder.glob("epoch-*.pt"))
    assert kept == [record.weights_after(len(record.epochs) - 1).name, record.weights_after(len(record.epochs)).name]


def test_best_weights_lost_by_a_kill_come_back_from_the_checkpoint(context: TrialContext,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone after the checkpoint of an epoch took its place, and before the best weights did."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises((KeyboardInterrupt, SystemExit)):
        patched.setattr(checkpointing, "save_weights", killed)
        run(context, "cut", Stopping())
    folder = context.folder / "cut"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert not checkpoint["is_inside_epoch"] and not (folder / "best.pt").exists()
    with pytest.raises(SystemExit):
        run(context, "cut", Stopping(after=0))
    assert [epoch.epoch for epoch in TrialRecord.load(folder).epochs] == [1]
    assert json.loads((folder / "dev.json").read_text()) == checkpoint["hypotheses"] != []
    for name, tensor in torch.load(folder / "best.pt").items():
        assert torch.equal(tensor, checkpoint["state_dict"][f"averaged.module.{name}"]), name


def test_trial_shows_that_it_is_alive(context: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "BEAT_EVERY_S", 0.0)
    beats: list[int] = []
    link = Stopping()
    link.is_stopped = lambda: bool(beats.append((context.folder / "a" / ALIVE).stat().st_mtime_ns))  # type: ignore
    run(context, "a", link)
    assert len(beats) == 6 and sorted(set(beats)) == beats


def test_no_half_written_file_is_left_by_a_full_disk(context: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    run_once = replace(context)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(checkpointing, "write_aside", full)
        run(run_once, "a", Stopping())
    assert not (context.folder / "a" / "best.pt").exists()
    assert len(run(context, "a", Stopping()).epochs) == 2
