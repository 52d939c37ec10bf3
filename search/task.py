"""What the engine asks of a task: recipes, the data and the module of one, what they measure, what fits into a pass.

The rooms `tuning`, `trials`, `capacity` and `records` know no more of what is trained than this; `speech/` is a task.
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
    """A trial that cannot go on, on all its workers at the same step; its reason is a result of the study."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of each look at the development split."""

    name: str
    """In records, reports and W&B."""
    title: str = ""
    """In tables and lines for a person; one without is not shown there."""
    form: str = ".1%"
    """How it is written there."""

    def text(self, value: float) -> str:
        """The figure for a person."""
        return format(value, self.form)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a trial trains: a metric that counts the work so far, over the seconds that it took."""

    name: str
    """W&B has it below train/."""
    work: str
    """The metric."""
    scale: float = 1.0

    def of(self, values: Mapping[str, float]) -> float:
        """The speed after an epoch, of its figures."""
        return self.scale * values[self.work] / values["train_s"]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a task measures, and which of it a study minimises."""

    metrics: tuple[Metric, ...]
    """The first one is minimised, and has a title."""
    speed: Speed
    unit: str
    """Of the work of a batch, as "s of speech"."""

    @property
    def minimised(self) -> Metric:
        """What trials are compared by."""
        return self.metrics[0]

    @property
    def best(self) -> str:
        """Name of the lowest value so far of what is minimised."""
        return f"best_{self.minimised.name}"

    @property
    def shown(self) -> tuple[Metric, ...]:
        """Those that a person sees while trials run."""
        return tuple(metric for metric in self.metrics if metric.title)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The part of a trial that one process trains."""

    device: Device
    rank: int = 0
    num_workers: int = 1
    agree: Callable[[bool], bool] = bool
    """Whether any worker of the trial says so; all of them ask at the same step."""


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
        """Work of an epoch, over all workers, in the unit of the task."""
        raise NotImplementedError

    def steps_in_epoch(self, epoch: int) -> int:
        """Optimizer steps of an epoch."""
        raise NotImplementedError

    def work(self, batch: Any) -> float:
        """Work of a batch, in the unit of the task."""
        raise NotImplementedError

    def padded_work(self, batch: Any) -> float:
        """The same with what is only padding: what memory goes by."""
        return self.work(batch)


class TaskModule(pl.LightningModule):
    """A module that says what its last look at the development split gave. It keeps its own time."""

    first_step_at: float | None = None
    """Time of the first training step."""
    busy_s: float = 0.0
    """Seconds in training and validation, those before a resume included."""
    busy_before_s: float = 0.0
    """Of these, seconds of earlier processes."""

    @property
    def num_parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.parameters())

    def metrics(self) -> dict[str, float]:
        """Figures of the last look, by the names of the task's metrics."""
        raise NotImplementedError

    def outputs(self) -> list[str]:
        """What the last look gave for each example of the split; none before the first one."""
        return []

    def examples(self) -> list[list[str]]:
        """Some references and outputs of the last look, for W&B; none before the first one."""
        return []

    def kept_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the state of such a module the weights that are kept as a trial's result."""
        return dict(state)


class Task(Protocol):
    """What is searched; pickled to each trial's process."""

    @property
    def measures(self) -> Measures:
        """What its modules measure."""

    def sample(self, trial: BaseTrial) -> Recipe:
        """Draw a recipe by an Optuna trial; how is the same while a study lasts."""

    def hand_recipes(self) -> dict[str, dict[str, Any]]:
        """Parameters of the recipes to try first, by name; what they leave open is drawn."""

    def why_infeasible(self, recipe: Recipe) -> str | None:
        """Why a recipe cannot be trained, before it costs anything; None where it can."""

    def build(self, recipe: Recipe, seed: int, worker: Worker) -> tuple[TaskData, TaskModule]:
        """The data and the module of one worker."""

    def trainer_precision(self, device: Device) -> Literal["bf16-mixed", "32-true"]:
        """Lightning's name for the numbers that training multiplies."""

    def pass_limit(self, device: Device) -> float:
        """Work in one pass at most, padding included."""

    def probe_recipe(self, recipe: Recipe, step_work: float | None = None) -> Recipe:
        """The recipe as most trials train, moving nothing, with so much work in a step where it is given."""
