"""Find how many one-worker trials share a node's cores or a GPU, by training real steps before the search."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ray.exceptions import RayError

from search import cluster
from search.capacity.probes import GPU_PARTS, Footprint, Probes
from search.config import ResolvedConfig, StudyConfig
from search.records.files import damage_named, read_json, write_json
from search.records.measured import read
from search.records.run_folder import RunFolder, has_begun
from search.records.trial_record import first_line
from search.trials.context import TrialContext
from search.wording import counted
from spaces.recipe import Recipe

RISE = 1.05
"""More trials at once must raise the total throughput by this factor. Less is noise, and with fewer at once, later
proposals learn more from earlier trials."""

GPU_NUMBERS = (1, 2, 4, GPU_PARTS)
"""Numbers of trials on one GPU that are tried."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The shape of a study's trials, as in its `packing.json`."""

    cpus_per_worker: float
    gpus_per_worker: float
    why: str
    num: int = 0
    """Trials at once on a node or a GPU; 0 if not measured."""
    trial_bytes: float = 0.0
    """Peak memory of a trial on its node; 0 if not measured."""
    speech_s_per_s: dict[str, float] = field(default_factory=dict)
    """Seconds of speech trained on per second, by the number of trials at once on a node or a GPU."""
    took_s: float = 0.0
    """Seconds that it took to find."""

    def line(self, concurrency: int) -> str:
        """What was chosen and why, in words."""
        gpu = f"{self.gpus_per_worker:g} of a GPU and " if self.gpus_per_worker else ""
        return (f"packing: {counted(concurrency, 'trial')} at a time{',' if concurrency == 1 else ', each'} with {gpu}"
                f"{counted(self.cpus_per_worker, 'CPU')}: {self.why}")


def pack(run: RunFolder, context: TrialContext, recipe: Recipe) -> tuple[TrialContext, int]:
    """Determine the trials' shape and how many run at once; a study that has started keeps its shape.

    The embedded default and trials of several workers keep the shape in `context`. Probes train `recipe`.

    Raises:
        ClusterError: not even one trial fits.
    """
    config = run.config
    if not config.corpora or context.num_workers > 1:
        return context, _concurrency(config, context)
    known = kept(run.path) if has_begun(run.path) else None
    packing = known or choose(config, context, recipe)
    gpus, wanted = packing.gpus_per_worker, config.gpus_per_worker
    # A GPU share that was raised, because no more trials fit in its memory, stays raised.
    context = replace(context, cpus_per_worker=config.cpus_per_worker or packing.cpus_per_worker,
                      gpus_per_worker=gpus if wanted is None or 0 < wanted < gpus else wanted)
    concurrency = _concurrency(config, context, packing.trial_bytes)
    print(packing.line(concurrency) + (" (kept from the study's start)" if known else ""), flush=True)
    if not known:
        write_json(run.path / "packing.json", asdict(packing))
    return context, concurrency


def kept(run: Path) -> Packing | None:
    """What a run's `packing.json` says; None if there is none."""
    path = run / "packing.json"
    if not path.exists():
        return None
    with damage_named(path):
        return read(Packing, read_json(path))


def known_speed(run: Path) -> float | None:
    """Seconds of speech per second that one trial of a run trains on next to the others; None if not measured."""
    packing = kept(run)
    return packing.speech_s_per_s[str(packing.num)] / packing.num if packing and packing.num else None


def _concurrency(config: StudyConfig, context: TrialContext, trial_bytes: float = 0.0) -> int:
    most = cluster.capacity(context.num_workers, context.cpus_per_worker, context.gpus_per_worker, trial_bytes)
    return most if config.concurrency == "auto" else min(most, int(config.concurrency))


