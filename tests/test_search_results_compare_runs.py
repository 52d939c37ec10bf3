"""Studies and trainings are put side by side where the same texts judged them, and nowhere else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from told_study import RECIPE, candidate, dev_texts, finished_training, heard, make_run, write_trial

from corpora.reference import Reference
from files.atomic import write_aside
from search.command_line.commands import compare as command
from search.config import ConfigError
from search.records.measured import Look
from search.results.compare_runs import compare
from search.results.confirmation import Confirmed
from search.results.importance import importance
from search.results.summary import card, summarise
from search.speech.evaluate_test import TEST, score
from search.trials.budget import Budget
from spaces.recipe import OptimizerRecipe

pytestmark = pytest.mark.timeout(60)

ROWS = [{"id": "0000", "state": "complete"}]


def finished(folder: Path, name: str, share: float, num_clips: int = 60) -> Path:
    """A run's folder with its summary, whose winner heard this share of the words wrong."""
    run, room = make_run(folder / name, num_clips)
    run = replace(run, path=run.path.rename(folder / name / name))
    room = replace(room, budget=Budget(run.path / "spent.json", room.budget.limits))
    texts = dev_texts(num_clips)
    winner = candidate(write_trial(run.trials, "0002", share, texts=texts),
                       write_trial(run.trials, "0002-seed1", share, texts=texts), texts=texts)
    tested = Look(trial=winner.best_training.id, clips=num_clips, times_read=1,
                  winner=score(texts, heard(texts, share, 1), 0))
    summary = summarise(run, ROWS, Confirmed(candidates=[winner], left_out=[]), [], importance([], 0), tested,
                        room.budget)
    assert f"key {Reference.load(run.reference).key}" in card(summary)
    return run.path


def change(run: Path, **changes: Any) -> None:
    """Another reference in a run, and its key in the summary."""
    reference = replace(Reference.load(run / "reference.parquet"), **changes)
    write_aside(run / "reference.parquet", reference.to_parquet())
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"reference": reference.facts()}))


def test_figures_stand_as_in_the_summaries_and_the_difference_is_judged(tmp_path: Path) -> None:
    runs = [finished(tmp_path, name, share) for name, share in (("spanish", 0.4), ("longer", 0.1), ("again", 0.4))]
    head, *rows = compare(runs).splitlines()
    assert head.split() == ["run", "trial", "dev", "WER", "dev", "CER", TEST, "WER", TEST, "CER"]
    for run, row in zip(runs, rows, strict=False):
        summary = json.loads((run / "summary.json").read_text())
        dev, tested = summary["dev"], summary[TEST]["winner"]
        assert row.split() == (f"{run.name} 0002 {dev['wer']:.1%} ({dev['wer_low']:.1%} to {dev['wer_high']:.1%}) "
                               f"{dev['cer']:.1%} ({dev['cer_low']:.1%} to {dev['cer_high']:.1%}) "
                               f"{tested['wer']:.1%} ({tested['wer_low']:.1%} to {tested['wer_high']:.1%}) "
                               f"{tested['cer']:.1%} ({tested['cer_low']:.1%} to {tested['cer_high']:.1%})").split()
    assert rows[3].startswith("on dev longer is better than spanish by ") and "2 seeds)" in rows[3]
    assert rows[4] == "  longer has the same recipe, corpus and source"
    assert rows[5].startswith("on dev again is a tie with spanish within noise: the difference is ")


def test_changed_optimizer_of_a_training_is_better_or_not(tmp_path: Path) -> None:
    lion = replace(RECIPE, optimizer=OptimizerRecipe(name="lion", lr=1e-4))
    study, usual = finished(tmp_path, "study", 0.4), finished_training(tmp_path, "usual", 0.4)
    changed = finished_training(tmp_path, "changed", 0.1, lion)
    _, *rows = compare([usual, changed, study]).splitlines()
    assert [row.split()[:2] for row in rows[:3]] == [["usual", "training"], ["changed", "training"], ["study", "0002"]]
    summary = json.loads((changed / "summary.json").read_text())
    assert f"  {summary['dev']['wer']:.1%} ({summary['dev']['wer_low']:.1%} to " in rows[1]
    assert rows[3].startswith("on dev changed is better than usual by ") and "as there is one seed)" in rows[3]
    assert rows[4] == "  changed has optimizer.name lion instead of adamw, optimizer.lr 0.0001 instead of 0.0003"
    assert rows[5].startswith("on dev study is a tie with usual within noise: ") and "2 against 1" in rows[5]
    assert compare([study, changed]).splitlines()[3].startswith("on dev changed is better than study by ")


