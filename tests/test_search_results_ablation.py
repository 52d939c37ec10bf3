"""What transfer gained is measured on the winner's recipe, and a variant that cannot be trained stops nothing."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from told_study import RECIPE, candidate, make_run, write_trial

from search.candidate import Candidate
from search.capacity.estimate import MAX_VARIANTS
from search.records.job import Job
from search.records.trial_record import write_failure
from search.results import ablation, confirmation
from search.results.ablation import NO_ROOM, ablate, variants
from search.results.confirmation import Confirmed
from search.trials.budget import Amounts
from search.trials.interrupt import Interrupt
from spaces.recipe import Recipe, TransferRecipe, VocabularyRecipe

pytestmark = pytest.mark.timeout(60)

PIECES = replace(RECIPE, vocabulary=VocabularyRecipe(kind="bpe", size=64),
                 transfer=TransferRecipe(decoder="fresh", batchnorm="keep", encoder_lr_ratio=0.3, frozen_epochs=1))
FOLDED = replace(PIECES, vocabulary=VocabularyRecipe(kind="characters_folded"))


def alone(winner: Candidate) -> Confirmed:
    return Confirmed(candidates=[winner], left_out=[])


def feasible(recipe: Recipe) -> str | None:
    return None


@pytest.mark.parametrize(("recipe", "own"), [
    (RECIPE, "letters"), (PIECES, "encoder"), (FOLDED, "encoder"),
    (replace(FOLDED, transfer=replace(FOLDED.transfer, decoder="letters")), "letters")])
def test_variants_differ_from_the_winner_in_what_is_carried_over_alone(recipe: Recipe, own: str) -> None:
    found = variants(recipe)
    assert list(found) == ["scratch", "encoder", "letters"] and found[own] == recipe
    assert len({repr(variant) for variant in found.values()}) == 3 == MAX_VARIANTS + 1
    assert not found["scratch"].transfer.use_source and found["scratch"].vocabulary == recipe.vocabulary
    assert (found["encoder"].transfer.decoder, found["letters"].transfer.decoder) == ("fresh", "letters")
    kind = "characters" if recipe is PIECES else recipe.vocabulary.kind
    assert found["letters"].vocabulary == VocabularyRecipe(kind=kind)  # type: ignore[arg-type]
    for variant in found.values():
        assert (variant.network, variant.optimizer, variant.schedule, variant.training) == (
            recipe.network, recipe.optimizer, recipe.schedule, recipe.training)
        if variant.transfer.use_source:
            assert replace(variant.transfer, decoder=recipe.transfer.decoder) == recipe.transfer


def test_each_variant_is_reported_beside_the_winner_on_the_winners_own_seed(tmp_path: Path) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0003", 0.3), write_trial(run.trials, "0003-seed1", 0.1, seed=1))
    write_trial(run.trials, "0003-scratch", 0.8)
    write_trial(run.trials, "0003-encoder", 0.3)
    _, found = ablate(alone(winner), run, room, Interrupt(), feasible)
    scratch, encoder, letters = (variant.figures(winner, seed=0) for variant in found)
    assert [v.variant for v in (scratch, encoder, letters)] == ["from scratch", "encoder only", "letters kept"]
    assert scratch.trial == "0003-scratch" and scratch.is_tie is False and encoder.is_tie is True
    assert scratch.difference == pytest.approx(winner.rates("wer")[0] - scratch.wer), "not the mean of its seeds"
    assert scratch.said.startswith("the winner is better than this by ")
    assert letters.is_winner and letters.wer == winner.rates("wer")[0] and letters.trial == "0003"


def test_variant_that_is_infeasible_or_failed_is_named_and_the_rest_goes_on(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0003", 0.3, recipe=PIECES))
    ran: list[str] = []

    def run_left(jobs: list[Job], *_: Any) -> None:
        ran.extend(job.id for job in jobs)
        write_failure(run.trials / "0003-scratch", "the training loss is nan")

    monkeypatch.setattr(ablation, "run_left", run_left)  # in place of Ray
    _, found = ablate(alone(winner), run, room, Interrupt(), lambda recipe: (
        "the source's vocabulary is pieces" if recipe.transfer.decoder == "letters" else None))
    assert ran == ["0003-scratch"]
    assert [(variant.figures(winner, 0).is_winner, variant.reason) for variant in found] == [
        (False, "the training loss is nan"), (True, None), (False, "the source's vocabulary is pieces")]
    assert [variant.trained is None for variant in found] == [True, False, True]
    assert capsys.readouterr().out.splitlines() == [
        "0003 from scratch is left out: the training loss is nan",
        "0003 letters kept is left out: the source's vocabulary is pieces"]
    assert found[2].figures(winner, seed=0).said == "the source's vocabulary is pieces"


@pytest.mark.parametrize(("hours", "trained"), [
    (99, ["0003-scratch", "0003-encoder"]), (5.5, ["0003-scratch"]), (1, [])])
def test_budget_gives_up_the_variants_from_the_last_one_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           hours: float, trained: list[str]) -> None:
    run, room = make_run(tmp_path)
    room.budget.observe("0000", 1, 0.5, train_s=3600.0, outside_s=1.0)
    room.budget.limits = Amounts(wall_s=hours * 3600, gpu_s=math.inf, cost=math.inf)
    ran: list[str] = []
    monkeypatch.setattr(ablation, "run_left", lambda jobs, *_: ran.extend(job.id for job in jobs))
    _, found = ablate(alone(candidate(write_trial(run.trials, "0003", 0.3))), run, room, Interrupt(), feasible)
    assert ran == trained
    assert [v.reason == NO_ROOM for v in found] == ["0003-scratch" not in ran, "0003-encoder" not in ran, False]


def test_nothing_is_trained_where_none_is_wanted_or_nothing_was_carried_over(tmp_path: Path) -> None:
    run, room = make_run(tmp_path, ablation=False)
    winner = candidate(write_trial(run.trials, "0003", 0.3))
    assert ablate(alone(winner), run, room, Interrupt(), feasible)[1] == []
    run, room = make_run(tmp_path)
    scratch = alone(replace(winner, recipe=variants(RECIPE)["scratch"]))
    assert ablate(scratch, run, room, Interrupt(), feasible) == (scratch, [])


def test_what_is_shown_of_the_ablation_goes_on_from_the_best_of_the_study(tmp_path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    best = write_trial(run.trials, "0003", 0.1).epochs[-1]["wer"]
    winner = candidate(write_trial(run.trials, "0003-seed1", 0.3))
    write_trial(run.trials, "0003-seed1-scratch", 0.8)
    shown: list[tuple[int, tuple[int, float]]] = []
    monkeypatch.setattr(confirmation, "run_jobs", lambda *_, total, so_far, **__: shown.append((total, so_far)))
    ablate(alone(winner), run, room, Interrupt(), feasible)
    assert shown == [(2, (1, best))], "one of two variants had ended before"


def test_variant_that_is_better_is_confirmed_and_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0003", 0.5), write_trial(run.trials, "0003-seed1", 0.5, seed=1))
    shares = {"0003-scratch": 0.9, "0003-encoder": 0.2, "0003-encoder-seed1": 0.2}
    recipes = variants(RECIPE)
    asked: list[str] = []

    def run_jobs(*_: Any, jobs: list[Job], **__: Any) -> None:
        for job in jobs:
            asked.append(job.id)
            write_trial(run.trials, job.id, shares[job.id], seed=job.seed, recipe=job.recipe)

    monkeypatch.setattr(confirmation, "run_jobs", run_jobs)  # in place of Ray
    confirmed, found = ablate(alone(winner), run, room, Interrupt(), feasible)
    assert asked == ["0003-scratch", "0003-encoder", "0003-encoder-seed1"], "each is trained once"
    assert [c.id for c in confirmed.candidates] == ["0003-encoder", "0003"]
    assert confirmed.winner.recipe == recipes["encoder"] and len(confirmed.winner.trainings) == 2
    assert "0003-encoder is better than the winner it was made of, 0003" in capsys.readouterr().out
    figures = [variant.figures(confirmed.winner, seed=0) for variant in found]
    assert [(f.trial, f.is_winner) for f in figures] == [
        ("0003-scratch", False), ("0003-encoder", True), ("0003", False)]
    assert all(str(f.said).startswith("the winner is better than this") for f in figures if not f.is_winner)
    assert ablate(alone(winner), run, room, Interrupt(), feasible)[0] == confirmed
    assert len(asked) == 3, "what ended stays"


def test_variant_that_was_lucky_on_one_seed_does_not_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0003", 0.5), write_trial(run.trials, "0003-seed1", 0.1, seed=1))
    shares = {"0003-scratch": 0.9, "0003-encoder": 0.4, "0003-encoder-seed1": 0.8}
    monkeypatch.setattr(confirmation, "run_jobs", lambda *_, jobs, **__: [
        write_trial(run.trials, job.id, shares[job.id], seed=job.seed, recipe=job.recipe) for job in jobs])
    confirmed, found = ablate(alone(winner), run, room, Interrupt(), feasible)
    assert [c.id for c in confirmed.candidates] == ["0003", "0003-encoder"]
    assert [v.figures(confirmed.winner, seed=0).is_winner for v in found] == [False, False, True]
