"""A key is in no file, no log and no list of processes, whatever a study does with it."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from noise_study import RECIPE, make_context
from ray._private import worker
from wandb_server import sign_in, wandb_served

from search import cluster
from search.cluster import connected
from search.config import StudyConfig
from search.records.job import Job
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord
from search.results.run_summary import TrainingSummary
from search.results.wandb_study import log_training
from search.study import run_study
from search.trials import wandb_run
from search.trials.interrupt import Interrupt
from search.trials.run_trials import run_jobs

MARK = "5ec4e7" * 7
"""In every secret here."""

KEY = MARK[:40]


def test_ray_is_told_no_variable_of_wandb_but_that_it_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes what it is told into logs that everybody may read."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: told.append(options["runtime_env"]["env_vars"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in (None, "10.0.0.1:6379"):
        monkeypatch.setattr(cluster, "read_ray_address", lambda address=address: address)
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", os.environ | {"WANDB_API_KEY": KEY, "WANDB_HTTP_PROXY": f"http://a:{MARK}@b",
                                                       "WANDB_BASE_URL": f"https://a:{MARK}@b"})
            with connected():
                pass
    assert len(told) == 2 and MARK not in str(told)
    assert [{name for name in variables if name.startswith("WANDB_")} for variables in told] == [{"WANDB_SILENT"}] * 2


def test_workers_get_the_key_of_the_environment_or_of_wandb_login(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url, key=KEY)
        monkeypatch.setenv("WANDB_DIR", "/of/the/driver")
        found = wandb_run.variables("online")
        assert (found["WANDB_API_KEY"], found["WANDB_BASE_URL"], found.get("WANDB_DIR")) == (KEY, server.url, None)
        sign_in(monkeypatch, tmp_path, server.url, key=None)
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine {server.url.partition('//')[2]}\n  login user\n  password {KEY}\n")
        netrc.chmod(0o600)
        assert wandb_run.choose_mode("online") == "online"
        assert wandb_run.variables("online")["WANDB_API_KEY"] == KEY
        assert "WANDB_API_KEY" not in wandb_run.variables("offline")


# --- a real study ---------------------------------------------------------------------------------------------------


@contextmanager
def processes_watched() -> Iterator[list[str]]:
    """Yields the command lines with the mark that were seen during the block."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
            seen.extend(line for line in listed.splitlines() if MARK in line)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def files_with_the_mark(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and MARK.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_key_is_in_no_file_and_no_list_of_processes_after_an_online_study(
        shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one, with a workspace, a report and the study's own run."""
    config = StudyConfig(
        corpus=(str(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz"),), allow_overlap=True, wandb="online",
        source=str(shared_data / "reference" / "quartznet5x5_small_random.nemo"), trials=1, max_epochs=1, confirm=1,
        seeds=1, ablation=False, concurrency=1, out=str(tmp_path / "run"), cache=str(tmp_path / "cache"))
    with wandb_served() as server, processes_watched() as seen:
        sign_in(monkeypatch, tmp_path / "home", server.url, key=KEY)
        monkeypatch.setenv("MDC_API_KEY", MARK)
        with connected():
            session = Path(worker._global_node.get_session_dir_path())
            result = run_study(config)
        assert {asked["name"].rpartition("-")[2] for asked in server.asked("UpsertBucket")} >= {"0000", "study"}
    assert (result.path / "report.html").exists() and list((tmp_path / "cache").rglob("*"))
    assert list(session.rglob("runtime_env*.log")), "Ray has written its logs"
    assert files_with_the_mark(session, tmp_path) == []
    assert seen == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_key_is_in_no_file_and_no_list_of_processes_after_trials_of_a_worker_group(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_served() as server, processes_watched() as seen:
        sign_in(monkeypatch, tmp_path / "home", server.url, key=KEY)
        monkeypatch.setenv("MDC_API_KEY", MARK)
        run = RunFolder(tmp_path / "run", StudyConfig(corpus=("es.tar.gz",), source="none").resolved())
        run.best.mkdir(parents=True)
        (run.best / "model.nemo").write_bytes(b"weights")
        assert wandb_run.choose_mode("online") == "online"
        with connected():
            session = Path(worker._global_node.get_session_dir_path())
            context = replace(make_context(run.path, 2), wandb="online",
                              wandb_variables=ray.put(wandb_run.variables("online")))
            run_jobs(context, concurrency=1, interrupt=Interrupt(), total=1,
                     jobs=[Job(id="0000", recipe=RECIPE, seed=0)])
            log_training(run, "online", TrainingSummary(
                training="t", exported="0000", recipe=RECIPE.flat(), epochs=1, dev={}))
        assert TrialRecord.load(context.folder / "0000").is_complete
        assert {asked["name"] for asked in server.asked("UpsertBucket")} >= {"s-0000"}, "it was no online study"
    assert list(session.rglob("runtime_env*.log")), "Ray has written its logs"
    assert files_with_the_mark(session, tmp_path) == []
    assert seen == []