def test_two_folders_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    one, other = finished_training(tmp_path / "a", "run", 0.4), finished_training(tmp_path / "b", "run", 0.1)
    assert f"on dev {other} is better than {one} by " in compare([one, other])


def test_test_figures_of_an_earlier_winner_are_not_shown_as_the_winners(tmp_path: Path) -> None:
    run = finished(tmp_path, "one", 0.2)
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"exported": "0007"}))
    assert compare([run, run]).splitlines()[1].endswith(f"  not read, but for {summary[TEST]['trial']}")


def test_order_of_the_clips_in_the_store_does_not_matter(tmp_path: Path) -> None:
    runs = [finished(tmp_path, name, share) for name, share in (("one", 0.4), ("other", 0.1))]
    before = compare(runs)
    reference = Reference.load(runs[1] / "reference.parquet")
    change(runs[1], rows=reference.rows[::-1])
    for file in runs[1].glob("trials/*/dev.json"):
        file.write_text(json.dumps(json.loads(file.read_text())[::-1]))
    assert compare(runs) == before


def test_studies_on_different_references_are_refused_by_name_and_number(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = finished(tmp_path, "one", 0.2), finished(tmp_path, "other", 0.2)
    rows = Reference.load(other / "reference.parquet").rows
    change(other, rows=(*((split, clip, "x") for split, clip, _ in rows[:3]), *rows[3:-2]))
    assert command([str(one), str(other)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: {one} and {other} were scored on different texts: 2 clips are in one alone, "
                                  "3 of 118 shared clips have another text. Their error rates cannot be compared;")
    assert command([str(one), str(one)]) == 0


def test_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    one, other, small = (finished(tmp_path, name, 0.2) for name in ("one", "other", "third"))
    (other / "trials" / "0002-seed1" / "dev.json").unlink()
    said = compare([one, other])
    assert "whether that is noise is not known, because the transcripts of one of them (trials/) are missing" in said
    few = [finished(tmp_path, name, 0.2, num_clips=12) for name in ("few", "fewer")]
    assert "12 development clips are too few for an interval" in compare(few)
    summary = json.loads((small / "summary.json").read_text())
    (small / "summary.json").write_text(json.dumps(summary | {TEST: {}}))
    assert compare([one, small]).splitlines()[2].split()[-1] == "none"


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda run: (run / "summary.json").unlink(), "no finished run here .*: check the path"),
    (lambda run: ((run / "summary.json").unlink(), (run / "training.yaml").touch()),
     "the production training in it has not ended; resume it with python search/train.py --resume "),
    (lambda run: ((run / "summary.json").unlink(), (run / "study.db").touch()),
     "the study in it has not ended; resume it with python search/run.py --resume "),
    (lambda run: (run / "summary.json").write_text("{"), "summary.json: cannot be read .Expecting"),
    (lambda run: (run / "summary.json").write_text('{"winner": "0002"}'), "cannot be read .*it lacks study"),
    (lambda run: write_aside(run / "reference.parquet", Reference((), "1").to_parquet()),
     "reference.parquet .* is not what the run was scored on"),
])
def test_folder_that_holds_no_finished_run_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    run = finished(tmp_path, "one", 0.2)
    spoil(run)
    with pytest.raises(ConfigError, match=message):
        compare([run, run])


@pytest.mark.parametrize(("name", "text"), [("record.json", "{"), ("record.json", "[]"), ("record.json", "{}"),
                                            ("dev.json", "x")])
def test_damaged_file_of_a_trial_is_named(tmp_path: Path, name: str, text: str) -> None:
    runs = [finished(tmp_path, "one", 0.2), finished(tmp_path, "two", 0.3)]
    [path, *_] = sorted(runs[1].glob(f"trials/*/{name}"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path}: .*Restore the file from a copy"):
        compare(runs)
