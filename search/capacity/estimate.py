"""Estimate a study's time, GPU hours, money and disk from what is known and what probes measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import ResolvedConfig
from search.records.disk_space import WEIGHTS_A_TRIAL_KEEPS
from search.records.job import PARTS
from search.trials.budget import Amounts, Budget

MAX_VARIANTS = 2
"""Trainings of the ablation; of its three variants, one is the winner itself if it starts from a source."""

DEV_COST = 0.6
"""A validation takes this share of a training pass over as much speech: it runs the latest weights and the average, and
inference takes 0.3 of a training step (benchmarks/README.md, 15x5, 16 clips of 10 s)."""

SLOWER = 1.3
"""The high end is this many times the measured seconds: a whole epoch is slower than a probe's few steps (1.1 to 1.25
times: 15x5, two cores, four epochs of 1.85 h), other recipes make smaller steps, and a node may have other load."""

MORE_GO_ON = 2
"""At the high end, this many times more trials than one in `reduction_factor` continue at a rung, because later recipes
may be better than earlier ones. Simulated with our scheduler (100 trials, 30 epochs, grace 2, factor 3, 20 seeds): 5.0
to 9.1 epochs per trial if recipes come in any order, 11.4 to 16.0 if they steadily get better; the two ends give 5.3
and 13.7."""

OUTSIDE_S = (0.1, 5.0)
"""Seconds of a trial outside its training, low and high (benchmarks/README.md: 0.09 s, 10 s for the first one)."""

FIXED_S = (10.0, 50.0)
"""Seconds of a study before its first trial: vocabularies, packing. The budget's ENDING_S are those after its last."""

WANDB_RUN_BYTES, WANDB_ROW_BYTES, WANDB_EVERY = 20_000, (450, 1500), 10
"""Bytes of an offline run of W&B 0.31, and of each row in it, at most one per ten steps; more if W&B's own machine
metrics come between them."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is known of a study before it starts."""

    train_s: float
    """Seconds of speech in the training split."""
    dev_s: float
    """Seconds of speech in the development split."""
    speech_s_per_s: float | None
    """Seconds of speech per second that one trial trains on next to the others; None if not measured."""
    concurrency: int
    """Number of concurrent trials."""
    gpus_per_trial: float
    audio_s_per_step: float
    """Of the first hand recipe; it decides how many rows W&B keeps."""
    weights_bytes: int
    """Of the network in float32, with the largest vocabulary."""
    features_bytes: int
    """Of the finished store."""
    free_bytes: int
    """On the disk of the run's folder."""


def estimate(config: ResolvedConfig, load: Load) -> dict[str, Any]:
    """What the whole study will take, each as a low and a high end.

    Time is None if nothing was measured. Budgets are not subtracted, but compared with what would be needed.
    """
    ends = [1 / config.reduction_factor, min(1.0, MORE_GO_ON / config.reduction_factor)]
    searches = [asha_epochs(config, share) for share in ends]
    confirmation = [*to_confirm(config, config.max_epochs), to_scale(config)]
    num_trainings = config.trials + num_more_trainings(config)
    epochs_in_all = [sum(map(sum, [epochs, *confirmation])) for epochs in searches]
    found: dict[str, Any] = {
        "trials": config.trials, "max_epochs": config.max_epochs, "trainings": num_trainings,
        "epochs_per_trial": [round(sum(epochs) / len(epochs), 2) for epochs in searches],
        "train_h": round(load.train_s / 3600, 4), "concurrency": load.concurrency,
        "speech_s_per_s": load.speech_s_per_s and round(load.speech_s_per_s, 1),
        "wall_s": None, "gpu_h": None, "cost": None,
        "disk": disk_bytes(config, load, epochs_in_all, num_trainings),
    }
    if load.speech_s_per_s:
        slower = (1.0, SLOWER)
        needs = [_need(config, load, [epochs, *confirmation], slower[end], OUTSIDE_S[end])
                 for end, epochs in enumerate(searches)]
        found["wall_s"] = [round(need.wall_s + fixed_s) for need, fixed_s in zip(needs, FIXED_S, strict=True)]
        found["gpu_h"] = [round(need.gpu_s / 3600, 2) for need in needs]
        found["cost"] = ([round(config.cost_per_hour * wall_s / 3600, 2) for wall_s in found["wall_s"]]
                         if config.cost_per_hour else None)
    return found | {"budgets": budget_lines(config, found)}


