"""Record learning curves of recipes trained to the end, which fidelity.py and search.py read.

    python benchmarks/record.py benchmarks/curves/embedded.json.gz              # the embedded default; half an hour
    python benchmarks/record.py real.json.gz --space spanish --recipes 12 --max-epochs 9 \
        --corpus CORPUS --source quartznet15x5_en.nemo

Trains the hand recipes of a space and recipes drawn from it at random, and the first few on other seeds too. After each
epoch it notes the word error rate of the latest weights and of the averaged ones, and the character error rate of the
latter; at each rung also the word error rate of a branch: a copy of the trial whose learning rate falls to zero within
a fifth of the steps so far, and which is then forgotten.
An interrupted recording resumes where it stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import ray
import torch
from curves import Recording, save_recording
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from files.atomic import write_aside
from models.finetuning import FineTuning
from search import cluster
from search.config import StudyConfig
from search.records.job import Job
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord, first_line, read_failure, write_failure
from search.speech import embedded_study
from search.speech.study_inputs import Prepared, open_inputs, prepare
from search.speech.task import SpeechTask
from search.trials.context import Link, TrialContext
from search.trials.train_worker import train
from spaces.recipe import Recipe

ANNEAL_SHARE = 0.2
"""Steps of a branch, as a share of the trial's steps so far."""

NUM_SEEDS = 3
"""Trainings of each recipe that is repeated."""


class Annealing(FineTuning):
    """A trial's continuation in which the learning rate falls from where it is to zero."""

    start = 0
    steps = 1

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimizer; the factor that its schedule has reached, falling linearly."""
        configured: Any = super().configure_optimizers()
        scheduler = configured["lr_scheduler"]["scheduler"]
        [known] = set(scheduler.lr_lambdas)
        reached = known(self.start)
        scheduler.lr_lambdas = [lambda step: reached * max(0.0, 1 - (step - self.start) / self.steps)
                                if step >= self.start else known(step)] * len(scheduler.base_lrs)
        return configured  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Branch:
    """What an annealed branch gave, and what it took."""

    annealed: float
    branch_s: float
    """Seconds of its training."""
    look_s: float
    """Seconds of one look at the development split with one set of weights."""


def branch(record: TrialRecord, context: TrialContext) -> Branch:
    """Anneal a copy of a trial from its last checkpoint; the trial's own random numbers stay as they were."""
    with torch.random.fork_rng():
        data, module = SpeechTask.of(context).build(record.recipe, record.seed, context.worker(Link()))
        annealing = Annealing(record.recipe, module.acoustic, module.vocabulary, module.workload, module.dev_texts,
                              record.seed)
        checkpoint = torch.load(record.last_checkpoint, weights_only=True)
        annealing.start = checkpoint["global_step"]
        annealing.steps = max(1, round(ANNEAL_SHARE * annealing.start))
        trainer = pl.Trainer(
            max_steps=annealing.start + annealing.steps, max_epochs=-1, limit_val_batches=0, logger=False,
            accelerator="gpu" if context.gpus_per_worker else "cpu", devices=1,
            precision=context.task.trainer_precision(context.device),
            accumulate_grad_batches=data.passes, default_root_dir=str(record.folder),
            gradient_clip_val=record.recipe.training.gradient_clip or None, reload_dataloaders_every_n_epochs=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        began_at = time.perf_counter()
        trainer.fit(annealing, data, ckpt_path=str(record.last_checkpoint), weights_only=True)
        trained_at = time.perf_counter()
        looking = pl.Trainer(logger=False, accelerator=trainer.accelerator, devices=1, enable_progress_bar=False,
                             precision=context.task.trainer_precision(context.device), enable_checkpointing=False)
        looking.validate(annealing, data, verbose=False)
        assert annealing.latest_validation is not None
        return Branch(annealing.latest_validation.errors.wer, trained_at - began_at,
                      (time.perf_counter() - trained_at) / 2)


class Branching(Link):
    """Branches off at each rung, and stores the result next to the trial's record."""

    def __init__(self, folder: Path, context: TrialContext, rungs: Sequence[int]) -> None:
        self._folder, self._context, self._rungs = folder, context, rungs

    def report(self, metrics: dict[str, Any]) -> None:
        """Called after each epoch, with its checkpoint in place."""
        path = self._folder / f"branch-{metrics['epoch']}.json"
        if metrics["is_new"] and metrics["epoch"] in self._rungs:
            found = branch(TrialRecord.load(self._folder), self._context)
            write_aside(path, json.dumps(vars(found)).encode())


@ray.remote(num_cpus=1)
def train_one(job: Job, context: TrialContext, rungs: Sequence[int]) -> str:
    """Train a recipe to its end, or until it fails; returns its name."""
    folder = context.folder / job.id
    try:
        train(job, context, Branching(folder, context, rungs), time.time())
    except Exception as error:
        write_failure(folder, first_line(error))
    return job.id


def draw(prepared: Prepared, config: StudyConfig, num_recipes: int) -> list[tuple[dict[str, Any], Recipe]]:
    """The hand recipes, then others at random, that can be trained on this corpus: parameters and Recipe."""
    task = prepared.context.task
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=config.seed))
    for parameters in task.hand_recipes().values():
        study.enqueue_trial(parameters)
    refused = task.why_infeasible
    drawn: list[tuple[dict[str, Any], Recipe]] = []
    while len(drawn) < num_recipes:
        trial = study.ask()
        recipe = task.sample(trial)
        if not refused(recipe):
            drawn.append((trial.params, recipe))
    return drawn


