"""What a trial does with its GPU before it trains."""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from noise_study import RECIPE, make_context

from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.speech.task import SpeechTask
from search.trials.context import Link, TrialStopped
from search.trials.train_worker import keep_to_share, train

JOB = Job(id="0000", recipe=RECIPE, seed=3)


def test_gpu_that_pytorch_cannot_use_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).")

    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(RuntimeError, match="driver on your system is too old"):
        train(JOB, replace(make_context(tmp_path), gpus_per_worker=1.0), Link(), time.time())


def test_trial_records_the_numbers_that_it_multiplied(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    train(JOB, context, Link(), time.time())
    assert TrialRecord.load(context.folder / "0000").precision == "32-true"


@pytest.mark.parametrize("code", ["no licence", 0, None, 3])
def test_code_that_exits_is_the_reason_and_not_a_lost_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              code: object) -> None:
    monkeypatch.setattr(SpeechTask, "build", lambda *_: sys.exit(code))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=re.escape(f"its code called sys.exit({code!r})")):
        train(JOB, make_context(tmp_path), Link(), time.time())


class Stopping(Link):
    """Tune ends the thread of a trial that it stops by a SystemExit of its own."""

    def is_stopped(self) -> bool:
        return True


@pytest.mark.parametrize(("left", "link"), [(TrialStopped(0), Link()), (SystemExit(0), Stopping())])
def test_trial_that_was_asked_to_leave_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: SystemExit,
                                              link: Link) -> None:
    def leave(*_: Any) -> None:
        raise left

    monkeypatch.setattr(SpeechTask, "build", leave)
    with pytest.raises(SystemExit):
        train(JOB, make_context(tmp_path), link, time.time())


@pytest.mark.parametrize(("device", "share", "told"), [
    ("cpu", 0.0, []), ("cuda:1", 1.0, []), ("cuda:1", 2.0, []),
    ("cuda:1", 0.25, ["garbage_collection_threshold:0.2250", (1.0, "cuda:1")]),  # a context is 0.6 of 24 GB
    ("cuda:1", 0.01, ["garbage_collection_threshold:0.0100", (1.0, "cuda:1")])])
def test_trial_gives_back_memory_of_a_shared_gpu_beyond_its_share(monkeypatch: pytest.MonkeyPatch, device: str,
                                                                  share: float, told: list[Any]) -> None:
    heard: list[Any] = []
    gpu = SimpleNamespace(total_memory=24 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction",
                        lambda fraction, device: heard.append((fraction, str(device))))
    setter = torch._C._accelerator_setAllocatorSettings
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", lambda text: (heard.append(text), setter(text)))
    keep_to_share(torch.device(device), share)
    assert heard == told
