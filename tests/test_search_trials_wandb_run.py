import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import wandb
from broken_server import served, status
from noise_study import RECIPE, make_context
from told_study import write_trial
from wandb_server import KEY, offline_runs, read, records, sign_in, wandb_served

from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.speech.task import MEASURES, SpeechTask
from search.trials.context import Link, TrialContext, TrialStopped
from search.trials.train_worker import train
from search.trials.wandb_private import services
from search.trials.wandb_run import choose_mode, end_service, first_sentence, run_id, trial_summary
from spaces.recipe import nested


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing reaches W&B's real servers, and no person's key is read."""
    sign_in(monkeypatch, tmp_path, key=None)
    yield
    end_service()


class Ended(Link):
    """Ends a trial after its first epoch."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def report(self, metrics: dict[str, Any]) -> None:
        raise self._error


def run_trial(context: TrialContext, link: Link | None = None, name: str = "0000") -> TrialRecord:
    job = Job(id=name, recipe=RECIPE, seed=7, hand_recipe="by hand")
    train(job, context, link or Link(), time.time())
    return TrialRecord.load(context.folder / name)


# --- a trial's run --------------------------------------------------------------------------------------------------


def test_resumed_trial_goes_on_in_its_own_run_which_has_what_a_sweep_needs(tmp_path: Path) -> None:
    context = replace(make_context(tmp_path), wandb="offline", rungs=(1, 2, 6))
    with pytest.raises(TrialStopped):
        run_trial(context, Ended(TrialStopped(0)))
    record = run_trial(context)
    first, second = (json.loads(read(path, "--summary")) for path in offline_runs(tmp_path, "0000"))
    assert first["run_id"] == second["run_id"] == "s-0000"
    assert (first["summary"]["state"], first["summary"]["epochs"], first["summary"]["rung"]) == ("stopped", 1, 1)
    assert (second["summary"]["state"], second["summary"]["epochs"], second["summary"]["rung"]) == ("complete", 2, 2)
    assert record.best and second["summary"]["best_wer"] == pytest.approx(record.best["wer"])
    assert second["summary"]["best_cer"] == pytest.approx(record.best["cer"])
    assert second["summary"]["seconds"] > first["summary"]["seconds"] > 0 == second["summary"]["gpu_seconds"]
    assert second["summary"]["examples"]["nrows"] == 4
    rest = {"seed": 7, "study": "s", "hand_recipe": "by hand", "rung": 2}
    assert second["config"] == nested(RECIPE.flat()) | rest
    assert second["tags"] == ["adamw", "characters", "rung-2"]


def test_dev_figures_are_drawn_over_epochs_and_tables_stay_in_the_run_folder(tmp_path: Path) -> None:
    *_, epoch = run_trial(replace(make_context(tmp_path), wandb="offline")).epochs
    [path] = offline_runs(tmp_path, "0000")
    steps = {metric["name"]: metric.get("step_metric") for metric in records(path, "metric") if "name" in metric}
    assert all(steps[f"dev/{name}"] == "dev/epoch" for name in epoch.flat() if name != "epoch")
    run, *_ = records(path, "run")
    assert (run["run_group"], run["job_type"]) == ("s", "trial")
    linked = [link for link in (tmp_path / "wandb").rglob("*") if link.is_symlink()]
    assert linked and all(link.resolve().is_relative_to(tmp_path / "wandb") for link in linked)  # the folder may move
    [table] = [artifact for artifact in records(path, "artifact") if artifact["type"] == "run_table"]
    assert all(Path(file["local_path"]).is_relative_to(tmp_path) for file in table["manifest"]["contents"])


def test_sync_sends_a_resumed_trial_as_one_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = replace(make_context(tmp_path), wandb="offline")
    with pytest.raises(TrialStopped):
        run_trial(context, Ended(TrialStopped(0)))
    run_trial(context)
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes"], cwd=tmp_path, check=True, timeout=60)
    assert [asked["name"] for asked in server.asked("RunResumeStatus")] == ["s-0000"] * 2
    assert {asked["name"] for asked in server.asked("UpsertBucket")} == {"s-0000"}
    states = [summary["state"] for summary in server.summaries() if "state" in summary]
    assert [state for state, _ in groupby(states)] == ["stopped", "complete"]  # W&B may send one twice


def test_failed_trial_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no good"):
        run_trial(replace(make_context(tmp_path), wandb="offline"), Ended(ValueError("no good")))
    shown = json.loads(read(*offline_runs(tmp_path, "0000"), "--summary"))
    assert (shown["summary"]["state"], shown["exit_code"]) == ("failed", 1)


def test_trial_that_cannot_begin_to_train_leaves_no_run_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpeechTask, "trainer_precision", lambda *_: "no such numbers")
    with pytest.raises(ValueError, match="no such numbers"):
        run_trial(replace(make_context(tmp_path), wandb="offline"))
    assert wandb.run is None  # else the next trial of this process would write into it
    shown = json.loads(read(*offline_runs(tmp_path, "0000"), "--summary"))
    assert (shown["summary"]["state"], shown["exit_code"]) == ("failed", 1)


def test_online_trial_is_told_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = replace(make_context(tmp_path), wandb="online")
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        run_trial(context)
        last = server.asked("UpsertBucket")[-1]
    assert server.asked("RunResumeStatus")[0]["name"] == last["name"] == "s-0000"
    assert last["tags"] == ["adamw", "characters", "rung-0"]
    assert json.loads(last["config"])["optimizer"]["value"]["name"] == "adamw"
    assert "/files/me/cuarzo/s-0000/file_stream" in server.paths and not offline_runs(tmp_path, "0000")


