"""The figures of a study, and the card: what a person reads of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from told_study import RECIPE, candidate, dev_texts, heard, make_run, write_trial

from corpora.features import FeatureStore
from search.records.files import write_json
from search.records.measured import Look
from search.results.ablation import ablate
from search.results.confirmation import Confirmed
from search.results.importance import importance
from search.results.run_summary import StudySummary, load_summary
from search.results.summary import card, summarise
from search.speech.evaluate_test import score
from search.speech.split_overlap import find_overlaps, overlap_report
from search.speech.task import SpeechTask
from search.trials.interrupt import Interrupt

pytestmark = pytest.mark.timeout(60)

ROWS = [{"id": "0000", "state": "complete"}, {"id": "0001", "state": "pruned"}]


def test_card_tells_the_choice_the_ties_and_what_transfer_bought(tmp_path: Path) -> None:
    run, room = make_run(tmp_path)
    for i in range(3, 8):
        write_trial(run.trials, f"{i:04d}", 0.35)
    winner = candidate(write_trial(run.trials, "0000", 0.3), write_trial(run.trials, "0000-seed1", 0.3, seed=1))
    second = candidate(write_trial(run.trials, "0001", 0.32))
    hand = candidate(write_trial(run.trials, "0002", 0.7), hand_recipe="letters_kept")
    write_trial(run.trials, "0000-scratch", 0.9)
    confirmed = Confirmed(candidates=[winner, second, hand], left_out=["seed 2"])
    same, transfer = ablate(confirmed, run, room, Interrupt(), lambda recipe: None if recipe == RECIPE or (
        not recipe.transfer.use_source) else "it does not fit")
    assert same == confirmed
    tested = Look(trial=winner.best_training.id, clips=60, times_read=1,
                  winner=score(dev_texts(), heard(dev_texts(), 0.3, 1), 0))
    summary = summarise(run, ROWS, confirmed, transfer, importance([], 0), tested, room.budget)
    kept = json.loads((run.path / "summary.json").read_text())
    assert kept == json.loads(json.dumps(summary.values(), allow_nan=False))
    assert load_summary(StudySummary, run.path) == summary

    dev = summary.dev
    assert dev.wer_low < dev.wer < dev.wer_high and dev.chosen_among == 9
    assert dev.wer < dev.corrected < dev.wer + 0.1
    assert dev.cer == pytest.approx(dev.wer), "the mean over the seeds too; these trials' CER is their WER"
    assert dev.interval("cer") == winner.interval("cer", 0) and dev.cer_low < dev.cer_high
    assert summary.compared["runner_up"].is_tie and not summary.compared["hand_recipe"].is_tie
    assert [(v.variant, v.trial) for v in summary.transfer] == [
        ("from scratch", "0000-scratch"), ("encoder only", None), ("letters kept", "0000")]
    lines = card(summary).splitlines()
    said = "\n".join(lines)
    assert f"dev WER {dev.wer:.1%}, 95 % interval " in said and "over utterances and 2 seeds; by seed" in said
    assert (f"so the figure flatters it: WER about {dev.corrected:.1%} once corrected for the choice among 9 "
            "trials") in said
    assert "verdict: a tie with runner-up 0001 within noise" in said and "2 against 1" in said
    assert f"which flatters the difference by about {dev.corrected - dev.wer:.1%} absolute" in said
    assert "Intervals are for other clips of the same speakers; other speakers can move a figure by more." in lines
    assert f"best hand recipe, letters_kept: trial 0002, dev WER {hand.rate('wer'):.1%}" in lines
    assert "the budget left no room for: seed 2" in lines
    start = lines.index("what transfer gained, by the winner's recipe on one seed at the same budget:")
    assert lines[start + 1].startswith("  from scratch: dev WER ")
    assert "the winner is better than this by " in lines[start + 1]
    assert lines[start + 2] == "  encoder only: not trained; it does not fit"
    assert lines[start + 3] == f"  letters kept: dev WER {winner.rates('wer')[0]:.1%}; the winner is this one"
    assert lines[start + 4].startswith("test, read once: WER ")


def test_card_of_a_study_that_minimises_cer_speaks_of_cer(tmp_path: Path) -> None:
    run, room = make_run(tmp_path)
    winner, hand = (candidate(write_trial(run.trials, name, share, metric="cer"), hand_recipe=hand)
                    for name, share, hand in (("0000", 0.3, None), ("0001", 0.6, "letters_kept")))
    confirmed = Confirmed(candidates=[winner, hand], left_out=[])
    summary = summarise(run, ROWS, confirmed, [], importance([], 0), None, room.budget)
    (edits, letters), (others, _) = winner.edits("cer"), hand.edits("cer")
    assert summary.objective == "cer" and letters.sum() == len("".join(dev_texts()))
    assert summary.compared["hand_recipe"].difference_low < (edits - others).sum() / letters.sum()
    said = card(summary)
    assert f"best hand recipe, letters_kept: trial 0001, dev CER {hand.rate('cer'):.1%}" in said
    assert f"flatters it: CER about {summary.dev.corrected:.1%} once corrected" in said


def test_card_begins_with_what_one_must_know(tmp_path: Path) -> None:
    run, room = make_run(tmp_path)
    record = write_trial(run.trials, "0000", 1.0)
    record.epochs = [replace(epoch, metrics={**epoch.metrics, "collapsed": 1.0}) for epoch in record.epochs]
    confirmed = Confirmed(candidates=[candidate(record)], left_out=[])
    summary = summarise(run, ROWS, confirmed, [], importance([], 0), None, room.budget)
    lines = card(summary).splitlines()
    said = "careful: the winner is no better than silence"
    careful = next(i for i, line in enumerate(lines) if line.startswith(said))
    assert lines[careful + 1].startswith("winner: trial 0000")


def test_overlap_that_was_allowed_is_in_the_summary_and_on_the_card(tmp_path: Path) -> None:
    run, room = make_run(tmp_path)
    overlaps = find_overlaps(FeatureStore(SpeechTask.of(room.context).store))  # dev and test hold the same texts there
    write_json(run.path / "corpus_report.json", {"overlap": overlap_report(overlaps, allowed=True)})
    confirmed = Confirmed(candidates=[candidate(write_trial(run.trials, "0000", 0.3))], left_out=[])
    summary = summarise(run, ROWS, confirmed, [], importance([], 0), None, room.budget)
    assert summary.overlap.allowed
    assert [(pair.splits, pair.num_shared_clips) for pair in summary.overlap.pairs] == [
        (["dev", "test"], 60)]
    assert ("careful: 60 sentences and 1 speaker of test are in dev too (60 of 60 clips): 'uno dos tres cuatro n0', "
            ) in card(summary)


def test_small_study_says_what_its_figures_lack(tmp_path: Path) -> None:
    run, room = make_run(tmp_path, num_clips=12)
    texts = dev_texts(12)
    winner = candidate(write_trial(run.trials, "0000", 0.3, texts=texts), texts=texts)
    confirmed = Confirmed(candidates=[winner], left_out=[])
    summary = summarise(run, ROWS, confirmed, [], importance([], 0), None, room.budget)
    said = card(summary)
    assert summary.dev.wer_low is None and summary.dev.corrected is None
    assert "12 development clips are too few for an interval, which takes 20; by seed" in said
    assert "not corrected: 1 of the trials ran to the end, and a choice takes two" in said
    assert "what transfer gained" not in said and "test: the corpus has no test split" in said
    json.dumps(summary.values(), allow_nan=False)
