"""What the engine needs from a task: recipes, their data and modules, their metrics, and the largest pass.

The packages `tuning`, `trials`, `capacity` and `records` know nothing else about what is trained; `speech/` is a task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
from optuna.trial import BaseTrial
from torch import Tensor

from spaces.recipe import Recipe

Device = Literal["cpu", "cuda"]


class TrialFailed(RuntimeError):
    """A trial that cannot continue, raised on all its workers at the same step; its reason is a result of the study."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of each validation on the development split."""

    name: str
    """Its name in records, reports and W&B."""
    title: str = ""
    """Its title in tables and printed lines; without one it is not shown there."""
    form: str = ".1%"
    """Its format there."""

    def text(self, value: float) -> str:
        """The formatted figure."""
        return format(value, self.form)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a trial trains: a metric of cumulative work, over the seconds it took."""

    name: str
    """Its name in W&B, below train/."""
    work: str
    """The metric."""
    scale: float = 1.0

    def of(self, values: Mapping[str, float]) -> float:
        """The speed after an epoch, from its figures."""
        return self.scale * values[self.work] / values["train_s"]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a task measures, and which metric a study minimises."""

    metrics: tuple[Metric, ...]
    """The first one is minimised, and has a title. Epochs and recipes are chosen by
    `trial_record.SCORE` where it is among them."""
    speed: Speed
    unit: str
    """The unit of a batch's work, such as "s of speech"."""
    ranking: str = ""
    """The metric that rungs and proposals go by; by default the one that is minimised."""

    @property
    def minimised(self) -> Metric:
        """The metric that trials are compared by."""
        return self.metrics[0]

    @property
    def ranked(self) -> str:
        """Name of the metric that rungs and proposals go by."""
        return self.ranking or self.minimised.name

    @property
    def best(self) -> str:
        """Name of the minimised metric's value at the best epoch so far."""
        return f"best_{self.minimised.name}"

    @property
    def shown(self) -> tuple[Metric, ...]:
        """The metrics shown while trials run."""
        return tuple(metric for metric in self.metrics if metric.title)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The part of a trial that one process trains."""

    device: Device
    rank: int = 0
    num_workers: int = 1
    agree: Callable[[bool], bool] = bool
    """Whether it is true on any worker of the trial; all of them ask at the same step."""


class TaskData(pl.LightningDataModule):
    """Data of one worker, which draws its own share of each step."""

    @property
    def passes(self) -> int:
        """Backward passes in an optimizer step."""
        return 1

    @property
    def num_left_out(self) -> int:
        """Training examples that this recipe cannot use."""
        return 0

    @property
    def epoch_work(self) -> float:
        """Work in an epoch, over all workers, in the task's unit."""
        raise NotImplementedError

    def steps_in_epoch(self, epoch: int) -> int:
        """Optimizer steps of an epoch."""
        raise NotImplementedError

    def work(self, batch: Any) -> float:
        """Work in a batch, in the task's unit."""
        raise NotImplementedError

    def padded_work(self, batch: Any) -> float:
        """The same with padding included, which determines memory."""
        return self.work(batch)


class TaskModule(pl.LightningModule):
    """A module that reports its last validation and measures its own time."""

    first_step_at: float | None = None
    """Time of the first training step."""
    busy_s: float = 0.0
    """Seconds spent in training and validation, including those before a resume."""
    busy_before_s: float = 0.0
    """The part of `busy_s` that earlier processes spent."""

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.parameters())

    def metrics(self) -> dict[str, float]:
        """Figures of the last validation, by the names of the task's metrics."""
        raise NotImplementedError

    def outputs(self) -> list[str]:
        """Outputs of the last validation for each example of the split; none before the first."""
        return []

    def examples(self) -> list[list[str]]:
        """Some references and outputs of the last validation, for W&B; none before the first."""
        return []

    def kept_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights in a module's state that are kept as a trial's result."""
        return dict(state)


class Task(Protocol):
    """The task of a search; pickled to each trial's process."""

    @property
    def measures(self) -> Measures:
        """The metrics of its modules."""

    def sample(self, trial: BaseTrial) -> Recipe:
        """Draw a recipe with an Optuna trial, in the same way throughout a study."""

    def hand_recipes(self) -> dict[str, dict[str, Any]]:
        """Parameters of the recipes to try first, by name; missing ones are drawn."""

    def why_infeasible(self, recipe: Recipe) -> str | None:
        """Why a recipe cannot be trained, known before it costs anything; None if it can."""

    def build(self, recipe: Recipe, seed: int, worker: Worker) -> tuple[TaskData, TaskModule]:
        """The data and the module of one worker."""

    def trainer_precision(self, device: Device) -> Literal["bf16-mixed", "32-true"]:
        """Lightning's name for the training precision."""

    def pass_limit(self, device: Device) -> float:
        """Most work in one pass, padding included."""

    def probe_recipe(self, recipe: Recipe, step_work: float | None = None) -> Recipe:
        """A typical recipe that leaves the weights unchanged, with this much work per step if given."""