def curve(folder: Path, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    """One training, for the file."""
    record = TrialRecord.load(folder)
    epochs = []
    for epoch in record.epochs:
        path = folder / f"branch-{epoch.epoch}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"annealed": None}
        epochs.append({"raw": epoch["latest_wer"], "averaged": epoch["wer"], "cer": epoch["cer"],
                       "train_s": epoch.train_s} | found)
    reason = read_failure(folder)
    return {"params": parameters, "seed": seed, "epochs": epochs} | ({"reason": reason} if reason else {})


def record_curves(run: RunFolder, num_recipes: int, num_repeated: int) -> Recording:
    """Train all of them, as many at a time as there are cores or GPUs."""
    config = run.config
    prepared = prepare(run, open_inputs(config) or embedded_study.make_inputs(config))
    context = replace(prepared.context, wandb="off")
    drawn = draw(prepared, config, num_recipes)
    curves = Recording(
        corpus=[Path(path).name for path in config.corpus] or ["embedded default"], space=config.space,
        has_source=bool(SpeechTask.of(context).sources), max_epochs=config.max_epochs,
        grace_epochs=config.grace_epochs, reduction_factor=config.reduction_factor, trials=[])
    seeds = [(i, config.seed) for i in range(num_recipes)]
    seeds += [(i, config.seed + more) for i in range(num_repeated) for more in range(1, NUM_SEEDS)]
    jobs = {f"{i:04d}-seed{seed}": (i, seed) for i, seed in seeds}
    source = train_one.options(num_cpus=context.cpus_per_worker, num_gpus=context.gpus_per_worker)
    waiting = [source.remote(Job(id=name, recipe=drawn[i][1], seed=seed), context, curves.rungs)
               for name, (i, seed) in jobs.items()]
    began_at, done = time.time(), 0
    while waiting:
        [ready], waiting = ray.wait(waiting)
        done += 1
        left_s = (time.time() - began_at) / done * len(waiting)
        print(f"{ray.get(ready)} is recorded, {done}/{len(jobs)}, about {left_s / 60:.0f} min left", flush=True)
    trials = [curve(context.folder / name, drawn[i][0], seed) for name, (i, seed) in jobs.items()]
    return replace(curves, trials=trials)


def main() -> int:
    """Record, and write the file aside first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the curves: JSON, compressed where the name ends in .gz")
    parser.add_argument("--recipes", type=int, default=60, help="hand recipes included (default: %(default)s)")
    parser.add_argument("--repeated", type=int, default=6, help="recipes that are trained on three seeds")
    parser.add_argument("--max-epochs", type=int, default=27)
    parser.add_argument("--grace-epochs", type=int, default=1)
    parser.add_argument("--corpus", nargs="+", default=[])
    parser.add_argument("--source")
    parser.add_argument("--language", default="es")
    parser.add_argument("--space")
    parser.add_argument("--cache")
    parser.add_argument("--cpus-per-worker", type=float, default=1.0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    known = {f.name for f in fields(StudyConfig)}
    values = {name: value for name, value in vars(given).items() if name in known}
    folder = given.file.with_name(given.file.name + ".trials").resolve()
    config = StudyConfig(**values | {"corpus": tuple(given.corpus), "out": str(folder), "wandb": "off",
                                     "allow_overlap": True})  # test is never read
    run = RunFolder.open(config, resume=False)
    run.trials.mkdir(parents=True, exist_ok=True)
    with cluster.connected():
        save_recording(record_curves(run, given.recipes, given.repeated), given.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
