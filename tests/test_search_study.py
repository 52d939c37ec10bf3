"""The main job on real clips: a whole study, one that is stopped and one that is killed, and what they leave behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import soundfile
import yaml
from optuna.trial import TrialState

from corpora.audio import decode
from corpora.corpus import open_corpus
from corpora.languages import language
from corpora.text import normalise
from models.metrics import char_error_rate
from models.recognizer import Recognizer
from search.records.trial_record import TrialRecord
from spaces.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT_S = 400

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features are made once for all studies of this file."""
    return tmp_path_factory.mktemp("cache")


def command(shared: Path, cache: Path, out: Path, *flags: str) -> list[str]:
    """A study of seconds: real Common Voice clips, of which "tres" is in train and in test, and a 5x5 with random
    weights as the source."""
    return [sys.executable, "search/run.py", "--corpus", str(shared / "cv-corpus-6.1-2020-12-11-es.tar.gz"),
            "--source", str(shared / "reference" / "quartznet5x5_small_random.nemo"), "--cache", str(cache),
            "--out", str(out), "--grace-epochs", "1", "--concurrency", "2", "--allow-overlap", *flags]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S)


def trials_of(run_folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run_folder / 'study.db'}")
    return [t for t in study.trials if t.state != TrialState.WAITING]


def check_whole(run_folder: Path, num_trials: int) -> None:
    """Every requested trial once, none open, and no epoch missing or twice."""
    trials = trials_of(run_folder)
    counted = [t for t in trials if "infeasible" not in t.user_attrs]
    assert len(counted) == num_trials
    assert all(t.state.is_finished() for t in trials)
    for trial in counted:
        record, told = TrialRecord.load(run_folder / "trials" / f"{trial.number:04d}"), trial.intermediate_values
        epochs = [epoch.epoch for epoch in record.epochs]
        assert epochs == list(range(1, len(epochs) + 1))
        # A hand recipe that was stopped may have been trained to its end to be confirmed.
        has_gone_on = "hand_recipe" in trial.user_attrs and record.is_complete and len(told) < len(epochs)
        assert sorted(told) == (epochs[: len(told)] if has_gone_on else epochs)
        assert [epoch["rank"] for epoch in record.epochs][: len(told)] == list(told.values())
        assert (trial.state == TrialState.COMPLETE) == (record.is_complete and not has_gone_on)


