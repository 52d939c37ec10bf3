"""A study's own run on W&B, and its best model as an artifact of the trial that made it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_server import served, status
from wandb_server import offline_runs, read, records, sign_in, wandb_served

from search.config import StudyConfig
from search.records.measured import DevRates
from search.records.run_folder import RunFolder
from search.results.run_summary import StudySummary, TrainingSummary
from search.results.wandb_study import log_study, log_training
from search.trials.wandb_run import end_service


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing reaches W&B's real servers, and no person's key is read."""
    sign_in(monkeypatch, tmp_path, key=None)
    yield
    end_service()


SUMMARY = StudySummary(study="s", exported="0003-seed1", recipe={"optimizer.lr": 0.1}, winner="0003",
                       dev=DevRates(wer=0.25, cer=0.125), trials={"complete": 1, "failed": 1})
ROWS: list[dict[str, Any]] = [{"id": "0000", "state": "complete"}, {"id": "0001", "reason": "nan"}]


def ended_study(folder: Path) -> RunFolder:
    run = RunFolder(folder / "my study", StudyConfig(corpus=("es.tar.gz",), source="none").resolved())
    run.best.mkdir(parents=True)
    (run.best / "model.nemo").write_bytes(b"weights")
    (run.best / "recipe.yaml").write_text("network: source\n")
    return run


def test_best_model_is_an_artifact_of_the_trial_that_made_it(tmp_path: Path) -> None:
    run = ended_study(tmp_path)
    log_study(run, "offline", SUMMARY, ROWS)
    [path] = offline_runs(run.path, "0003-seed1")
    [artifact] = records(path, "artifact")
    assert (artifact["name"], artifact["type"], artifact["run_id"]) == ("my_study-best", "model", "my_study-0003-seed1")
    assert sorted(artifact["aliases"]) == ["best", "latest"]
    assert json.loads(artifact["metadata"])["recipe"] == {"optimizer": {"lr": 0.1}}
    files = {file["path"]: Path(file["local_path"]) for file in artifact["manifest"]["contents"]}
    assert files == {name: run.best / name for name in ("model.nemo", "recipe.yaml")}  # no copies
    shown = json.loads(read(*offline_runs(run.path, "study"), "--summary"))
    assert (shown["name"], shown["summary"]["trials"]["nrows"]) == ("my study", 2)
    assert shown["summary"]["dev"]["wer"] == 0.25 and shown["config"]["corpus"] == ["es.tar.gz"]


def test_online_study_uses_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_served() as server:
        sign_in(monkeypatch, tmp_path, server.url)
        log_study(ended_study(tmp_path), "online", SUMMARY, ROWS)
    made, _ = (asked["input"] for asked in server.asked("CreateArtifact"))  # the other is the table
    assert made["artifactTypeName"] == "model"
    assert (made["runName"], made["artifactCollectionName"]) == ("my_study-0003-seed1", "my_study-best")
    assert sorted(alias["alias"] for alias in made["aliases"]) == ["best", "latest"]
    trial = [asked for asked in server.asked("UpsertBucket") if asked["name"] == made["runName"]]
    assert trial and all(asked["tags"] is None for asked in trial)  # the trial's own stay
    [used] = server.asked("UseArtifact")
    assert (used["artifactID"], used["runName"]) == ("a", "my_study-study")


def test_study_whose_server_is_gone_is_recorded_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    run = ended_study(tmp_path)
    with served() as server:
        server.always = status(401)
        sign_in(monkeypatch, tmp_path, server.url)
        log_training(run, "online", TrainingSummary(training="t", exported="0003-seed1", epochs=1,
                                                    recipe={"optimizer.lr": 0.1}, dev=DevRates(wer=0.25, cer=0.125)))
        end_service()
    assert len(offline_runs(run.path, "0003-seed1")) == 1
    out = capsys.readouterr().out
    assert out.startswith("W&B could not record this online: ") and out.count("\n") == 1
