"""Test is read once and every look is kept; no trial can see it."""

import ast
import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from noise_study import RECIPE, SPLITS, make_context
from test_floors import ROOT, imported, sources
from told_study import candidate, dev_texts, heard, make_run, write_trial

from corpora.features import FeatureStore
from search.candidate import Candidate
from search.config import ConfigError
from search.records.files import write_json
from search.records.job import Job
from search.records.measured import DevRates, Look, plain
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord
from search.results.confirmation import RemainingBudget
from search.results.run_summary import StudySummary
from search.results.summary import card_lines
from search.speech import evaluate_test as evaluate_test_module
from search.speech.evaluate_test import TEST, evaluate_test, read_looks, score
from search.speech.task import SpeechTask
from search.speech.transcribe_split import transcribe_trial
from search.trials.context import Link, TrialContext
from search.trials.train_worker import train

pytestmark = pytest.mark.timeout(120)


# --- nothing but the final look --------------------------------------------------------------------------------------


def test_no_other_file_names_the_split() -> None:
    naming = {path for path, tree in sources("search", "models", "spaces") for node in ast.walk(tree)
              if isinstance(node, ast.Constant) and node.value == TEST}
    synonyms = "spaces/did_you_mean.py"  # knows other words for the flag
    assert naming == {"search/speech/evaluate_test.py", synonyms}
    batches = ast.parse((ROOT / "corpora" / "batches.py").read_text(encoding="utf-8"))
    opened = {ast.unparse(node.args[0]) for node in ast.walk(batches)
              if isinstance(node, ast.Call) and ast.unparse(node.func) == "store.split"}
    assert opened == {"'train'", "'dev'"}


def test_nothing_that_runs_in_a_trial_imports_the_final_look() -> None:
    imports = {path.removesuffix(".py").replace("/", "."): set(imported(tree)) for path, tree in sources("search")}
    reached, ahead = set(), {"search.trials.train_worker", "search.trials.trainable", "search.trials.run_trials",
                             "search.speech.task", "search.capacity.probes", "search.tuning.searcher"}
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead |= {name for name in imports for i in imports[module]
                  if (i == name or i.startswith(name + ".")) and name not in reached}
    assert {"search.trials.checkpointing", "search.speech.task", "search.trials.context"} <= reached
    of_speech = {name.removeprefix("search.speech.") for name in reached if name.startswith("search.speech.")}
    assert of_speech == {"ranking", "search_space", "task", "vocabularies"}
    assert not [name for name in reached for i in imports[name] if i.startswith("corpora.reference")]
    knowing = {name for name in imports if any(i.startswith("search.speech.evaluate_test") for i in imports[name])}
    assert knowing == {
        "search.speech.speech_study", "search.training", "search.results.report_page", "search.results.summary",
        "search.speech.split_overlap"}


