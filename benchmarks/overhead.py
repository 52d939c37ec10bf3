"""The overhead of a trial outside its training: compared with Ray's stock way, and in a study of thousands of trials.

    python benchmarks/overhead.py                       # a tiny real training, five ways: 10 minutes on two cores
    python benchmarks/overhead.py --trials 2000 --stub  # no training: what Optuna, SQLite, Cuarzo and Ray Tune take

All ways train the same network on the same clips with the same Lightning module, each way in its own process and Ray,
one trial at a time. W&B is off, because the stock ways have none.
"""

import argparse
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import ray
import stub_study
import torch
from processes import Observer, family, pss_bytes
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, RayTrainReportCallback, prepare_trainer
from ray.train.torch import TorchTrainer
from ray.tune.integration.pytorch_lightning import TuneReportCheckpointCallback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from corpora.languages import SPANISH
from corpora.synthetic import write_synthetic
from models.frontend import FrontendConfig
from models.quartznet import named_network
from search import cluster
from search.records.job import KEY, Job
from search.records.trial_record import TrialRecord
from search.speech.embedded_study import PRETRAINING
from search.speech.features import join_corpora, prepare_features
from search.speech.shards import ClipLimits
from search.speech.task import SpeechTask
from search.speech.vocabularies import prepare_vocabularies
from search.trials.context import Link, TrialContext
from search.trials.interrupt import Interrupt
from search.trials.run_trials import run_jobs

NUM_UTTERANCES = {"train": 24, "dev": 8, "test": 1}

EPOCHS_BEFORE_STOP = 3

PATIENCE_S = 60.0
"""How long the CPUs of a stopped trial are waited for."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to run a trial."""

    title: str
    is_ours: bool = False
    num_workers: int = 1
    has_group: bool = True
    """Whether Ray Train starts a group of workers, or Lightning runs in the trial's own process."""


WAYS = {
    "stock-group": Way(title="Ray's defaults: Tune function, TorchTrainer with one worker"),
    "stock-group-2": Way(title="the same with two workers", num_workers=2),
    "stock-tune": Way(title="Ray's defaults: Lightning inside a Tune function", has_group=False),
    "cuarzo": Way(title="Cuarzo, one worker", is_ours=True, has_group=False),
    "cuarzo-2": Way(title="Cuarzo, two workers", is_ours=True, num_workers=2),
}


# --- the stock trial ------------------------------------------------------------------------------------------------


def stock_trial(config: dict[str, Any], context: TrialContext, way: Way) -> None:
    """The Tune function of Ray's user guide."""
    arguments = {"job": Job.of(config), "context": context, "way": way, "fit_at": time.time()}
    if not way.has_group:
        stock_worker(arguments)
        return
    TorchTrainer(
        stock_worker, train_loop_config=arguments,
        scaling_config=ScalingConfig(num_workers=way.num_workers, resources_per_worker={"CPU": 0.99}),
        run_config=RunConfig(name=arguments["job"].id, storage_path=str(context.folder / "train"),
                             callbacks=[TuneReportCallback()])).fit()


def stock_worker(arguments: dict[str, Any]) -> None:
    """Our module and data under Lightning as Ray documents it."""
    job, context, way = arguments["job"], arguments["context"], arguments["way"]
    torch.set_num_threads(1)
    rank = int(ray.train.get_context().get_world_rank()) if way.has_group else 0
    link = Link()
    link.rank = rank
    data, module = context.task.build(job.recipe, job.seed, context.worker(link))
    report = RayTrainReportCallback() if way.has_group else TuneReportCheckpointCallback(on="train_epoch_end")
    stopwatch = [Stopwatch(context.folder / f"{job.id}.json", arguments["fit_at"])] if rank == 0 else []
    group = {"strategy": RayDDPStrategy(), "plugins": [RayLightningEnvironment()]} if way.has_group else {}
    trainer = pl.Trainer(
        max_epochs=job.recipe.training.epochs, accelerator="cpu", devices="auto" if way.has_group else 1,
        precision=context.task.trainer_precision(context.device), callbacks=[*stopwatch, report],
        accumulate_grad_batches=data.passes, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **group)
    if way.has_group:
        trainer = prepare_trainer(trainer)
    trainer.fit(module, data)


