"""Learning-rate schedules, against NeMo's formulas written out."""

import itertools
import math
from typing import get_args

import pytest

from models.schedules import learning_rate_factor
from spaces.recipe import RecipeError, ScheduleName, ScheduleRecipe

pytestmark = pytest.mark.timeout(30)

NAMES = get_args(ScheduleName)


def factors(schedule: ScheduleRecipe, total_steps: int) -> list[float]:
    return [learning_rate_factor(schedule, step, total_steps) for step in range(total_steps)]


def test_cosine_is_nemos_cosine_annealing() -> None:
    peak, floor, warmup, total = 0.01, 1e-5, 25, 200
    schedule = ScheduleRecipe(name="cosine", warmup_share=warmup / total, floor_ratio=floor / peak)
    for step in range(total):
        nemo = peak * (step + 1) / (warmup + 1) if step <= warmup else (
            (peak - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) + floor)
        assert peak * learning_rate_factor(schedule, step, total) == pytest.approx(nemo, rel=1e-12)


def test_polynomial_is_nemos_polynomial_decay_annealing() -> None:
    schedule = ScheduleRecipe(name="polynomial", warmup_share=0.1, power=3.0, floor_ratio=0.01)
    for step in range(11, 100):
        nemo = 0.99 * math.pow(1 - (step - 10) / 90, 3) + 0.01
        assert learning_rate_factor(schedule, step, 100) == pytest.approx(nemo, rel=1e-12)


def test_warmup_hold_decay_is_nemos_polynomial_hold_decay_annealing() -> None:
    schedule = ScheduleRecipe(name="warmup_hold_decay", warmup_share=0.1, hold_share=0.3, power=2.0, floor_ratio=0.01)
    assert factors(schedule, 100)[10:40] == [1.0] * 30
    for step in range(40, 100):
        nemo = 0.99 * math.pow(1 - (step - 40) / 60, 2) + 0.01
        assert learning_rate_factor(schedule, step, 100) == pytest.approx(nemo, rel=1e-12)


def test_noam_peaks_at_one_and_falls_with_the_inverse_square_root() -> None:
    values = factors(ScheduleRecipe(name="noam", warmup_share=0.1), 1000)
    assert max(values) == values[100] == 1.0
    assert values[403] == pytest.approx(math.sqrt(101 / 404))


def test_none_holds_the_peak_after_the_warmup() -> None:
    values = factors(ScheduleRecipe(name="none", warmup_share=0.2), 10)
    assert values == pytest.approx([1 / 3, 2 / 3, *[1.0] * 8])


@pytest.mark.parametrize("name", NAMES)
def test_factor_stays_between_floor_and_peak_for_any_length(name: ScheduleName) -> None:
    for total, warmup, hold, floor in itertools.product((1, 2, 3, 50), (0.0, 0.3, 0.99), (0.0, 0.01), (0.0, 0.2)):
        schedule = ScheduleRecipe(name=name, warmup_share=warmup, hold_share=hold, floor_ratio=floor)
        values = [learning_rate_factor(schedule, step, total) for step in range(2 * total + 5)]
        num_warmup = int(warmup * total)
        assert all(math.isfinite(value) and 0 <= value <= 1 for value in values)
        assert values[num_warmup] == 1.0
        assert min(values[num_warmup:]) >= floor
        assert values[:num_warmup] == sorted(values[:num_warmup])
        assert values[num_warmup:] == sorted(values[num_warmup:], reverse=True)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="step is 0 of 0"):
        learning_rate_factor(ScheduleRecipe(), 0, 0)


def test_schedule_without_a_branch_is_refused_by_name() -> None:
    unbuilt = ScheduleRecipe()
    object.__setattr__(unbuilt, "name", "linear")
    with pytest.raises(RecipeError, match=r"^schedule\.name is 'linear'; it must be one that models/schedules\.py has"):
        learning_rate_factor(unbuilt, 50, 100)
