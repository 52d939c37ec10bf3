"""The engine searches what is no speech: a line through points, by its trials, searcher and scheduler on real Ray."""

import json
import math
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import ray
import torch
from optuna.trial import BaseTrial, TrialState
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from search import cluster
from search.capacity.probes import Footprint, Probes
from search.records.trial_record import TrialRecord
from search.study import enqueue_baseline
from search.task import Device, Measures, Metric, Speed, TaskData, TaskModule, Worker
from search.trials.context import TrialContext
from search.trials.interrupt import Interrupt
from search.trials.run_trials import run_jobs
from search.tuning.asha import ResumableASHA
from search.tuning.optuna_study import open_study
from search.tuning.searcher import OptunaSearcher
from spaces.recipe import OptimizerRecipe, Recipe, TrainingRecipe

pytestmark = pytest.mark.timeout(180)

EPOCHS = 3


class Points(TaskData):
    """Points of the line y = 2 x + 1."""

    def __init__(self) -> None:
        super().__init__()
        x = torch.linspace(-1, 1, 32).unsqueeze(1)
        self.points = TensorDataset(x, 2 * x + 1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, batch_size=8)

    val_dataloader = train_dataloader

    @property
    def epoch_work(self) -> float:
        return float(len(self.points))

    def steps_in_epoch(self, epoch: int) -> int:
        return 4

    def work(self, batch: Any) -> float:
        return float(len(batch[0]))


class Line(TaskModule):
    """A line that is fitted."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.line, self.lr, self.errors = nn.Linear(1, 1), lr, list[Tensor]()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        self.first_step_at = self.first_step_at or time.time()
        return nn.functional.mse_loss(self.line(batch[0]), batch[1])

    def on_validation_epoch_start(self) -> None:
        self.errors = []

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.errors.append((self.line(batch[0]) - batch[1]) ** 2)

    def on_validation_epoch_end(self) -> None:
        self.busy_s += 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def metrics(self) -> dict[str, float]:
        return {"mse": float(torch.cat(self.errors).mean()), "points": 32.0 * (self.current_epoch + 1)}

    def outputs(self) -> list[str]:
        return [f"{self.line.weight.item():.3f} {self.line.bias.item():.3f}"]


class LineTask:
    """Which learning rate fits the line best."""

    measures = Measures(metrics=(Metric(name="mse", title="error", form=".4f"), Metric(name="points")),
                        speed=Speed(name="points_per_s", work="points"), unit="points")

    def sample(self, trial: BaseTrial) -> Recipe:
        return Recipe(optimizer=OptimizerRecipe(lr=trial.suggest_float("lr", 1e-3, 0.3, log=True)),
                      training=TrainingRecipe(epochs=EPOCHS))

    def hand_recipes(self) -> dict[str, dict[str, Any]]:
        return {f"lr {lr}": {"lr": lr} for lr in (0.2, 0.001, 0.1)}  # at a rung after one epoch the second is stopped

    def why_infeasible(self, recipe: Recipe) -> str | None:
        return "the line would leave the earth" if recipe.optimizer.lr > 0.25 else None

    def build(self, recipe: Recipe, seed: int, worker: Worker) -> tuple[TaskData, TaskModule]:
        return Points(), Line(recipe.optimizer.lr)

    def trainer_precision(self, device: Device) -> Literal["bf16-mixed", "32-true"]:
        return "32-true"

    def pass_limit(self, device: Device) -> float:
        return 8.0

    def probe_recipe(self, recipe: Recipe, step_work: float | None = None) -> Recipe:
        return replace(recipe, optimizer=replace(recipe.optimizer, lr=1e-12))


@pytest.fixture
def context(tmp_path: Path) -> TrialContext:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no path to the tests
    return TrialContext(study="s", folder=tmp_path / "trials", task=LineTask(), num_workers=1, cpus_per_worker=1.0,
                        gpus_per_worker=0.0, timeout_s=math.inf, wandb="off")


def test_engine_searches_another_task_by_its_own_metric(context: TrialContext, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    study, task = open_study(tmp_path / "study.db", seed=0), context.task
    enqueue_baseline(study, task, [], 3)
    searcher = OptunaSearcher(study, task.sample, metric="mse", seed=0, num_trials=3, folder=context.folder,
                                why_infeasible=task.why_infeasible, is_interrupted=lambda: False)
    scheduler = ResumableASHA(metric="mse", max_epochs=EPOCHS, grace_epochs=1, reduction_factor=2)
    with cluster.connected():
        run_jobs(context, concurrency=1, interrupt=Interrupt(), total=3, searcher=searcher, scheduler=scheduler)
        probes = Probes(context, Recipe(), cpus=1)
        try:
            footprint, speed = probes.footprint(), probes.speed(1)
        finally:
            probes.end()
    records = [TrialRecord.load(context.folder / f"{number:04d}") for number in range(3)]
    for record, trial in zip(records, study.trials, strict=True):
        assert trial.intermediate_values == {epoch.epoch: epoch["mse"] for epoch in record.epochs}
        assert record.metric == "mse" and record.num_parameters == 2
        assert record.epochs[-1]["best_mse"] == min(epoch["mse"] for epoch in record.epochs)
        kept = torch.load(record.best_weights, weights_only=True)
        assert record.dev_hypotheses() == [f"{kept['line.weight'].item():.3f} {kept['line.bias'].item():.3f}"]
    assert [trial.state for trial in study.trials][:2] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert study.best_trial.number == 0 and isinstance(footprint, Footprint) and speed > 0
    said = capsys.readouterr().out
    assert f"trial 0000  epoch 1/{EPOCHS}  error {records[0].epochs[0]['mse']:.4f}  | best error" in said
    assert "WER" not in said


def test_record_of_before_tasks_is_read_and_written_with_the_same_fields(tmp_path: Path) -> None:
    """A study of the version before goes on; its epochs have the names that reports and W&B know."""
    epoch = {"epoch": 1, "wer": 0.5, "cer": 0.2, "folded_wer": 0.4, "latest_wer": 0.6, "best_wer": 0.5, "loss": 1.0,
             "audio_h": 0.1, "train_s": 9.0, "outside_s": 1.0, "to_first_step_s": 0.1, "gpu_s": 0.0,
             "times_real_time": 30.0}
    before = {"recipe": asdict(Recipe()), "seed": 3, "left_out": 1, "workers": 1, "patience": None, "keep_last": 0,
              "num_parameters": 9, "precision": "32-true", "epochs": [epoch, epoch | {"epoch": 2, "wer": 0.7}]}
    file = tmp_path / "0000" / "record.json"
    file.parent.mkdir()
    file.write_text(json.dumps(before))
    record = TrialRecord.load(file.parent)
    assert record.best is record.epochs[0] and record.best["wer"] == 0.5 and record.seed == 3
    record.save()
    assert json.loads(file.read_text()) == before | {"metric": "wer"}