class Stopwatch(pl.Callback):
    """Writes when the first step came, and the seconds in training and validation."""

    def __init__(self, path: Path, fit_at: float) -> None:
        self._path, self._fit_at = path, fit_at

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """After each epoch."""
        self._path.write_text(json.dumps({"first_step_at": module.first_step_at, "train_s": module.busy_s,
                                          "to_first_step_s": module.first_step_at - self._fit_at}), encoding="utf-8")


# --- one way, in a process of its own -------------------------------------------------------------------------------


class Watch(FIFOScheduler):
    """Sees trials report and end; stops each after a few epochs where told to."""

    def __init__(self, stops: bool) -> None:
        super().__init__()
        self._stops = stops
        self.reports: list[tuple[float, dict[str, Any]]] = []
        self.stopped_at: list[float] = []
        self.ended_at: list[float] = []

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on, or stop."""
        self.reports.append((time.time(), result))
        if self._stops and result["training_iteration"] >= EPOCHS_BEFORE_STOP:
            self.stopped_at.append(time.time())
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Note the end of a trial that ends by itself."""
        self.ended_at.append(time.time())


def measure(way: Way, context: TrialContext, trials: int, seed: int) -> dict[str, float | None]:
    """Run trials to their end and look at their times; then stop two, and look at CPUs and memory."""
    connection = cluster.connected() if way.is_ours else ray.init(address="local", log_to_driver=False)
    with redirect_stdout(sys.stderr), connection:
        time.sleep(5)  # Ray's own processes have come to rest
        idle_bytes = sum(map(pss_bytes, family(os.getpid())))
        cpus = ray.cluster_resources()["CPU"]
        whole = replace(context, folder=context.folder / "whole")
        watch = sweep(way, whole, [job(f"{number:04d}", 2, seed) for number in range(trials)], stops=False)
        observer = Observer()
        observer.start()
        cut = replace(context, folder=context.folder / "cut")
        stops = sweep(way, cut, [job(f"{number:04d}", 1000, seed) for number in range(2)], stops=True)
        while not observer.freed_at(stops.stopped_at[-1], cpus) and time.time() - stops.stopped_at[-1] < PATIENCE_S:
            time.sleep(0.1)
        observer.end()
    times = [times_of(way, whole, f"{number:04d}") for number in range(trials)][1:]
    walls = [end - before for before, end in zip(watch.ended_at, watch.ended_at[1:], strict=False)]
    freed_at = observer.freed_at(stops.stopped_at[-1], cpus)
    return {"to_first_step_s": statistics.median(row["to_first_step_s"] for row in times),
            "outside_s": statistics.median(wall - row["train_s"] for wall, row in zip(walls, times, strict=True)),
            "train_s": statistics.median(row["train_s"] for row in times),
            "trial_gb": observer.trial_bytes / 1e9, "idle_gb": idle_bytes / 1e9,
            "free_after_stop_s": freed_at - stops.stopped_at[-1] if freed_at else None,
            "stop_to_next_step_s": next_step_at(way, cut, stops) - stops.stopped_at[0]}


def sweep(way: Way, context: TrialContext, jobs: list[Job], stops: bool) -> Watch:
    """The trials, one after the other."""
    watch = Watch(stops)
    context.folder.mkdir()
    if way.is_ours:
        run_jobs(context, concurrency=1, interrupt=Interrupt(), total=len(jobs), jobs=jobs, scheduler=watch)
        return watch
    function = tune.with_resources(partial(stock_trial, context=context, way=way),
                                   {"CPU": 0.01 if way.has_group else 1.0})
    tune.Tuner(function, param_space={KEY: tune.grid_search([job.parameters()[KEY] for job in jobs])},
               tune_config=tune.TuneConfig(scheduler=watch, max_concurrent_trials=1),
               run_config=tune.RunConfig(name="tune", storage_path=str(context.folder), verbose=0)).fit()
    return watch


def job(name: str, epochs: int, seed: int) -> Job:
    """A trial of the narrow network from random weights."""
    recipe = replace(PRETRAINING, training=replace(PRETRAINING.training, epochs=epochs))
    return Job(id=name, recipe=recipe, seed=seed)


def times_of(way: Way, context: TrialContext, name: str) -> dict[str, float]:
    """What a trial wrote down about its times."""
    if way.is_ours:
        return TrialRecord.load(context.folder / name).epochs[-1].flat()
    return dict(json.loads((context.folder / f"{name}.json").read_text(encoding="utf-8")))


