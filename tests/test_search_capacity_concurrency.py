"""How many trials share a node or a GPU: by made-up measurements, and once by real ones."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RaySystemError

from search.capacity import concurrency as concurrency_module
from search.capacity.concurrency import ComputeUnit, grow, known_speed, measure_alone, pack
from search.capacity.probes import Footprint
from search.config import StudyConfig
from search.records.run_folder import RunFolder
from search.speech.task import SpeechTask
from search.trials.train_worker import TrialContext
from spaces.recipe import Recipe, TransferRecipe

ROOT = Path(__file__).resolve().parents[1]
GB = 1e9

SETTING = TrialContext(
    study="s", folder=Path("trials"), task=SpeechTask(store=Path("store"), vocabularies=Path("vocabularies")),
    num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, timeout_s=60.0, wandb="off")
ON_GPU = replace(SETTING, gpus_per_worker=1.0)


class MadeUp:
    """Probes that hold and train as told; None: they fail."""

    def __init__(self, footprint: Footprint | None, speeds: Sequence[float | None] = ()) -> None:
        self._footprint, self._speeds = footprint, list(speeds)
        self.tried: list[int] = []
        self.has_ended = False

    def __call__(self, *_: Any) -> "MadeUp":
        return self

    def footprint(self) -> Footprint:
        if self._footprint is None:
            raise RaySystemError("the worker is gone\nand so on")
        return self._footprint

    def speed(self, num: int) -> float:
        self.tried.append(num)
        value = self._speeds.pop(0)
        if value is None:
            raise RaySystemError("out of memory")
        return value

    def end(self) -> None:
        self.has_ended = True


def cluster_of(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])


def packed(monkeypatch: pytest.MonkeyPatch, folder: Path, probes: MadeUp, context: TrialContext = SETTING,
           **options: Any) -> tuple[TrialContext, int]:
    """What `pack` makes of a study with a corpus; as in a study, flags are in its context already."""
    monkeypatch.setattr(concurrency_module, "Probes", probes)
    config = StudyConfig(**({"corpus": "es.tar.gz", "source": "none", "trials": 100} | options))
    shape = {name: getattr(config, name) for name in ("cpus_per_worker", "gpus_per_worker")}
    given = {name: value for name, value in shape.items() if value is not None}
    return pack(RunFolder(folder, config), replace(context, **given), Recipe())


# --- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("speeds", "fits", "num", "tried", "stop"), [
    ((44, 61, 80, 95), 99, 8, [1, 2, 4, 8], ""),
    ((44, 61, 63), 99, 2, [1, 2, 4], ""),  # 3 % more is noise, and nothing past it is tried
    ((44, 40), 99, 1, [1, 2], ""),
    ((44, 61, 80), 3, 3, [1, 2, 3], "; no more fit into memory"),  # three are tried in the place of four
    ((44,), 1, 1, [1], "; no more fit into memory"),
    ((44, 61, None), 99, 2, [1, 2, 4], "; 4 at a time failed (RaySystemError: System error: out of memory)"),
])
def test_trials_are_added_while_together_they_train_on_more(speeds: tuple[float | None, ...], fits: int, num: int,
                                                            tried: list[int], stop: str) -> None:
    probes = MadeUp(None, speeds)
    best, measured, why = grow([1, 2, 4, 8], fits, probes.speed)
    assert (best, probes.tried, why) == (num, tried, stop)
    assert list(measured.values()) == [speed for speed in speeds if speed is not None]


@pytest.mark.parametrize(("cpus", "numbers", "threads"), [
    (1, [1], [1]), (2, [1, 2], [2, 1]), (6, [1, 2, 6], [6, 3, 1]), (7, [1, 2, 7], [7, 3, 1]),
    (32, [1, 2, 4, 8, 16, 32], [32, 16, 8, 4, 2, 1]),
])
def test_cores_are_divided_into_whole_threads(cpus: int, numbers: list[int], threads: list[int]) -> None:
    place = ComputeUnit(is_gpu=False, cpus=cpus, memory_bytes=GB)
    assert place.levels(SETTING) == numbers
    shapes = [place.packing(num, SETTING, "") for num in numbers]
    assert [replace(SETTING, cpus_per_worker=shape.cpus_per_worker).threads for shape in shapes] == threads


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7, 48])
def test_parts_of_a_place_fit_into_it(monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    cluster_of(monkeypatch, {"CPU": 2.0, "GPU": 1.0})
    for is_gpu in (False, True):
        shape = ComputeUnit(is_gpu=is_gpu, cpus=2, memory_bytes=GB).packing(num, SETTING, "")
        assert concurrency_module.cluster.capacity(1, shape.cpus_per_worker, shape.gpus_per_worker) == num


def test_place_is_the_kind_of_node_with_most_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    head, worker = {"CPU": 16.0, "memory": 64 * GB}, {"CPU": 8.0, "GPU": 2.0, "memory": 32 * GB}
    cluster_of(monkeypatch, head, worker, worker, worker)
    assert ComputeUnit.find(is_gpu=False) == ComputeUnit(is_gpu=False, cpus=8, memory_bytes=0.8 * 32 * GB, count=4)
    assert ComputeUnit.find(is_gpu=True) == ComputeUnit(is_gpu=True, cpus=4, memory_bytes=0.8 * 16 * GB, count=6)


def test_probe_trains_the_whole_network_and_never_runs_away() -> None:
    hand = Recipe(transfer=TransferRecipe(decoder="letters", batchnorm="keep", frozen_epochs=3))
    probe = SETTING.task.probe_recipe(hand, 480.0)
    assert (probe.transfer.batchnorm, probe.transfer.frozen_epochs, probe.training.audio_s_per_step) == (
        "adapt", 0, 480.0)
    assert probe.optimizer.lr < 1e-9 and probe.optimizer.name == hand.optimizer.name


# --- what a study does with it --------------------------------------------------------------------------------------


def test_study_says_what_it_chose_and_why_and_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(monkeypatch, {"CPU": 2.0, "memory": 20 * GB, "object_store_memory": 5 * GB})
    probes = MadeUp(Footprint(node_bytes=0.7 * GB), (44, 61))
    context, concurrency = packed(monkeypatch, tmp_path, probes)
    assert (context.cpus_per_worker, context.gpus_per_worker, concurrency) == (1.0, 0.0, 2)
    assert capsys.readouterr().out == (
        "packing: 2 trials at a time, each with 1 CPU: 2 on a node train on 61 s of speech a second, 1 with 2 CPUs on "
        "44 s; a trial takes 0.7 of 20 GB\n")
    kept = json.loads((tmp_path / "packing.json").read_text())
    assert kept["speech_s_per_s"] == {"1": 44, "2": 61} and probes.has_ended

    slower = packed(monkeypatch, tmp_path, MadeUp(Footprint(node_bytes=0.7 * GB), (60, 61)))
    assert (slower[0].threads, slower[1]) == (2, 1), "no trial was begun, so a later study measures again"
    assert "1 trial at a time, with 2 CPUs: 1 on a node trains on 60 s of speech a second, 2 with 1 CPU on 61 s" in (
        capsys.readouterr().out)


def test_speed_of_one_trial_beside_the_others_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster_of(monkeypatch, {"CPU": 2.0, "memory": 20 * GB, "object_store_memory": 5 * GB})
    assert known_speed(tmp_path) is None
    packed(monkeypatch, tmp_path, MadeUp(Footprint(node_bytes=0.7 * GB), (44, 61)))
    assert known_speed(tmp_path) == 61 / 2
    packed(monkeypatch, tmp_path, MadeUp(Footprint(node_bytes=0.7 * GB), (60, 61)))
    assert known_speed(tmp_path) == 60, "one at a time was chosen"
    packed(monkeypatch, tmp_path, MadeUp(None), concurrency=2)
    assert known_speed(tmp_path) is None, "nothing was measured"


def test_one_trial_is_timed_alone_with_its_own_threads(monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    probes = MadeUp(None, (44, None))
    monkeypatch.setattr(concurrency_module, "Probes", lambda *given: asked.append(given) or probes)
    group = replace(SETTING, num_workers=2, cpus_per_worker=4.0)
    assert measure_alone(group, Recipe()) == 88, "each worker trains on its own share"
    assert asked == [(group, Recipe(), 4)] and probes.tried == [1] and probes.has_ended
    assert measure_alone(SETTING, Recipe()) is None
    assert capsys.readouterr().out == (
        "warning: training could not be timed (RaySystemError: System error: out of memory)\n")


def test_resumed_study_takes_the_stored_shape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(monkeypatch, {"CPU": 4.0, "memory": 10 * GB})
    assert packed(monkeypatch, tmp_path, MadeUp(Footprint(node_bytes=GB), (44, 61, 62)))[0].threads == 2
    (tmp_path / "study.db").touch()
    cluster_of(monkeypatch, {"CPU": 8.0, "memory": 4 * GB}, {"CPU": 1.0})
    nothing = MadeUp(None)
    context, concurrency = packed(monkeypatch, tmp_path, nothing)
    assert (context.threads, concurrency) == (2, 3), "the number follows the cluster and its memory, not the threads"
    assert capsys.readouterr().out.splitlines()[-1].endswith("(kept from the study's start)")
    assert packed(monkeypatch, tmp_path, nothing, concurrency=1)[1] == 1
    assert packed(monkeypatch, tmp_path, nothing, cpus_per_worker=4.0)[0].threads == 4, "flags win"


@pytest.mark.parametrize(("options", "cpus", "number"), [
    ({"concurrency": 1}, 8.0, 1),
    ({"concurrency": 3}, 2.0, 3),
    ({"concurrency": 16}, 0.5, 16),
    ({"concurrency": 3, "cpus_per_worker": 1.0}, 1.0, 3),
    ({"trials": 1}, 8.0, 1),
    ({"corpus": (), "source": None}, 1.0, 8),  # the embedded default
    ({"workers_per_trial": 2}, 1.0, 4),
    ({"cpus_per_worker": 8.0}, 8.0, 1),
])
def test_nothing_is_measured_where_the_person_leaves_no_choice(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], cpus: float, number: int) -> None:
    cluster_of(monkeypatch, {"CPU": 8.0, "memory": 20 * GB})
    probes = MadeUp(None)
    wanted = replace(SETTING, num_workers=options.get("workers_per_trial", 1))
    context, concurrency = packed(monkeypatch, tmp_path, probes, wanted, **options)
    assert (context.cpus_per_worker, concurrency) == (cpus, number) and not probes.has_ended


def test_memory_bounds_the_number_of_a_given_shape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(monkeypatch, {"CPU": 4.0, "memory": 10 * GB})
    probes = MadeUp(Footprint(node_bytes=1.5 * GB))
    context, concurrency = packed(monkeypatch, tmp_path, probes, cpus_per_worker=0.5)
    assert (context.cpus_per_worker, concurrency, probes.tried) == (0.5, 5, [])
    assert "5 trials at a time, each with 0.5 CPU: no more fit, as a trial takes 1.5 of 8 GB" in capsys.readouterr().out
    assert packed(monkeypatch, tmp_path, MadeUp(Footprint(node_bytes=0.5 * GB)), cpus_per_worker=0.5)[1] == 8
    assert "as given; a trial takes 0.5 of 8 GB" in capsys.readouterr().out


def test_trials_share_gpus_by_their_speed_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(monkeypatch, {"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0, "memory": 100 * GB})
    footprint = Footprint(node_bytes=2 * GB, gpu_bytes=5 * GB, gpu_free_bytes=24 * GB)
    context, concurrency = packed(monkeypatch, tmp_path, MadeUp(footprint, (500, 800, 880)), ON_GPU)
    assert (context.cpus_per_worker, context.gpus_per_worker, concurrency) == (1.0, 0.3333, 6)
    assert capsys.readouterr().out == (
        "packing: 6 trials at a time, each with 0.3333 of a GPU and 1 CPU: 3 on a GPU train on 880 s of speech a "
        "second, 1 on 500 s, 2 on 800 s; no more fit into memory; a trial takes 5.0 of the GPU's 24 GB and 2.0 of 40 "
        "GB\n")

    given = packed(monkeypatch, tmp_path, MadeUp(footprint), ON_GPU, gpus_per_worker=0.125)
    assert (given[0].gpus_per_worker, given[1]) == (0.3333, 6), "Ray would put eight on one GPU"
    asked = packed(monkeypatch, tmp_path, MadeUp(None), ON_GPU, concurrency=8)
    assert (asked[0].gpus_per_worker, asked[1]) == (0.25, 8)


def test_probe_that_fails_costs_a_line_and_not_the_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(monkeypatch, {"CPU": 2.0})
    for probes in (MadeUp(None), MadeUp(Footprint(node_bytes=GB), [None])):
        context, concurrency = packed(monkeypatch, tmp_path, probes)
        assert (context.cpus_per_worker, concurrency, probes.has_ended) == (1.0, 2, True)
        warning, line = capsys.readouterr().out.splitlines()
        assert warning.startswith("warning: packing could not be measured (RaySystemError: ")
        assert line == "packing: 2 trials at a time, each with 1 CPU: as by default"


# --- the real thing -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is not shared")
def test_study_measures_real_trials_and_runs_what_it_chose(shared_data: Path, tmp_path: Path) -> None:
    flags = ["--trials", "2", "--max-epochs", "12", "--grace-epochs", "12", "--confirm", "1", "--seeds", "1",
             "--no-ablation", "--wandb", "off", "--concurrency", "auto", "--allow-overlap"]
    study = subprocess.run(
        [sys.executable, "search/run.py", "--corpus", str(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz"),
         "--source", str(shared_data / "reference" / "quartznet5x5_small_random.nemo"), "--cache", str(tmp_path),
         "--out", str(tmp_path / "study"), *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert study.returncode == 0, study.stderr[-2000:]
    [line] = [line for line in study.stdout.splitlines() if line.startswith("packing: ")]
    assert re.search(r" trains? on \d+ s of speech a second, .* on \d+ s; a trial takes \d\.\d of \d+ GB$", line)

    kept = json.loads((tmp_path / "study" / "packing.json").read_text())
    alone, together = kept["speech_s_per_s"]["1"], kept["speech_s_per_s"]["2"]
    assert 0.1 * GB < kept["trial_bytes"] < 3 * GB
    assert line.startswith("packing: 2 trials" if together >= 1.05 * alone else "packing: 1 trial")
    epochs = re.findall(r"^trial (\d+)  epoch", study.stdout, re.MULTILINE)
    assert sorted(epochs) == ["0000"] * 12 + ["0001"] * 12
    assert (epochs != sorted(epochs)) == line.startswith("packing: 2 trials"), "both train at the same time"
    assert json.loads((tmp_path / "study" / "summary.json").read_text())["packing"] == kept
