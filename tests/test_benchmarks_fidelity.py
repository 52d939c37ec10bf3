"""Recorded curves and what they say of a rung: known rankings, files of another kind, a branch of a real training."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from curves import CurvesError, Recording, load_recording, save_recording
from fidelity import table, table_of_rates
from noise_study import RECIPE, make_context
from record import Branching, curve

from search.records.job import Job
from search.records.trial_record import TrialRecord
from search.trials.context import Link
from search.trials.train_worker import train


def curves(num_recipes: int) -> Recording:
    """The averaged weights rank recipes at once as at the end, the latest ones the other way round at the rung."""
    trials: list[dict[str, Any]] = []
    for i in range(num_recipes):
        end, early = 0.2 + 0.01 * i, 0.9 - 0.01 * i
        epoch = {"averaged": end, "branch_s": 2.0, "look_s": 1.0}
        trials.append({"params": {"lr": i}, "seed": 0, "epochs": [
            epoch | {"raw": early, "annealed": 0.5 - 0.01 * (i % 2), "train_s": 12.0},
            epoch | {"raw": end, "annealed": None, "train_s": 24.0}]})
    return Recording(corpus=["c"], space="synthetic", has_source=True, max_epochs=2, grace_epochs=1, reduction_factor=3,
                  trials=trials)


def rows(text: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 1 ")]
    return {row[1]: row for row in cells}


def test_rung_that_foretells_the_end_is_told_from_one_that_misleads() -> None:
    by_way = rows("\n".join(table(curves(12))))
    assert by_way["raw"][2].startswith("-1.00 (-1.00 to -1.00)")
    assert by_way["averaged"][2].startswith("1.00 (1.00 to 1.00)") and by_way["averaged"][3].startswith("+2.00")
    assert -0.9 < float(by_way["annealed"][2].split()[0]) < 0.9
    # The best third of the latest weights are the four worst at the end.
    assert by_way["raw"][6] == "8.0" and by_way["averaged"][6] == "0.0"
    assert by_way["averaged"][7] == "9%"  # a look of one second at ten of training
    # Of the best third the rung says the same.
    assert by_way["raw"][4].startswith("-1.00") and by_way["averaged"][5].startswith("+2.00")


def test_letters_rank_recipes_whose_words_are_all_wrong() -> None:
    trials = [{"params": {"lr": i}, "seed": 0, "epochs": [
        {"raw": 1.0, "averaged": 1.0 + 0.1 * (i % 3), "cer": 0.5 + 0.01 * i},
        {"raw": 1.0, "averaged": 0.6 + 0.01 * i, "cer": 0.3 + 0.01 * i}]} for i in range(12)]
    known = Recording(**vars(curves(12)) | {"trials": trials})
    lines = [*table_of_rates(known)]
    assert lines[0].startswith("12 recipes; 0 of them end at a WER of 100 %")
    cells = {row[1]: row[2:] for row in (line.strip("| ").split(" | ") for line in lines if line.startswith("| 1 "))}
    assert cells["WER"][0].startswith("0.00 (0.00 to 0.00)")
    for rate in ("CER", "both"):
        assert cells[rate][0].startswith("1.00") and cells[rate][1].startswith("+1.00 (1.00 to 1.00)")
    assert not [*table_of_rates(curves(12))], "a recording from before knows no letters"


def test_other_seeds_of_a_recipe_and_failed_trainings_count_for_nothing() -> None:
    known = curves(12)
    more = [*known.trials, known.trials[3] | {"seed": 1}, known.trials[4] | {"params": {"lr": 99}, "epochs": []}]
    assert next(table(Recording(**vars(known) | {"trials": more}))).startswith("c: 12 recipes of 2 epochs")
    with pytest.raises(CurvesError, match="4 recipes were trained to the end; a correlation needs 5"):
        next(table(curves(4)))


@pytest.mark.parametrize("name", ["c.json", "c.json.gz"])
def test_curves_come_back_as_they_were_saved(tmp_path: Path, name: str) -> None:
    save_recording(curves(5), tmp_path / name)
    assert load_recording(tmp_path / name) == curves(5)
    assert curves(5).rungs == [1] and len(curves(5).whole) == 5


@pytest.mark.parametrize(("content", "said"), [
    (None, "No such file"), (b"{", "no readable file of curves"), (b"[]", "no readable file of curves"),
    (b'{"version": 7}', "format 7; this reads format 1"), (b'{"version": 1}', "the curves lack something")])
def test_file_that_holds_no_curves_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CurvesError, match=said):
        load_recording(path)


def test_branch_leaves_the_trial_as_it_was(tmp_path: Path) -> None:
    context, job = make_context(tmp_path), Job(id="alone", recipe=RECIPE, seed=3)
    train(job, context, Link(), time.time())
    train(replace(job, id="branched"), context, Branching(context.folder / "branched", context, [1]), time.time())
    states = [torch.load(context.folder / name / "last.ckpt", weights_only=True)["state_dict"]
              for name in ("alone", "branched")]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    found = curve(context.folder / "branched", {"lr": 1}, 3)["epochs"]
    assert np.isfinite(found[0]["annealed"]) and found[0]["branch_s"] > 0 and found[1]["annealed"] is None
    record = TrialRecord.load(context.folder / "branched")
    assert [epoch["averaged"] for epoch in found] == [epoch["wer"] for epoch in record.epochs]
    assert [epoch["cer"] for epoch in found] == [epoch["cer"] for epoch in record.epochs]
    assert json.loads((context.folder / "branched" / "branch-1.json").read_text())["look_s"] > 0