def next_step_at(way: Way, context: TrialContext, stops: Watch) -> float:
    """When the trial after a stopped one came to its first step."""
    if not way.is_ours:
        return times_of(way, context, "0001")["first_step_at"]
    at, first = next((at, result) for at, result in stops.reports if result["trial"] == "0001")
    return at - first["train_s"] - first["outside_s"] + first["to_first_step_s"]


# --- all ways -------------------------------------------------------------------------------------------------------


def prepare(folder: Path, seed: int) -> TrialContext:
    """Features and letters of a tiny synthetic corpus, for all ways."""
    network = named_network(PRETRAINING.network)
    corpus = write_synthetic(folder / "corpus", "es", NUM_UTTERANCES, seed)
    limits = ClipLimits(language=SPANISH, min_duration_s=0.3, max_duration_s=20.0, frontend=FrontendConfig())
    with cluster.connected():
        store = prepare_features(join_corpora([str(corpus)]), limits, folder)
        vocabularies, _ = prepare_vocabularies(store, [PRETRAINING.vocabulary], SPANISH.alphabet, network.stride)
    return TrialContext(
        study="overhead", folder=folder, num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0,
        task=SpeechTask(store=store.folder, vocabularies=vocabularies, num_mels=network.num_mels, precision="float32"),
        timeout_s=math.inf, wandb="off")


def measure_all(names: Sequence[str], trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Each way in a process of its own."""
    environment = dict(os.environ)  # before Cuarzo sets Ray's variables: the stock ways go without
    with tempfile.TemporaryDirectory() as name:
        context = prepare(Path(name), seed)
        for way in names:
            print(f"{WAYS[way].title}: {trials} trials, and two that are stopped", file=sys.stderr, flush=True)
            mine = replace(context, folder=Path(name) / way, num_workers=WAYS[way].num_workers)
            mine.folder.mkdir()
            (mine.folder / "context.pickle").write_bytes(pickle.dumps(mine))
            command = [sys.executable, __file__, "--one", way, str(mine.folder), "--trials", str(trials),
                       "--seed", str(seed)]
            child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            row = {"way": way, "title": WAYS[way].title, **json.loads(child.stdout.splitlines()[-1])}
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


COLUMNS = {"to_first_step_s": "`fit` to first step, s", "outside_s": "outside training, s a trial",
           "stop_to_next_step_s": "stop to the next trial's first step, s",
           "free_after_stop_s": "stop to CPUs free, s", "trial_gb": "a running trial, GB", "idle_gb": "idle study, GB"}


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: a row for each way."""
    yield f"| way | {' | '.join(COLUMNS.values())} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for row in rows:
        values = ["never" if row[name] is None else f"{row[name]:.2f}" for name in COLUMNS]
        yield f"| {row['title']} | {' | '.join(values)} |"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="trials of each way (default: 5), or of the stub study (2000)")
    parser.add_argument("--stub", action="store_true", help="a study whose trials train nothing")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    parser.add_argument("--out", type=Path, help="keep the stub study in this folder")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    found = parser.parse_args(given)
    found.trials = found.trials or (2000 if found.stub else 5)
    least = 6 if found.stub else 2
    if found.trials < least:
        parser.error(f"--trials is {found.trials}; it must be at least {least}, as the first one is not counted.")
    return found


def main() -> None:
    """Measure, print."""
    given = arguments()
    if given.one:
        context = pickle.loads((Path(given.one[1]) / "context.pickle").read_bytes())
        print(json.dumps(measure(WAYS[given.one[0]], context, given.trials, given.seed)))
        return
    here = {"cpus": os.cpu_count(), "ray": ray.__version__, "optuna": optuna.__version__, "torch": torch.__version__}
    print(json.dumps(here))
    if given.stub:
        with tempfile.TemporaryDirectory() as name:
            figures = stub_study.run_stub_study(given.out or Path(name) / "study", given.trials, given.seed)
        print("\n".join(stub_study.table(figures)))
    else:
        figures = {"trials": given.trials, "rows": list(measure_all(given.ways, given.trials, given.seed))}
        print("\n".join(table(figures["rows"])))
    if given.json:
        given.json.write_text(json.dumps(here | figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
