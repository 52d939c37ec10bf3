"""The page of a production training: ended, begun and damaged."""

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from told_study import RECIPE, finished_training, make_run, write_trial

from search.command_line.commands import report as command
from search.command_line.training_arguments import parse_training
from search.config import ConfigError
from search.records.run_folder import TRAINING
from search.results.report_page import write_report
from search.results.training_report import write_training_report
from search.training_config import TrainingConfig
from spaces.recipe import TrainingRecipe

pytestmark = pytest.mark.timeout(60)


def text_of(page: Path) -> str:
    return re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.S)


def test_ended_training_has_a_page_by_the_same_command_as_a_study(tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_training(tmp_path, "production", 0.2)
    assert command([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    page = text_of(run / "report.html")
    for said in ("<h1>Production training production</h1>", "4 epochs of adamw 3.0e-04", "On 60 test clips the model ",
                 "On dev, where its epoch was chosen, it gets ", "Most often wrong, on test", "Test transcripts",
                 "<td>optimizer.name<td>adamw", "## Measured"):
        assert said in page, said
    assert "winner" not in page


def test_command_of_the_page_trains_the_same_again(tmp_path: Path) -> None:
    run = finished_training(tmp_path, "my production", 0.2)
    recipe = replace(RECIPE, training=TrainingRecipe(epochs=7))
    recipe.save(run / "recipe.yaml")
    config = TrainingConfig(corpus=("es.tar.gz", "a b.jsonl"), source="en.nemo", epochs=7, workers=2, patience=3,
                            average_last=0, allow_overlap=True, max_duration_s=12.5, out=str(run))
    config.save(run)
    line = html.unescape(re.findall("<pre>(python search/train.py .*?)</pre>", text_of(write_training_report(run)))[0])
    again, found, *_ = parse_training(shlex.split(line)[2:])
    assert again == recipe and found.recipe(again) == recipe
    assert replace(found, out=config.out, epochs=7) == config and found.out != config.out


def test_training_that_runs_has_a_page_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    with pytest.raises(ConfigError, match="there is no study here .*, and no production training"):
        write_report(run.path)
    with pytest.raises(ConfigError, match="training.yaml is missing"):
        write_training_report(run.path)
    recipe = replace(RECIPE, training=TrainingRecipe(epochs=9))
    recipe.save(run.path / "recipe.yaml")
    TrainingConfig(corpus=("es.tar.gz",)).save(run.path)
    page = text_of(write_training_report(run.path))
    assert "not ended: 0 of 9 epochs are trained." in page and "No epoch has ended yet." in page
    record = write_trial(run.trials, "training", 0.2, recipe=recipe)
    assert record.best is not None
    page = text_of(write_training_report(run.path))
    assert f"4 of 9 epochs are trained. The lowest dev WER so far is {record.best['wer']:.1%}." in page
    (run.path / TRAINING).write_text("version: 99\n")
    with pytest.raises(ConfigError, match="version 99"):
        write_training_report(run.path)
