"""Rungs are where the scheduler stops trials, and outlive a killed study."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.config import StudyConfig
from search.records.job import Job
from search.records.trial_record import Epoch, TrialRecord
from search.tuning.asha import ResumableASHA
from spaces.recipe import Recipe

pytestmark = pytest.mark.timeout(60)


def test_rungs_are_those_that_the_scheduler_decides_at() -> None:
    assert StudyConfig(max_epochs=30, grace_epochs=2, reduction_factor=3).resolved().rungs == (2, 6, 18)
    for most, grace, factor in itertools.product(range(1, 130), (1, 2, 3, 200), (2, 3, 4, 10)):
        config = StudyConfig(max_epochs=most, grace_epochs=grace, reduction_factor=factor).resolved()
        asha = ResumableASHA.of(config, "wer")
        rays = {int(epochs) for epochs in re.findall(r"Iter (\d+)\.000", asha.debug_string())}
        # At the most epochs nothing is decided; Ray's logarithms find a rung there or not, as they are rounded.
        assert config.rungs == tuple(sorted(rays - {most}))


def test_rungs_of_a_resumed_study_are_those_before_the_kill(tmp_path: Path) -> None:
    finished = {"0000": [0.5, 0.4, 0.3], "0001": [0.8], "0002": [0.6, 0.5]}

    def live() -> ResumableASHA:
        asha = ResumableASHA(metric="wer", max_epochs=9, grace_epochs=1, reduction_factor=3)
        for name, wers in finished.items():
            trial = _ray_trial(name)
            asha.on_trial_add(None, trial)
            for epoch, wer in enumerate(wers, 1):
                asha.on_trial_result(None, trial, {"wer": wer, "epoch": epoch})
        return asha

    replayed = ResumableASHA(metric="wer", max_epochs=9, grace_epochs=1, reduction_factor=3)
    replayed.replay([_record(tmp_path, name, wers) for name, wers in finished.items()])
    assert replayed.debug_string().splitlines()[1:] == live().debug_string().splitlines()[1:]
    decisions = []
    for asha in (replayed, live()):
        trial = _ray_trial("0003")
        asha.on_trial_add(None, trial)
        decisions.append(asha.on_trial_result(None, trial, {"wer": 0.79, "epoch": 1}))
    assert decisions == ["STOP", "STOP"]


def _ray_trial(name: str) -> SimpleNamespace:
    return SimpleNamespace(config=Job(id=name, recipe=Recipe(), seed=0).parameters(), trial_id=f"ray-{name}")


def _record(folder: Path, name: str, wers: list[float]) -> TrialRecord:
    epochs = [Epoch(epoch=i, metrics={"wer": wer, "best_wer": min(wers[:i])},
                    train_s=1.0, outside_s=1.0, to_first_step_s=1.0, gpu_s=0.0)
              for i, wer in enumerate(wers, 1)]
    return TrialRecord(folder / name, Recipe(), 0, epochs=epochs)
