"""A probe ends when it has seen a full pass or its time is over, and counts whole steps alone."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.capacity import probes
from search.capacity.probes import FullPass, Pace

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).resolve().parents[1]


class Works:
    """Batches are their work, and a fifth of padding."""

    def work(self, batch: float) -> float:
        return batch

    def padded_work(self, batch: float) -> float:
        return 1.2 * batch


def pass_by(callback: Any, batch: float, step: int = 1) -> bool:
    """Whether the callback ends the training after a batch."""
    trainer = SimpleNamespace(should_stop=False, global_step=step)
    module: Any = None
    callback.on_train_batch_end(trainer, module, None, batch, 0)
    return trainer.should_stop


def test_full_pass_counts_its_padding() -> None:
    data: Any = Works()
    full = FullPass(data, limit=10.0)
    assert [pass_by(full, batch) for batch in (1.0, 6.6, 6.7, 8.0)] == [False, False, True, True]


def test_pace_is_of_whole_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((100.0, 101.0, 104.0, 110.0))
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    data: Any = Works()
    pace = Pace(data)
    ended = [pass_by(pace, batch, step) for batch, step in ((7.0, 1), (2.0, 1), (3.0, 2), (5.0, 3))]
    assert ended == [False, False, False, True] and (pace.work, pace.took_s) == (10.0, 4.0)


def test_memory_that_a_process_holds_counts() -> None:
    # In a process of its own: an earlier peak of this one would hide what is held now.
    code = """
import numpy as np
from search.capacity.probes import _peak_bytes
before = _peak_bytes()
held = np.ones(64 << 20, dtype=np.uint8)
print((_peak_bytes() - before) / held.nbytes)
"""
    share = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert 0.5 < float(share) < 2