def asha_epochs(config: ResolvedConfig, share: float) -> list[int]:
    """Epochs of each trial, the longest first, if this share of those that reach a rung continue, rounded up."""
    reached, stopped = config.trials, list[int]()
    for rung in config.rungs:
        go_on = math.ceil(reached * share - 1e-9)
        stopped += [rung] * (reached - go_on)
        reached = go_on
    return [config.max_epochs] * reached + stopped[::-1]


def num_more_trainings(config: ResolvedConfig) -> int:
    """Trainings after the search that have their own folder: other seeds, the ablation, and parts of the speech."""
    confirmed = min(config.confirm, config.trials) + (config.trials > config.confirm)
    return confirmed * (config.seeds - 1) + len(to_confirm(config, config.max_epochs)[1]) + len(to_scale(config))


def to_scale(config: ResolvedConfig) -> list[int]:
    """Epochs of the winner's trainings on parts of the speech, as such of the whole; no budget keeps room for them."""
    return [math.ceil(share * config.max_epochs) for share in PARTS.values()] if config.data_scaling else []


def disk_bytes(config: ResolvedConfig, load: Load, epochs: Sequence[int], num_trainings: int) -> dict[str, Any]:
    """Bytes of the store, which is there, and of the trials' and W&B's folders, which a study writes; `epochs` are
    those of all trainings, low and high.

    A training keeps its last checkpoint and its best weights for good; a moment less at the low end. At the high end
    each trial that runs has a second checkpoint, which is written aside.
    """
    low = (WEIGHTS_A_TRIAL_KEEPS - 1) * load.weights_bytes * num_trainings
    aside = min(load.concurrency, num_trainings) * (WEIGHTS_A_TRIAL_KEEPS - 1) * load.weights_bytes
    high = WEIGHTS_A_TRIAL_KEEPS * load.weights_bytes * num_trainings + aside
    wandb = [0, 0] if config.wandb == "off" else [
        round(num_trainings * WANDB_RUN_BYTES + WANDB_ROW_BYTES[end] * count * load.train_s
              / load.audio_s_per_step / WANDB_EVERY) for end, count in enumerate(epochs)]
    return {"features": load.features_bytes, "trials": [low, high], "wandb": wandb,
            "to_write": [low + wandb[0], high + wandb[1]], "free": load.free_bytes}


def budget_lines(config: ResolvedConfig, found: dict[str, Any]) -> list[str]:
    """For each budget, whether the study will fit, in words."""
    limits = {"budget": (config.budget_s if config.budget else None, found["wall_s"]),
              "budget_gpu_h": (config.budget_gpu_h, found["gpu_h"]), "budget_cost": (config.budget_cost, found["cost"])}
    return [f"{name} {getattr(config, name)}: {_fits(limit, needed)}"
            for name, (limit, needed) in limits.items() if limit is not None]


def _fits(limit: float, needed: Sequence[float] | None) -> str:
    if needed is None:
        return "whether it is enough is unknown, because no training was timed"
    if needed[1] <= limit:
        return "enough for all of it"
    share = [min(1.0, limit / end) for end in needed]
    return f"ends the search early; it pays for {share[1]:.0%} to {share[0]:.0%} of the whole study"


def _need(config: ResolvedConfig, load: Load, stages: Sequence[Sequence[int]], slower: float,
          outside_s: float) -> Amounts:
    """What the trainings of all stages take, by the rule of a study's reserve."""
    assert load.speech_s_per_s
    budget = Budget(Path(), Amounts(), cost_per_hour=config.cost_per_hour)
    budget.observe("any", 1, 1.0, slower * (load.train_s + DEV_COST * load.dev_s) / load.speech_s_per_s, outside_s)
    concurrency = min(load.concurrency, config.trials)
    return budget.need(stages, concurrency=concurrency, gpus=load.gpus_per_trial)


def to_confirm(config: ResolvedConfig, furthest: int) -> list[list[int]]:
    """Epochs of the trainings that confirm what a search has found, when its longest trial ran `furthest` epochs.

    Two stages: the best recipes and the best hand recipe, which may have been stopped at the first rung, to their end
    and on the other seeds; then the winner's variants.
    """
    whole, trials = config.max_epochs, config.trials
    begun = [furthest] * min(config.confirm, trials)
    if trials > config.confirm:
        begun.append(min(furthest, config.grace_epochs))
    to_the_end = [whole - epochs for epochs in begun if epochs < whole]
    return [to_the_end + [whole] * len(begun) * (config.seeds - 1),
            [whole] * MAX_VARIANTS if config.ablation and config.source != "none" else []]
