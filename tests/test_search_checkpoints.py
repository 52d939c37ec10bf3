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
from noise_study import RECIPE, make_setting

from models.finetuning import TrainingFailed
from models.saved import UnsafeFileError
from search import checkpoints
from search.evaluate import load_trial
from search.record import ALIVE, TrialRecord
from search.setting import Link, TrialSetting
from search.trial import train


@pytest.fixture
def setting(tmp_path: Path) -> TrialSetting:
    return make_setting(tmp_path)


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


def run(setting: TrialSetting, name: str, link: Link, **options: int) -> TrialRecord:
    train({"id": name, "recipe": RECIPE.flat(), "seed": 3} | options, setting, link, time.time())
    return TrialRecord.load(setting.folder / name)


def weights(record: TrialRecord) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(record.last_checkpoint, weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("after", [0, 2, 3, 5])
def test_trial_stopped_inside_an_epoch_ends_as_if_it_had_not_been(setting: TrialSetting, after: int) -> None:
    whole = run(setting, "whole", Stopping())
    with pytest.raises(SystemExit):
        run(setting, "cut", Stopping(after))
    checkpoint = torch.load(setting.folder / "cut" / "last.ckpt", weights_only=True)
    assert checkpoint["is_inside_epoch"] and checkpoint["global_step"] == after + 1 + after // 3
    link = Stopping()
    cut = run(setting, "cut", link)
    assert link.epochs == [1, 2]  # those of before are told again: they may have been lost
    assert [(e.epoch, e.wer, e.loss) for e in cut.epochs] == [(e.epoch, e.wer, e.loss) for e in whole.epochs]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name
    assert cut.epochs[-1].train_s >= cut.epochs[0].train_s > 0


def test_trial_killed_inside_an_epoch_goes_on_from_a_checkpoint_inside_it(setting: TrialSetting,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_EVERY_S", 0.0)

    class Killed(Stopping):
        def is_stopped(self) -> bool:
            self.looks += 1
            if self.looks == 5:  # the second epoch's first step was kept, its second is lost
                raise KeyboardInterrupt
            return False

    whole = run(setting, "whole", Stopping())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(setting, "cut", Killed())
    checkpoint = torch.load(setting.folder / "cut" / "last.ckpt", weights_only=True)
    assert checkpoint["is_inside_epoch"] and checkpoint["global_step"] == 5
    cut = run(setting, "cut", Stopping())
    assert [(e.epoch, e.wer, e.loss) for e in cut.epochs] == [(e.epoch, e.wer, e.loss) for e in whole.epochs]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name


def test_checkpoint_that_would_run_code_is_refused(setting: TrialSetting) -> None:
    with pytest.raises(SystemExit):
        run(setting, "cut", Stopping(after=2))
    path, mark = setting.folder / "cut" / "last.ckpt", setting.folder / "ran"
    torch.save(torch.load(path, weights_only=True) | {"harm": Harmful(mark)}, path)
    with pytest.raises(TrainingFailed, match=r"cut/last.ckpt: holds more than tensors \(posix.mkdir\).*remove it"):
        run(setting, "cut", Stopping())
    assert not mark.exists()


def test_best_weights_that_would_run_code_are_refused(setting: TrialSetting) -> None:
    record = run(setting, "whole", Stopping())
    torch.save({"harm": Harmful(setting.folder / "ran")}, record.best_weights)
    with pytest.raises(UnsafeFileError, match=r"best.pt: holds more than tensors \(posix.mkdir\)"):
        load_trial(setting, RECIPE, record.best_weights)
    assert not (setting.folder / "ran").exists()


def test_patience_ends_a_training_early_and_for_good(setting: TrialSetting) -> None:
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=9),
                     optimizer=replace(RECIPE.optimizer, lr=1e-9))  # nothing gets better
    job = {"id": "a", "recipe": recipe.flat(), "seed": 3, "patience": 2, "keep_last": 2}
    for _ in range(2):  # the second time it has nothing to do
        train(job, setting, Stopping(), time.time())
        record = TrialRecord.load(setting.folder / "a")
        assert record.is_complete and record.best is not None
        assert len(record.epochs) == record.best.epoch + 2 < 9
    kept = sorted(path.name for path in record.folder.glob("epoch-*.pt"))
    assert kept == [record.weights_after(len(record.epochs) - 1).name, record.weights_after(len(record.epochs)).name]


def test_best_weights_lost_by_a_kill_come_back_from_the_checkpoint(setting: TrialSetting,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone after the checkpoint of an epoch took its place, and before the best weights did."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises((KeyboardInterrupt, SystemExit)):
        patched.setattr(checkpoints, "save_weights", killed)
        run(setting, "cut", Stopping())
    folder = setting.folder / "cut"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert not checkpoint["is_inside_epoch"] and not (folder / "best.pt").exists()
    with pytest.raises(SystemExit):
        run(setting, "cut", Stopping(after=0))
    assert [epoch.epoch for epoch in TrialRecord.load(folder).epochs] == [1]
    assert json.loads((folder / "dev.json").read_text()) == checkpoint["hypotheses"] != []
    for name, tensor in torch.load(folder / "best.pt").items():
        assert torch.equal(tensor, checkpoint["state_dict"][f"averaged.module.{name}"]), name


def test_trial_shows_that_it_is_alive(setting: TrialSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "BEAT_EVERY_S", 0.0)
    beats: list[int] = []
    link = Stopping()
    link.is_stopped = lambda: bool(beats.append((setting.folder / "a" / ALIVE).stat().st_mtime_ns))  # type: ignore
    run(setting, "a", link)
    assert len(beats) == 6 and sorted(set(beats)) == beats


def test_no_half_written_file_is_left_by_a_full_disk(setting: TrialSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    run_once = replace(setting)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(checkpoints, "write_aside", full)
        run(run_once, "a", Stopping())
    assert not (setting.folder / "a" / "best.pt").exists()
    assert len(run(setting, "a", Stopping()).epochs) == 2
