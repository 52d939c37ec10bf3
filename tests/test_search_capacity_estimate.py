"""What a study will take, against sums made by hand and against what real trainings leave on the disk."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_study import RECIPE, make_context

from models.quartznet import AcousticModel, named_network
from search.capacity.estimate import (
    DEV_COST,
    FIXED_S,
    OUTSIDE_S,
    SLOWER,
    Load,
    asha_epochs,
    estimate,
    num_more_trainings,
    to_scale,
)
from search.config import StudyConfig
from search.records.job import Job
from search.trials.context import Link
from search.trials.train_worker import train
from search.tuning.asha import ResumableASHA
from spaces.recipe import OptimizerName, Recipe

pytestmark = pytest.mark.timeout(120)

LOAD = Load(train_s=36_000.0, dev_s=6_000.0, speech_s_per_s=100.0, concurrency=2, gpus_per_trial=0.5,
            audio_s_per_step=60.0, weights_bytes=76_000_000, features_bytes=460_000_000, free_bytes=10**12)


def study(**changes: Any) -> StudyConfig:
    values: dict[str, Any] = {"corpus": ("es.tar.gz",), "source": "en.nemo", "trials": 9, "max_epochs": 9,
                              "grace_epochs": 1, "reduction_factor": 3, "confirm": 1, "seeds": 2, "wandb": "off",
                              "data_scaling": False}
    return StudyConfig(**(values | changes)).resolved()


# --- epochs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "share", "epochs"), [
    ({}, 1 / 3, [9, 3, 3, 1, 1, 1, 1, 1, 1]),  # rungs at 1 and 3; 9 is the end
    ({}, 2 / 3, [9, 9, 9, 9, 3, 3, 1, 1, 1]),
    ({}, 1.0, [9] * 9),
    ({"trials": 8, "max_epochs": 6, "grace_epochs": 3}, 1 / 3, [6, 6, 6, 3, 3, 3, 3, 3]),  # the embedded default
    ({"trials": 3, "max_epochs": 3, "grace_epochs": 2}, 1 / 3, [3, 2, 2]),
    ({"trials": 4, "max_epochs": 5, "grace_epochs": 5}, 1 / 3, [5, 5, 5, 5]),
    ({"trials": 1, "max_epochs": 30, "grace_epochs": 2}, 1 / 3, [30]),
])
def test_epochs_follow_the_rungs(changes: dict[str, Any], share: float, epochs: list[int]) -> None:
    assert asha_epochs(study(**changes), share) == epochs


def test_our_scheduler_stops_within_the_range() -> None:
    """Recipes in no order, and ones that get better all the time, told to the scheduler that a study uses."""
    config = study(trials=100, max_epochs=30, grace_epochs=2)
    low, high = estimate(config, LOAD)["epochs_per_trial"]
    generator = torch.Generator().manual_seed(0)
    for trend in (0.0, 0.5):
        asha, epochs = ResumableASHA(metric="wer", max_epochs=30, grace_epochs=2, reduction_factor=3), 0
        for number in range(100):
            trial = type("Trial", (), {"config": Job(id=f"{number:04d}", recipe=Recipe(), seed=0).parameters()})
            asha.on_trial_add(None, trial)
            wer = float(torch.rand((), generator=generator)) - trend * number / 100
            for epoch in range(1, 31):
                epochs += 1
                if asha.on_trial_result(None, trial, {"epoch": epoch, "wer": wer}) == "STOP" or epoch == 30:
                    break
            asha.on_trial_remove(None, trial)
        assert 0.9 * low < epochs / 100 < high, trend


def test_other_seeds_and_variants_are_counted() -> None:
    assert num_more_trainings(study()) == (1 + 1) * 1 + 2  # the best and a hand recipe, then what transfer gained
    assert num_more_trainings(study(ablation=False, seeds=3)) == 2 * 2
    assert num_more_trainings(study(source="none", trials=1)) == 1
    assert num_more_trainings(study(data_scaling=True)) == num_more_trainings(study()) + 2
    assert to_scale(study(data_scaling=True)) == [3, 5] and to_scale(study()) == []


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_is_the_sum_of_all_stages() -> None:
    """By hand: an epoch is (36,000 + 0.6 * 6,000) / 100 = 396 s. The search's 9, 3, 3 and six of 1 on two lanes end
    after 11 and 10 epochs; the best one is complete, so a hand recipe goes on for 8 and two others begin with 9, on two
    lanes 17; then two variants, 9; the look at test is one more, and 10 s end it, beside what is fixed."""
    assert DEV_COST == 0.6
    found = estimate(study(cost_per_hour=2.0), LOAD)
    wall_s = 396 * (11 + 17 + 9 + 1) + 10 + OUTSIDE_S[0] * (4 + 2 + 1) + FIXED_S[0]
    assert found["wall_s"][0] == pytest.approx(wall_s, abs=2)
    num_epochs, num_trainings = 9 + 3 + 3 + 6 + 8 + 9 + 9 + 18, 9 + 3 + 2
    gpu_s = 0.5 * (396 * num_epochs + OUTSIDE_S[0] * num_trainings)
    assert found["gpu_h"][0] == pytest.approx(gpu_s / 3600, abs=0.01)
    assert found["cost"][0] == pytest.approx(2.0 * wall_s / 3600, abs=0.02)
    assert found["wall_s"][1] > SLOWER * found["wall_s"][0] and found["epochs_per_trial"] == [2.33, 5.0]


def test_scarce_trials_do_not_fill_the_cluster() -> None:
    one = study(trials=1, max_epochs=3, seeds=1, ablation=False)
    assert estimate(one, LOAD)["wall_s"] == estimate(one, replace(LOAD, concurrency=64))["wall_s"]


def test_without_a_measured_speed_there_is_no_time_and_the_budget_is_not_judged() -> None:
    found = estimate(study(budget="2h"), replace(LOAD, speech_s_per_s=None))
    assert (found["wall_s"], found["gpu_h"], found["cost"]) == (None, None, None)
    assert found["epochs_per_trial"] == [2.33, 5.0]
    assert found["budgets"] == ["budget 2h: whether it is enough is unknown, because no training was timed"]


def test_budgets_are_held_against_the_whole_study() -> None:
    found = estimate(study(budget="1h", budget_gpu_h=100.0), LOAD)
    shares = [3600 / seconds for seconds in found["wall_s"]]
    assert found["budgets"] == [
        f"budget 1h: ends the search early; it pays for {shares[1]:.0%} to {shares[0]:.0%} of the whole study",
        "budget_gpu_h 100.0: enough for all of it"]


# --- disk ------------------------------------------------------------------------------------------------------------


def test_disk_is_what_all_trainings_keep() -> None:
    found = estimate(study(), LOAD)["disk"]
    num_trainings = 9 + 4
    assert found["features"] == 460_000_000 and found["wandb"] == [0, 0]
    assert found["trials"] == [4 * 76_000_000 * num_trainings, (5 * num_trainings + 2 * 4) * 76_000_000]
    assert found["to_write"] == found["trials"]


def test_records_grow_with_steps() -> None:
    """By hand: 65 epochs of 36,000 s in steps of 60 s make 39,000 steps and 3,900 rows."""
    low, _ = estimate(study(wandb="offline"), LOAD)["disk"]["wandb"]
    assert low == 13 * 20_000 + 450 * 3_900


@pytest.mark.parametrize(("optimizer", "end"), [("novograd", 0), ("adamw", 1)])
def test_real_training_keeps_what_is_said(tmp_path: Path, optimizer: OptimizerName, end: int) -> None:
    context = make_context(tmp_path)
    recipe = replace(RECIPE, optimizer=replace(RECIPE.optimizer, name=optimizer))
    train(Job(id="0000", recipe=recipe, seed=3), context, Link(), time.time())
    kept = sum(file.stat().st_size for file in (context.folder / "0000").iterdir())
    weights = sum(tensor.numel() * tensor.element_size()
                  for tensor in AcousticModel(named_network("narrow"), 4).state_dict().values())
    one = study(trials=1, seeds=1, ablation=False)
    load = replace(LOAD, concurrency=0, speech_s_per_s=None, weights_bytes=weights)
    said = estimate(one, load)["disk"]["trials"][end]
    assert said < kept < 1.03 * said
