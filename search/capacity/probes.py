"""Processes that train like trials, together and for seconds, to measure a trial's memory and the throughput."""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.environment import forget_launcher
from search.task import TaskData, TaskModule
from search.trials.context import Link, TrialContext
from search.trials.launchers import OwnPlace
from search.trials.train_worker import CUDA_CONTEXT_BYTES
from spaces.recipe import Recipe

GPU_PARTS = 8
"""Each probe requests this part of a GPU, so that as many share one."""

GROWTH = 1.5
"""The memory of a process that runs one trial after another grows beyond that after two short trainings: 2.8 to 3.1 GB
instead of 2.0 (15x5, six trials), 0.8 instead of 0.6 (5x5)."""

MAX_STEPS_TO_FULL = 4
"""Steps after which data that never fills a pass is given up on."""

WINDOW_S = 4.0
"""Shortest time that trials train together."""

TIME_LIMIT_S = 600.0
"""For each request to the probes. The first may wait for a node that the autoscaler adds."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A trial's peak memory."""

    node_bytes: float
    gpu_bytes: float = 0.0
    gpu_free_bytes: float = 0.0
    """Free memory of the GPU before the trial."""


class Probes:
    """Processes on one node that train like trials, one at first and more on request."""

    def __init__(self, context: TrialContext, recipe: Recipe, cpus: int) -> None:
        """`cpus` are the node's, which trials without a GPU share."""
        self._context, self._recipe, self._cpus = context, recipe, cpus
        self._probes: list[Any] = []
        self._is_gpu = context.device == "cuda"
        self._node = ""

    def footprint(self) -> Footprint:
        """Memory of one trial."""
        self._start(1)
        return self._ask("footprint")[0]  # type: ignore[no-any-return]

    def speed(self, num: int) -> float:
        """Work per second of `num` trials, in as many processes."""
        self._start(num)
        self._ask("build")
        threads = self._context.threads if self._is_gpu else max(1, self._cpus // num)
        return sum(self._ask("speed", threads), 0.0)

    def _start(self, num: int) -> None:
        """The first reserves all the node's cores, to keep other work away; fractions of a GPU go to the same one."""
        while len(self._probes) < num:
            cpus = 0 if self._node or self._is_gpu else self._cpus
            beside = NodeAffinitySchedulingStrategy(self._node, soft=False) if self._node else "DEFAULT"
            options = {"num_cpus": cpus, "num_gpus": 1 / GPU_PARTS if self._is_gpu else 0,
                       "scheduling_strategy": beside}
            self._probes.append(ray.remote(Probe).options(**options).remote(self._context, self._recipe))
            self._node = self._node or self._ask("node")[0]

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Ask all of them at once."""
        answers: list[Any] = ray.get([getattr(probe, method).remote(*arguments) for probe in self._probes],
                                     timeout=TIME_LIMIT_S)
        return answers

    def end(self) -> None:
        """Free their resources."""
        for probe in self._probes:
            ray.kill(probe)


class Probe:
    """One process that trains like a trial, and saves nothing."""

    def __init__(self, context: TrialContext, recipe: Recipe) -> None:
        forget_launcher()
        self._context, self._recipe = context, recipe
        self._built: tuple[TaskData, TaskModule] | None = None

    def node(self) -> str:
        """Where it runs."""
        return str(ray.get_runtime_context().get_node_id())

    def footprint(self) -> Footprint:
        """Train on a pass as large as any trial's, twice, because trials follow each other in a process."""
        torch.set_num_threads(self._context.threads)
        device = self._context.device
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else 0
        limit = self._context.task.pass_limit(device)
        for _ in range(2):
            data, module = self._build(limit)
            full = FullPass(data, min(limit, data.epoch_work))
            trainer = self._fit(data, module, callbacks=[full], max_steps=MAX_STEPS_TO_FULL)
            with TemporaryDirectory() as folder:
                trainer.save_checkpoint(Path(folder) / "last.ckpt")  # Lightning builds it in memory first
        on_gpu = torch.cuda.max_memory_reserved() + CUDA_CONTEXT_BYTES if device == "cuda" else 0.0
        return Footprint(node_bytes=GROWTH * _peak_bytes(), gpu_bytes=on_gpu, gpu_free_bytes=free)

    def build(self) -> None:
        """Get ready, so that all start together."""
        self._built = self._built or self._build()

    def _build(self, step_work: float | None = None) -> tuple[TaskData, TaskModule]:
        task = self._context.task
        return task.build(task.probe_recipe(self._recipe, step_work), 0, self._context.worker(Link()))

    def speed(self, threads: int) -> float:
        """Its work per second."""
        torch.set_num_threads(threads)
        assert self._built is not None
        pace = Pace(self._built[0])
        self._fit(*self._built, callbacks=[pace])
        return pace.work / pace.took_s

    def _fit(self, data: TaskData, module: TaskModule, **options: Any) -> pl.Trainer:
        """Train without validation, without a record and for as many epochs as it takes."""
        trainer = pl.Trainer(
            max_epochs=-1, plugins=[OwnPlace()],
            accelerator="gpu" if self._context.gpus_per_worker else "cpu", devices=1,
            precision=self._context.task.trainer_precision(self._context.device), accumulate_grad_batches=data.passes,
            gradient_clip_val=self._recipe.training.gradient_clip or None, limit_val_batches=0,
            reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options)
        trainer.fit(module, data)
        return trainer


class FullPass(pl.Callback):
    """Ends the training after a pass that was nearly as large as allowed."""

    def __init__(self, data: TaskData, limit: float) -> None:
        self._data, self._enough = data, 0.8 * limit

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        """Check the size of one pass, padding included."""
        trainer.should_stop = self._data.padded_work(batch) >= self._enough


class Pace(pl.Callback):
    """Counts the work of whole steps after the first one, and ends the training when the window is over."""

    def __init__(self, data: TaskData) -> None:
        self._data = data
        self.work = self.took_s = 0.0
        self._steps, self._since = 0, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        """Count one pass."""
        if self._steps:
            self.work += self._data.work(batch)
        if trainer.global_step == self._steps:
            return  # in the middle of a step of several passes
        self._steps, now = trainer.global_step, time.perf_counter()
        self._since = self._since or now
        self.took_s = now - self._since
        trainer.should_stop = self.took_s >= WINDOW_S


def _peak_bytes() -> float:
    """The peak private memory of this process. What it maps from files (features, libraries) is shared with the others.
    """
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    kib = {words[0]: int(words[1]) for words in lines if words[-1:] == ["kB"]}
    return 1024.0 * (kib["VmHWM:"] - kib["RssFile:"] - kib["RssShmem:"])