def test_trials_that_no_server_takes_go_on_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    context = replace(make_context(tmp_path), wandb="online")
    with served() as server:
        server.always = status(401, b'{"errors":[{"message":"who are you"}]}', Content_Type="application/json")
        sign_in(monkeypatch, tmp_path, server.url)
        for name in ("0000", "0001"):
            assert run_trial(context, name=name).is_complete
            [path] = offline_runs(tmp_path, name)
            assert json.loads(read(path, "--summary"))["summary"]["state"] == "complete"
        end_service()
    told = [line.getMessage() for line in caplog.records if line.name == "search.trials.wandb_run"]
    assert len(told) == 2 and "trial 0001: no online W&B run" in told[1] and "who are you" in told[1]


def test_trial_goes_on_where_wandb_breaks_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("W&B's process is gone")

    finish = wandb.Run.finish

    def finish_and_break(run: wandb.Run, **_: Any) -> None:
        finish(run)
        broken()

    context = replace(make_context(tmp_path), wandb="offline")
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run, "log", broken)
        assert run_trial(context).is_complete
        patch.setattr(wandb.Run, "finish", finish_and_break)
        assert run_trial(context, name="0001").is_complete
        patch.setattr(wandb, "init", broken)
        assert run_trial(context, name="0002").is_complete
    assert run_trial(context, name="0003").is_complete and len(offline_runs(tmp_path, "0003")) == 1
    told = [line.getMessage() for line in caplog.records if line.name == "search.trials.wandb_run"]
    assert [line.partition(":")[0] for line in told] == [
        "W&B run s-0000 lacks figures", "W&B run s-0001 lacks figures", "trial 0001", "trial 0002"]


def test_off_writes_nothing(tmp_path: Path) -> None:
    assert run_trial(make_context(tmp_path)).is_complete
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(("error", "epochs", "state"), [
    (None, 4, "complete"), (SystemExit(0), 4, "complete"), (SystemExit(0), 2, "stopped"),
    (KeyboardInterrupt(), 1, "stopped"), (RuntimeError(), 1, "failed"), (RuntimeError(), 0, "failed")])
def test_summary_of_a_trial(error: BaseException | None, epochs: int, state: str, tmp_path: Path) -> None:
    record = write_trial(tmp_path, "0000", 0.2, num_epochs=epochs)
    found = trial_summary(record, (1, 3), MEASURES["wer"], error)
    assert (found["state"], found["epochs"], found["rung"]) == (state, epochs, {0: 0, 1: 1, 2: 1, 4: 2}[epochs])
    assert math.isclose(found["seconds"], epochs) and ("best_wer" in found) == (epochs > 0)


def test_names_are_those_that_wandb_takes() -> None:
    assert run_id("my study?50%", "0000") == "my_study_50_-0000"
    assert nested({"network": "n", "a.b": 1, "a.c": 2}) == {"network": "n", "a": {"b": 1, "c": 2}}


# --- whether W&B's servers can be used ------------------------------------------------------------------------------


def test_offline_and_off_ask_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wandb, "login")
    assert [choose_mode(mode) for mode in ("offline", "off")] == ["offline", "off"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("key", "said"), [
    (None, "W&B stays offline: no key in WANDB_API_KEY or .netrc"), ("short", "API key must have 40+ characters"),
    (KEY, "who are you")])
def test_without_a_key_that_counts_the_study_stays_offline(
        key: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    with served() as server:
        server.always = status(401, b'{"errors":[{"message":"who are you"}]}', Content_Type="application/json")
        sign_in(monkeypatch, tmp_path, server.url, key)
        assert choose_mode("online") == "offline"
        end_service()
    line = capsys.readouterr().out
    assert said in line and "Nothing is lost" in line and line.count("\n") == 1


def test_without_a_network_the_study_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    sign_in(monkeypatch, tmp_path)
    assert choose_mode("online") == "offline"
    line = capsys.readouterr().out
    assert "http://127.0.0.1:9: no answer" in line and line.count("\n") == 1


def test_key_that_the_server_takes_is_told_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        assert choose_mode("online") == "online"
    assert capsys.readouterr().out == ""


def test_service_of_others_that_is_gone_is_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What used W&B leaves the address of its process in the environment of what it starts."""
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        monkeypatch.setenv("WANDB_SERVICE", gone := f"3-1-unix-{tmp_path / 'socket'}")
        assert choose_mode("online") == "online"
        end_service()
        monkeypatch.setenv("WANDB_SERVICE", gone)
        run_trial(replace(make_context(tmp_path), wandb="offline"))
    assert len(offline_runs(tmp_path, "0000")) == 1


def test_service_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """W&B waits for its process without an end; here it is stopped, as by a network that does not answer."""
    run = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    [service] = services()
    run.finish()
    os.kill(service, signal.SIGSTOP)
    began = time.monotonic()
    end_service(patience_s=0.5)
    assert time.monotonic() - began < 20 and not Path(f"/proc/{service}").exists()
    wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True)).finish()


@pytest.mark.parametrize("url", ["https://me:pass@host/api", "http://pass@proxy:3128"])
def test_password_in_an_address_is_not_repeated(url: str) -> None:
    assert "pass" not in first_sentence(OSError(f"no answer from {url}")) and "://…@" in first_sentence(OSError(url))