# --- choose ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ComputeUnit:
    """What trials share: the cores of a node, or one GPU and its part of its node."""

    is_gpu: bool
    cpus: int
    memory_bytes: float
    """Memory for trials."""
    count: int = 1
    """How many such units the cluster has at its largest size."""

    @classmethod
    def find(cls, is_gpu: bool) -> "ComputeUnit":
        """The kind of node with most of the cluster's CPUs or GPUs; of equals the smaller, whose trials also fit on the
        other."""
        unit = "GPU" if is_gpu else "CPU"
        nodes = [node for node in cluster.nodes() if node.get(unit, 0) >= 1]
        in_all: Counter[tuple[float, float]] = Counter()
        for node in nodes:
            in_all[node.get("CPU", 0), node.get("GPU", 0)] += int(node[unit])
        cpus, gpus = max(in_all, key=lambda kind: (in_all[kind], -kind[0]))
        memory = min(cluster.usable_bytes(node) for node in nodes if node.get("CPU", 0) == cpus)
        parts = int(gpus) if is_gpu else 1
        return cls(is_gpu=is_gpu, cpus=int(cpus) // parts, memory_bytes=memory / parts,
                   count=sum(int(node["GPU"]) for node in nodes) if is_gpu else len(nodes))

    def packing(self, num: int, context: TrialContext, why: str) -> Packing:
        """The shape of `num` trials; whole CPUs for each if there are enough, because threads are whole."""
        if self.is_gpu:
            return Packing(cpus_per_worker=min(context.cpus_per_worker, _part(max(1, self.cpus), num)),
                           gpus_per_worker=_part(1, num), why=why)
        return Packing(cpus_per_worker=float(self.cpus // num) or _part(self.cpus, num), gpus_per_worker=0.0, why=why)

    def fits(self, footprint: Footprint) -> int:
        """Number of trials that fit in memory; one is always tried."""
        usable = cluster.USABLE_MEMORY * footprint.gpu_free_bytes
        by_gpu = usable / footprint.gpu_bytes if footprint.gpu_bytes else math.inf
        return max(1, int(min(self.memory_bytes / footprint.node_bytes, by_gpu, 1e6)))

    def holds(self, context: TrialContext) -> int:
        """Number of trials of the context's shape, ignoring memory."""
        by_cpus = int(self.cpus / context.cpus_per_worker + 1e-6)
        return max(1, min(by_cpus, int(1 / context.gpus_per_worker + 1e-6)) if self.is_gpu else by_cpus)

    def levels(self, context: TrialContext) -> list[int]:
        """Numbers of trials worth trying, increasing; cores are divided by halving the threads."""
        if self.is_gpu:
            return [1, *(num for num in GPU_NUMBERS[1:] if num * context.cpus_per_worker <= self.cpus)]
        return [self.cpus // (self.cpus >> halved) for halved in range(self.cpus.bit_length())]


def choose(config: ResolvedConfig, context: TrialContext, recipe: Recipe) -> Packing:
    """Find the shape that the configuration leaves open; given shares are kept, and memory limits the number.

    Raises:
        ClusterError: not even one trial of the given shape fits.
    """
    cluster.capacity(1, context.cpus_per_worker, context.gpus_per_worker)
    place = ComputeUnit.find(is_gpu=context.gpus_per_worker > 0)
    is_given = (config.gpus_per_worker if place.is_gpu else config.cpus_per_worker) is not None
    own = Packing(cpus_per_worker=context.cpus_per_worker, gpus_per_worker=context.gpus_per_worker, why="as given")
    if config.concurrency != "auto":
        num = math.ceil(int(config.concurrency) / place.count)
        why = f"as asked for, with the {'GPUs' if place.is_gpu else 'cores'} divided among them"
        return own if is_given else place.packing(num, context, why)
    most = math.ceil(config.trials / place.count)
    numbers = [min(place.holds(context), most)] if is_given else [n for n in place.levels(context) if n <= most]
    if numbers == [1]:
        why = "there are no more to run" if most == 1 else "there is no CPU for another"
        return own if is_given else place.packing(1, context, why)
    return _measured(own, context, recipe, place, numbers, is_given)


def _measured(own: Packing, context: TrialContext, recipe: Recipe, place: ComputeUnit, numbers: Sequence[int],
              is_given: bool) -> Packing:
    """What probes find; if they fail, the context's shape, with a warning."""
    started_at, probes = time.perf_counter(), Probes(context, recipe, place.cpus)
    try:
        footprint = probes.footprint()
        fits, takes = place.fits(footprint), _memory_text(footprint, place)
        if is_given:
            found = replace(own, why=f"as given; {takes}")
            if fits < numbers[0]:
                # Only a trial's share keeps others off a GPU.
                gpus = max(own.gpus_per_worker, _part(1, fits)) if place.is_gpu else 0.0
                found = replace(found, gpus_per_worker=gpus, why=f"no more fit, as {takes}")
        else:
            num, speeds, stop = grow(numbers, fits, probes.speed)
            why = f"{_speeds_text(num, speeds, place, context.task.measures.unit)}{stop}; {takes}"
            found = replace(place.packing(num, context, why), num=num,
                            speech_s_per_s={str(n): round(speed, 1) for n, speed in speeds.items()})
    except RayError as error:
        print(f"warning: packing could not be measured ({first_line(error)}); trials keep their default shape",
              flush=True)
        return replace(own, why="as by default")
    finally:
        probes.end()
    return replace(found, trial_bytes=footprint.node_bytes, took_s=round(time.perf_counter() - started_at, 1))


def measure_alone(context: TrialContext, recipe: Recipe) -> float | None:
    """Seconds of speech per second that one trial of this shape trains on alone; None if that fails."""
    probes = Probes(context, recipe, context.threads)
    try:
        return context.num_workers * probes.speed(1)
    except RayError as error:
        print(f"warning: training could not be timed ({first_line(error)})", flush=True)
        return None
    finally:
        probes.end()


def grow(numbers: Sequence[int], fits: int, speed: Callable[[int], float]) -> tuple[int, dict[int, float], str]:
    """Try more and more trials at once while their total throughput rises.

    Returns the number to use, the seconds of speech per second of each number tried, and what stopped the growth, if
    not the throughput.

    Raises:
        RayError: not even the first number could be measured.
    """
    best, speeds = 0, dict[int, float]()
    for number in numbers:
        num = min(number, fits)
        if num == best:
            break
        try:
            speeds[num] = speed(num)
        except RayError as error:
            if not best:
                raise
            return best, speeds, f"; {num} at a time failed ({first_line(error)})"
        if best and speeds[num] < RISE * speeds[best]:
            return best, speeds, ""
        best = num
    return best, speeds, "" if best == numbers[-1] else "; no more fit into memory"


def _speeds_text(num: int, speeds: dict[int, float], place: ComputeUnit, work: str) -> str:
    """As in: 2 on a node train on 61 s of speech a second, 1 with 2 CPUs on 44 s."""
    where, unit = ("GPU", "") if place.is_gpu else ("node", "CPU")
    short = work.partition(" ")[0]
    others = "".join(f", {n}{f' with {counted(place.cpus // n, unit)}' if unit else ''} on {speed:.0f} {short}"
                     for n, speed in speeds.items() if n != num)
    return f"{num} on a {where} train{'' if num > 1 else 's'} on {speeds[num]:.0f} {work} a second{others}"


def _memory_text(footprint: Footprint, place: ComputeUnit) -> str:
    """As in: a trial takes 0.7 of 23 GB."""
    gpu = f"{footprint.gpu_bytes / 1e9:.1f} of the GPU's {footprint.gpu_free_bytes / 1e9:.0f} GB and "
    of = f" of {place.memory_bytes / 1e9:.0f}" if math.isfinite(place.memory_bytes) else ""
    return f"a trial takes {gpu if footprint.gpu_bytes else ''}{footprint.node_bytes / 1e9:.1f}{of} GB"


def _part(whole: float, num: int) -> float:
    """Ray counts in ten-thousandths and rounds; `num` parts must not exceed the whole."""
    return math.floor(1e4 * whole / num) / 1e4


def gpus_per_worker(config: StudyConfig) -> float:
    """As configured, or as the cluster suggests."""
    if config.gpus_per_worker is not None:
        return config.gpus_per_worker
    return 1.0 if cluster.resources()["GPU"] >= 1 else 0.0
