"""What more speech would give: parts lie in each other, a planted law is found, and noise gives no number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from told_study import RECIPE, candidate, dev_texts, make_run, write_trial

from corpora.batches import rows_of_part
from search.candidate import Candidate
from search.records.job import PARTS, is_part
from search.results import confirmation
from search.results.ablation import NO_ROOM
from search.results.data_scaling import fit, scaling_lines, train_parts
from search.results.statistics import optimism
from search.trials.interrupt import Interrupt
from spaces.recipe import Recipe, RecipeError, TrainingRecipe


def part_of(share: float) -> Recipe:
    return replace(RECIPE, training=replace(RECIPE.training, data_share=share))


def trained(folder: Path, rates: dict[str, float], num_clips: int = 400) -> list[Candidate]:
    """Trainings whose models hear these shares of the words wrong, the smallest part first."""
    texts = dev_texts(num_clips)
    shares = PARTS | {"": 1.0}
    return [candidate(write_trial(folder, f"0003-{end}" if end else "0003", rate, recipe=part_of(shares[end]),
                                  texts=texts), texts=texts) for end, rate in rates.items()]


# --- the part -------------------------------------------------------------------------------------------------------


def test_parts_lie_in_each_other_whatever_the_order() -> None:
    ids, frames = [f"0/{i}.mp3" for i in range(400)], np.random.default_rng(0).integers(50, 900, size=400)
    chosen = {share: {ids[i] for i in rows_of_part(ids, frames, share)} for share in (0.1, 0.25, 0.5, 1.0)}
    assert chosen[0.1] < chosen[0.25] < chosen[0.5] < chosen[1.0] == set(ids)
    for share, names in chosen.items():
        assert sum(frames[ids.index(name)] for name in names) == pytest.approx(share * frames.sum(), abs=900)
    order = np.random.default_rng(1).permutation(400)
    shuffled = [ids[i] for i in order]
    assert {shuffled[i] for i in rows_of_part(shuffled, frames[order], 0.25)} == chosen[0.25]
    assert len(rows_of_part(ids[:3], frames[:3], 0.001)) == 1, "an epoch has a clip"


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_share_outside_its_limits_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match=r"training\.data_share is .*; it must be in \(0, 1\]"):
        TrainingRecipe(data_share=share)


# --- the law --------------------------------------------------------------------------------------------------------


def test_planted_law_is_found(tmp_path: Path) -> None:
    found = fit(trained(tmp_path, {"quarter": 0.4, "half": 0.2828, "": 0.2}), None, hours=10.0, seed=0)
    assert found.why_none is None and found.exponent == pytest.approx(0.5, abs=0.08)
    assert [(one.times, one.hours) for one in found.more] == [(2.0, 20.0), (4.0, 40.0)]
    for one, rate in zip(found.more, (0.1414, 0.1), strict=True):
        assert one.low < one.rate < one.high and one.rate == pytest.approx(rate, abs=0.03)
    assert [(part.share, part.hours) for part in found.parts] == [(0.25, 2.5), (0.5, 5.0), (1.0, 10.0)]
    head, line, _ = scaling_lines(found, "wer")
    assert "of 25%" in head and line.startswith("  2 times (20 h) about ") and "; 4 times (40 h) about " in line


@pytest.mark.parametrize(("rates", "num_clips", "said"), [
    ({"quarter": 0.3, "half": 0.3, "": 0.3}, 400, "within noise, the error does not fall"),
    ({"quarter": 0.2, "half": 0.3, "": 0.4}, 400, "within noise, the error does not fall"),
    ({"quarter": 1.0, "half": 0.6, "": 0.4}, 400, "a part of the speech ends at a WER of 100 % or more"),
    ({"quarter": 0.4, "half": 0.3, "": 0.2}, 19, "too few for an interval")])
def test_no_number_where_the_trainings_cannot_tell(tmp_path: Path, rates: dict[str, float], num_clips: int,
                                                   said: str) -> None:
    found = fit(trained(tmp_path, rates, num_clips), None, hours=10.0, seed=0)
    assert found.more == [] and said in str(found.why_none) and len(found.parts) == 3
    assert scaling_lines(found, "wer") == [f"what more speech would give is unknown: {found.why_none}"]


def test_faultless_whole_has_a_law_too(tmp_path: Path) -> None:
    found = fit(trained(tmp_path, {"quarter": 0.4, "half": 0.1, "": 0.0}), None, hours=10.0, seed=0)
    assert all(np.isfinite([one.rate, one.low, one.high]).all() for one in found.more) and found.more


# --- the trainings --------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    run, room = make_run(tmp_path)
    ran: list[str] = []

    def run_jobs(context: Any, *, jobs: Any, **_: Any) -> None:
        for job in jobs:
            ran.append(job.id)
            write_trial(run.trials, job.id, 0.5 - 0.2 * job.recipe.training.data_share, recipe=job.recipe)

    monkeypatch.setattr(confirmation, "run_jobs", run_jobs)
    winner = candidate(write_trial(run.trials, "0003", 0.2), write_trial(run.trials, "0003-seed1", 0.2, seed=1))
    return run, room, winner, ran


def test_parts_are_trained_once_on_the_studys_seed(study: Any) -> None:
    run, room, winner, ran = study
    for _ in range(2):
        found, missing = train_parts(winner, run, room, Interrupt(), lambda _: None)
        assert missing is None and [one.id for one in found] == ["0003-quarter", "0003-half", "0003"]
        assert [one.recipe.training.data_share for one in found] == [0.25, 0.5, 1.0]
        assert [len(one.trainings) for one in found] == [1, 1, 1]
    assert ran == ["0003-quarter", "0003-half"], "a resumed study trains none twice"


def test_parts_are_no_trials_of_the_search(study: Any) -> None:
    run, room, winner, _ = study
    before = optimism(run.trials, winner.dev_texts, 0).num_trials
    train_parts(winner, run, room, Interrupt(), lambda _: None)
    assert optimism(run.trials, winner.dev_texts, 0).num_trials == before
    assert [is_part(name) for name in ("0003", "0003-seed1", "0003-half", "0003-letters-quarter")] == [
        False, False, True, True]


def test_why_parts_are_missing_is_said(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, room, winner, ran = study
    refused = train_parts(winner, run, room, Interrupt(), lambda _: "one clip is no step.")
    assert (len(refused[0]), refused[1]) == (1, "one clip is no step.")
    of_half = replace(winner, recipe=part_of(0.5))
    assert train_parts(of_half, run, room, Interrupt(), lambda _: None)[1] == (
        "the winner itself has only a part of the speech")
    monkeypatch.setattr(type(room), "is_enough_for", lambda *_: False)
    assert train_parts(winner, run, room, Interrupt(), lambda _: None)[1] == NO_ROOM
    assert not ran and fit([winner], NO_ROOM, 10.0, 0).why_none == NO_ROOM
