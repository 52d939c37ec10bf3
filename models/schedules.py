"""Learning rate schedules: warm-up and annealing."""

import math

from spaces.recipe import ScheduleRecipe, unknown_choice


def learning_rate_factor(schedule: ScheduleRecipe, step: int, total_steps: int) -> float:
    """The learning rate at `step` (from 0) of `total_steps`, as a ratio of its peak.

    The warm-up rises linearly from 1/(warm-up steps + 1) to 1; then the factor falls from 1, never below
    `floor_ratio`, even past `total_steps`. Cosine, polynomial and warm-up-hold-decay are NeMo's CosineAnnealing,
    PolynomialDecayAnnealing and PolynomialHoldDecayAnnealing with `min_lr` = floor_ratio x peak. Noam
    (arXiv 1706.03762) is scaled to a peak of 1, whatever the width of the network: an inverse square root that starts
    at the end of the warm-up.

    Raises:
        ValueError: `step` is negative, or `total_steps` is below 1.
        RecipeError: there is no branch for the recipe's schedule.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"step is {step} of {total_steps}; a step is at least 0, of at least 1.")
    warmup_steps = int(schedule.warmup_share * total_steps)
    if step <= warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule.name == "none":
        return 1.0
    if schedule.name == "noam":
        return max(math.sqrt((warmup_steps + 1) / (step + 1)), schedule.floor_ratio)
    hold_steps = int(schedule.hold_share * total_steps) if schedule.name == "warmup_hold_decay" else 0
    start = warmup_steps + hold_steps
    if step < start:
        return 1.0
    elapsed = min((step - start) / max(total_steps - start, 1), 1.0)
    match schedule.name:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * elapsed))
        case "polynomial" | "warmup_hold_decay":
            left = (1 - elapsed) ** schedule.power
        case other:
            raise unknown_choice("schedule.name", other, "models/schedules.py")
    return schedule.floor_ratio + (1 - schedule.floor_ratio) * left