@pytest.fixture(scope="module")
def finished(shared_data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("runs") / "study"
    # float32: what such a young network hears turns on the last digits.
    result = run(command(shared_data, cache, out, "--trials", "5", "--max-epochs", "3", "--confirm", "2",
                         "--precision", "float32"))
    assert result.returncode == 0, result.stderr[-2000:]
    assert "what transfer gained" in result.stdout and "test, read once" in result.stdout
    yield out


@pytest.mark.slow
def test_study_ends_with_every_trial_told_and_recorded(finished: Path) -> None:
    check_whole(finished, num_trials=5)
    hand = [t.user_attrs.get("hand_recipe") for t in trials_of(finished)]
    assert hand == ["statistics_kept", "letters_kept", "nemo_tutorial", "frozen_first", None]
    summary = json.loads((finished / "summary.json").read_text())
    assert len(summary["dev"]["wer_by_seed"]) == 2
    assert summary["dev"]["wer_low"] <= summary["dev"]["wer"] <= summary["dev"]["wer_high"]
    assert summary["seconds"]["fit_to_first_step_median"] > 0
    assert summary["dev"]["utterances"] == 21
    assert (summary["dev"]["wer_corrected"] is None) == bool(summary["dev"]["why_not_corrected"])
    assert summary["winner_is_hand_recipe"] or summary["compared"]["hand_recipe"]["hand_recipe"] in hand


@pytest.mark.slow
def test_rays_own_files_hold_no_weights(finished: Path, shared_data: Path) -> None:
    num_bytes = sum(file.stat().st_size for file in (finished / "trials" / ".ray").rglob("*") if file.is_file())
    assert 0 < num_bytes < (shared_data / "quartznet15x5_en.nemo").stat().st_size / 10


@pytest.mark.slow
def test_winner_is_compared_with_other_transfer_at_equal_budget_and_seed(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    variants = {variant["variant"]: variant for variant in summary["transfer"]}
    assert list(variants) == ["from scratch", "encoder only", "letters kept"]
    assert [variant["is_winner"] for variant in variants.values()].count(True) == 1
    winner = TrialRecord.load(finished / "trials" / summary["winner"])
    for variant in variants.values():
        record = TrialRecord.load(finished / "trials" / variant["trial"])
        assert (len(record.epochs), record.seed) == (3, winner.seed) and variant["wer"] == record.best["wer"]
        assert variant["is_winner"] or variant["difference"] == pytest.approx(winner.best["wer"] - record.best["wer"])
    scratch = TrialRecord.load(finished / "trials" / variants["from scratch"]["trial"]).recipe
    assert (scratch.transfer.use_source, scratch.optimizer) == (False, winner.recipe.optimizer)


@pytest.mark.slow
def test_second_look_at_test_is_recorded_and_counted(finished: Path, tmp_path: Path) -> None:
    before = json.loads((finished / "test.json").read_text())["looks"]
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    resumed = run([sys.executable, "search/run.py", "--resume", str(copy)])
    assert resumed.returncode == 0 and "test, read once" in resumed.stdout, resumed.stderr[-2000:]
    assert json.loads((copy / "test.json").read_text())["looks"] == before and len(before) == 1
    again = run([sys.executable, "search/run.py", "--resume", str(copy), "--look-again"])
    assert again.returncode == 0 and "test was read 2 times" in again.stdout, again.stderr[-2000:]
    looks = json.loads((copy / "test.json").read_text())["looks"]
    assert looks[0] == before[0] and looks[1]["winner"] == before[0]["winner"]
    assert json.loads((copy / "summary.json").read_text())["test"]["times_read"] == 2


@pytest.mark.slow
def test_best_recipe_and_model_can_be_taken_away(finished: Path, shared_data: Path) -> None:
    recipe = Recipe.load(finished / "best" / "recipe.yaml")
    assert recipe.study["corpus"] == [str((shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz").resolve())]
    clip = next((shared_data / "es-real" / "audio").rglob("*.opus"))
    [heard] = Recognizer.load(finished / "best" / "model.nemo").transcribe([clip])
    printed = run([sys.executable, "search/transcribe.py", str(finished / "best" / "model.nemo"), str(clip)])
    assert (printed.returncode, printed.stdout) == (0, heard + "\n")
    assert "test, read once" in (finished / "best" / "card.txt").read_text()
    assert {"model.onnx", "model.ts", "nemo.yaml"} <= {path.name for path in (finished / "best").iterdir()}


@pytest.mark.slow
def test_model_taken_away_hears_what_the_study_measured(finished: Path, shared_data: Path) -> None:
    """The exported file hears the test clips as the study did, up to the features' half precision."""
    corpus = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")
    clips = {normalise(u.text, language("es")): clip for _, u, clip in corpus.clips(["test"])}
    [look] = json.loads((finished / "test.json").read_text())["looks"]
    examples = look["examples"]
    heard = Recognizer.load(finished / "best" / "model.nemo", precision="float32").transcribe(
        [decode(clips[example["reference"]]) for example in examples])
    measured = [example["hypothesis"] or " " for example in examples]
    assert char_error_rate(measured, heard) < 0.03


@pytest.mark.slow
def test_each_trial_and_the_study_are_offline_wandb_runs(finished: Path) -> None:
    runs: dict[str, dict[str, object]] = {}
    for path in sorted((finished / "wandb").glob("offline-run-*/*.wandb")):  # some have two
        shown = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(path)],
                               capture_output=True, text=True, timeout=60, check=True)
        name = path.stem.removeprefix(f"run-{finished.name}-{(finished / 'id').read_text()}-")
        runs[name] = runs.get(name, {}) | json.loads(shown.stdout)["summary"]
    trials = {t.number: t for t in trials_of(finished)}
    assert {f"{number:04d}" for number in trials} | {"study"} <= set(runs)
    for number, trial in trials.items():
        summary = runs[f"{number:04d}"]
        last = TrialRecord.load(finished / "trials" / f"{trial.number:04d}").epochs[-1]
        assert summary["dev/wer"] == pytest.approx(last["wer"])
        assert summary["dev/epoch"] == last.epoch
        assert {"train/loss", "train/lr", "dev/cer", "train/times_real_time", "examples"} <= set(summary)
        assert summary["state"] in ("complete", "stopped") and summary["best_wer"] == pytest.approx(last["best_wer"])
    assert "trials" in runs["study"]


@pytest.mark.slow
def test_report_is_one_page_that_needs_no_network(finished: Path) -> None:
    before = (finished / "report.html").read_text()
    assert "Plotly.newPlot" in before and 'src="http' not in before
    redrawn = run([sys.executable, "search/report.py", str(finished)])
    assert redrawn.returncode == 0 and "0004" in (finished / "report.html").read_text()


@pytest.mark.slow
def test_run_folder_that_holds_a_study_is_left_alone(finished: Path, shared_data: Path, cache: Path) -> None:
    before = (finished / "config.yaml").read_text()
    result = run(command(shared_data, cache, finished, "--trials", "2"))
    assert result.returncode == 1
    assert result.stderr.startswith("error:") and "--resume" in result.stderr and result.stderr.count("\n") == 1
    assert (finished / "config.yaml").read_text() == before


@pytest.mark.slow
def test_corpus_report_names_splits_and_vocabularies(finished: Path) -> None:
    report = json.loads((finished / "corpus_report.json").read_text())
    assert {name: split["clips"] for name, split in report["splits"].items()} == {"train": 22, "dev": 21, "test": 21}
    assert report["overlap"]["allowed"] and report["estimate"]["disk"]["features"] > 0
    said = "1 sentence and 0 speakers of test are in train too (1 of 21 clips): 'tres'"
    assert report["overlap"]["said"] == json.loads((finished / "summary.json").read_text())["overlap"]["said"] == [said]
    assert f"careful: {said}\n" in (finished / "best" / "card.txt").read_text()
    errors = {(v["kind"], v["size"]): v["error"] for v in report["vocabularies"]}
    assert errors["characters", 0] is None
    assert "at most 190" in errors["unigram", 1024]  # what 22 sentences can give


def stop(process: subprocess.Popen[str], how: signal.Signals, out: Path) -> None:
    """Stop a study that runs as a person, a supervisor or the kernel does, and see how it ends."""
    said = f"stopped; what was done is kept. Resume with --resume {out}\n"
    if how == signal.SIGINT:
        process.send_signal(how)
    else:
        os.killpg(process.pid, how)
    _, errors = process.communicate(timeout=60)
    if how == signal.SIGKILL:
        time.sleep(3)  # Ray's own processes see that their driver is gone
        return
    assert (process.returncode, errors) == (128 + how, said)
    until = time.monotonic() + 15
    while left := subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout:
        assert time.monotonic() < until, f"processes are left: {left}"
        time.sleep(0.2)


@pytest.mark.slow
def test_stopped_and_killed_studies_go_on_where_they_were(shared_data: Path, cache: Path, tmp_path: Path) -> None:
    """One study that is stopped in every way, one after the other, as soon as it has trained an epoch more."""
    out = tmp_path / "study"
    flags = ["--trials", "4", "--max-epochs", "8", "--confirm", "1", "--seeds", "1", "--no-ablation", "--wandb", "off"]
    resume, before = [sys.executable, "search/run.py", "--resume", str(out)], dict[str, list[float]]()
    start = command(shared_data, cache, out, *flags)
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        process = subprocess.Popen(start, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True)
        assert process.stdout is not None
        assert any("  epoch " in line for line in process.stdout), process.communicate()
        stop(process, how, out)
        now = {folder.name: [epoch["wer"] for epoch in TrialRecord.load(folder).epochs] for folder in _folders(out)}
        assert {name: now[name][: len(wers)] for name, wers in before.items()} == before
        assert sum(map(len, now.values())) > sum(map(len, before.values()))
        start, before = resume, now
    assert yaml.safe_load((out / "config.yaml").read_text())["trials"] == 4
    resumed = run(resume)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    check_whole(out, num_trials=4)
    for name, wers in before.items():
        assert [epoch["wer"] for epoch in TrialRecord.load(out / "trials" / name).epochs][: len(wers)] == wers


@pytest.mark.slow
def test_running_study_is_not_resumed_a_second_time_and_a_killed_driver_leaves_no_lock(
        shared_data: Path, cache: Path, tmp_path: Path) -> None:
    """The driver alone is killed: Ray's own processes outlive it for some seconds."""
    out = tmp_path / "study"
    flags = ["--trials", "60", "--max-epochs", "8", "--wandb", "off"]
    driver = subprocess.Popen(command(shared_data, cache, out, *flags), cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert driver.stdout is not None
    next(line for line in driver.stdout if "epoch 2/8" in line)
    resume = [sys.executable, "search/run.py", "--resume", str(out)]
    refused = run(resume)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert f"{out}: this study is running (host" in refused.stderr and f"process {driver.pid})" in refused.stderr
    assert run([sys.executable, "search/report.py", str(out)]).returncode == 0, "the report reads alone"
    assert driver.poll() is None
    of_ray = subprocess.run(["pgrep", "-P", str(driver.pid)], capture_output=True, text=True).stdout.split()
    driver.kill()
    assert any(Path(f"/proc/{pid}").exists() for pid in of_ray)
    resumed = subprocess.Popen(resume, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    driver.wait()
    assert resumed.stdout is not None
    assert any("epoch" in line for line in resumed.stdout)
    resumed.send_signal(signal.SIGINT)
    _, errors = resumed.communicate(timeout=60)
    assert resumed.returncode == 130 and f"--resume {out}" in errors


def _folders(out: Path) -> list[Path]:
    return [path.parent for path in (out / "trials").glob("*/record.json")]


@pytest.mark.slow
def test_trial_of_two_workers_is_trained_by_ddp(shared_data: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    flags = ["--trials", "2", "--max-epochs", "2", "--confirm", "1", "--seeds", "1", "--no-ablation"]
    result = run(command(shared_data, cache, out, *flags, "--workers-per-trial", "2"))
    assert result.returncode == 0, result.stderr[-2000:]
    check_whole(out, num_trials=2)
    exported = json.loads((out / "summary.json").read_text())["exported"]
    # Rank zero alone, and the driver with the model.
    assert len(list((out / "wandb").glob("offline-run-*-0000"))) == 1 + (exported == "0000")
    assert [TrialRecord.load(folder).workers for folder in _folders(out)] == [2, 2]


@pytest.mark.slow
def test_librispeech_from_scratch(shared_data: Path, cache: Path, tmp_path: Path) -> None:
    """Real English in LibriSpeech's layout, upper case, a folder a speaker and chapter; no source."""
    spoken = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz")
    clips = [(utterance.text, clip) for _, utterance, clip in spoken.clips(("train", "dev", "test"))]
    subsets = ["train-clean-100"] * 28 + ["dev-clean"] * 6 + ["test-clean"] * 6
    for i, ((text, clip), subset) in enumerate(zip(clips, subsets, strict=True)):
        chapter = tmp_path / "LibriSpeech" / subset / str(100 + i // 2) / "7"
        chapter.mkdir(parents=True, exist_ok=True)
        name = f"{100 + i // 2}-7-{i % 2:04d}"
        assert isinstance(clip, bytes)
        soundfile.write(chapter / f"{name}.flac", decode(clip), 16_000)
        with (chapter / f"{100 + i // 2}-7.trans.txt").open("a", encoding="utf-8") as transcript:
            transcript.write(f"{name} {normalise(text, language('en')).upper()}\n")
    out = tmp_path / "study"
    done = run([sys.executable, "search/run.py", "--corpus", str(tmp_path / "LibriSpeech"), "--language", "en",
                "--source", "none", "--space", "synthetic", "--trials", "1", "--max-epochs", "2", "--confirm", "1",
                "--seeds", "1", "--cache", str(cache), "--out", str(out)])
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((out / "corpus_report.json").read_text())
    assert [report["splits"][split]["clips"] for split in ("train", "dev", "test")] == [28, 6, 6]
    assert [report["splits"][split]["speakers"] for split in ("train", "dev", "test")] == [14, 3, 3]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test"]["clips"] == 6 and "source_as_it_stands" not in summary["test"] and summary["transfer"] == []
    assert not Recipe.load(out / "best" / "recipe.yaml").transfer.use_source