@pytest.fixture
def without_test(tmp_path: Path) -> TrialContext:
    """A copy of a store in which test's frames and texts are gone."""
    whole = make_context(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(SpeechTask.of(whole).store, copy)
    assert {row for row in FeatureStore(copy).split(TEST).ids} == {str(clip) for clip in SPLITS[TEST]}
    for file in copy.glob("000001.*"):
        file.unlink()
    return replace(whole, task=replace(SpeechTask.of(whole), store=copy, vocabularies=copy))


def test_trial_is_whole_without_the_files_of_the_test_split(without_test: TrialContext) -> None:
    data, _ = without_test.task.build(RECIPE, 3, without_test.worker(Link()))
    rows = [int(row) for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader
            for row in batch.rows]
    assert len(rows) >= 20
    train(Job(id="0000", recipe=RECIPE, seed=3), without_test, Link(), time.time())
    record = TrialRecord.load(without_test.folder / "0000")
    assert record.is_complete and len(record.dev_hypotheses()) == len(SPLITS["dev"])


def test_final_look_is_not_possible_without_them(without_test: TrialContext) -> None:
    train(Job(id="0000", recipe=RECIPE, seed=3), without_test, Link(), time.time())
    weights = TrialRecord.load(without_test.folder / "0000").best_weights
    transcribe = transcribe_trial._function  # as a Ray task runs it
    assert len(transcribe(without_test, RECIPE, weights, "dev")) == len(SPLITS["dev"])
    with pytest.raises(FileNotFoundError, match="000001.npy"):
        transcribe(without_test, RECIPE, weights, TEST)


# --- one look --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The winners whose weights were asked what they hear, in place of Ray's tasks."""
    asked: list[str] = []

    def hear(context: TrialContext, winner: Candidate) -> tuple[list[str], list[str]]:
        asked.append(winner.best_training.id)
        split = FeatureStore(SpeechTask.of(context).store).split(TEST)
        return heard(split.texts, 0.2, seed=len(asked)), [""] * len(split)

    monkeypatch.setattr(evaluate_test_module, "_hear", hear)
    return asked


def look(study: tuple[RunFolder, RemainingBudget], name: str, again: bool = False) -> list[str]:
    """Look at test for a trial; the card's lines."""
    run, room = study
    winner = candidate(write_trial(run.trials, name, 0.3))
    tested = evaluate_test(run, FeatureStore(SpeechTask.of(room.context).store), room.context, winner, again)
    return card_lines(StudySummary(study="s", winner=name, exported=name, recipe={}, test=tested,
                                   dev=DevRates(wer=0.3, cer=0.1)))


def test_resumed_study_keeps_its_figures_and_refuses_a_second_look_for_another_winner(
        tmp_path: Path, hearing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    study = make_run(tmp_path)
    first = look(study, "0003")
    assert first[0].startswith("test, read once: WER ") and "95 % interval" in first[0]
    assert first[1].startswith("the unchanged source, on test: WER 100.0% (95 % interval 100.0% to 100.0%)")
    before = (study[0].path / "test.json").read_bytes()
    assert look(study, "0003") == first and capsys.readouterr().out == ""
    refused = look(study, "0007")
    assert hearing == ["0003"] and (study[0].path / "test.json").read_bytes() == before
    printed = capsys.readouterr().out
    assert "test was read for 0003 and is not read again for 0007" in printed and "--look-again" in printed
    assert printed.count("\n") == 1
    assert refused[0] == first[0].replace("read once", "read once, of 0003, an earlier winner")


def test_second_look_that_is_asked_for_is_recorded(tmp_path: Path, hearing: list[str]) -> None:
    study = make_run(tmp_path)
    look(study, "0003")
    again = look(study, "0007", again=True)
    assert again[0].startswith("test was read 2 times; the last: WER ") and hearing == ["0003", "0007"]
    looks = read_looks(study[0].path / "test.json")
    assert [entry.trial for entry in looks] == ["0003", "0007"]
    assert all(str(entry.time).endswith("+00:00") and entry.clips == 60 for entry in looks)
    assert looks[0].winner != looks[1].winner and len(looks[1].examples or []) == 20
    assert look(study, "0007") == again and len(hearing) == 2, "resumed without the flag"


def test_file_of_a_single_look_as_it_was_written_at_first_is_read(tmp_path: Path, hearing: list[str]) -> None:
    study = make_run(tmp_path)
    texts = dev_texts()
    single = Look(trial="0003", clips=60, winner=score(texts, heard(texts, 0.2, 0), 0), examples=[])
    write_json(study[0].path / "test.json", plain(single))
    assert look(study, "0003")[0].startswith("test, read once: WER ") and hearing == []
    assert look(study, "0003", again=True)[0].startswith("test was read 2 times")
    assert read_looks(study[0].path / "test.json")[0] == single


@pytest.mark.parametrize("content", ["{", "[]", '{"looks": []}', '{"looks": [{}]}', "{}"])
def test_damaged_file_is_not_taken_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be read .*Restore the file") as error:
        read_looks(tmp_path / "test.json")
    assert "\n" not in str(error.value)


def test_few_clips_have_rates_without_an_interval(tmp_path: Path, hearing: list[str]) -> None:
    rates = score(dev_texts(19), dev_texts(19), seed=0)
    assert (rates.wer, rates.wer_low, rates.wer_high, rates.cer_low) == (0.0, None, None, None)
    lines = look(make_run(tmp_path, num_clips=19), "0003")
    assert "(19 test clips are too few for an interval, which takes 20), CER " in lines[0] and "95 %" not in lines[0]
    json.dumps(plain(rates), allow_nan=False)
    assert not math.isnan(rates.cer)


def test_rates_of_words_and_of_letters_have_their_intervals() -> None:
    rates = score(dev_texts(40), [text[:-1] for text in dev_texts(40)], seed=0)
    assert 0 < rates.cer_low <= rates.cer <= rates.cer_high < rates.wer_low <= rates.wer


def test_corpus_without_a_test_split_is_said(tmp_path: Path, hearing: list[str]) -> None:
    assert look(make_run(tmp_path, num_clips=0), "0003") == ["test: the corpus has no test split"]
    assert hearing == []
