"""The report of a study on disk: with few trials and with many, alive and ended, and opened in a browser."""

import html
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from told_study import RECIPE, candidate, dev_texts, heard, make_run, write_trial

from models.mistakes import most_wrong
from search.command_line.training_arguments import parse_training
from search.config import ConfigError
from search.records.files import write_json
from search.records.measured import ChoiceShare, Example, Importance, Look, Mistakes, plain
from search.records.run_folder import RunFolder
from search.records.trial_record import Epoch, TrialRecord
from search.results import report_page
from search.results.ablation import ablate
from search.results.confirmation import Confirmed
from search.results.report_page import write_report
from search.results.summary import card, summarise
from search.speech.evaluate_test import score
from search.trials.interrupt import Interrupt
from search.tuning.optuna_study import open_study, trial_id
from spaces.recipe import OptimizerRecipe, Recipe, VocabularyRecipe
from spaces.typed import save_yaml

FIGURES = Importance(epoch=2, trials=90, explained=0.7, shares={
    "optimizer": ChoiceShare(share=0.6, low=0.5, high=0.75, floor=0.05),
    "vocabulary": ChoiceShare(share=0.4, low=0.25, high=0.5, floor=0.02)})

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    study = open_study(tmp_path / "study.db", seed=0)
    for wers in ((0.9, 0.8), (0.7, 0.6), (0.8,)):
        trial = study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        trial.set_user_attr("recipe", asdict(Recipe()))
        for epoch, wer in enumerate(wers, 1):
            trial.report(wer / 2, epoch)
        epochs = [Epoch(epoch=epoch, train_s=1.0, outside_s=0.0, to_first_step_s=0.0, gpu_s=0.0, metrics={
            "wer": wer, "cer": wer / 2, "rank": wer / 2, "best_wer": wer}) for epoch, wer in enumerate(wers, 1)]
        (tmp_path / "trials" / trial_id(trial.number)).mkdir(parents=True)
        TrialRecord(tmp_path / "trials" / trial_id(trial.number), Recipe(), 0, epochs=epochs).save()
        study.tell(trial, min(wers) / 2)
    failed = study.ask()
    failed.set_user_attr("reason", SCRIPT)
    study.tell(failed, state=report_page.TrialState.FAIL)
    return tmp_path


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """The folder of a study of nine trials that has ended, with all that it leaves."""
    folder, room = make_run(tmp_path)
    study = open_study(folder.path / "study.db", seed=0)
    for i in range(9):
        optimizer = OptimizerRecipe(name=("adamw", "lion", "novograd")[i % 3], lr=10.0 ** -(i % 4 + 2))
        vocabulary = VocabularyRecipe(kind="bpe", size=64) if i % 2 else VocabularyRecipe()
        recipe = replace(RECIPE, optimizer=optimizer, vocabulary=vocabulary)
        trial = study.ask()
        trial.set_user_attr("recipe", asdict(recipe))
        num_epochs = 2 if i > 4 else 4
        record = write_trial(folder.trials, trial_id(i), 0.2 + i / 20, recipe=recipe, num_epochs=num_epochs)
        record.num_parameters = 10**7 + i
        record.save()
        for epoch in range(1, num_epochs + 1):
            trial.report(0.9 - 0.1 * epoch + i / 20, epoch)
        study.tell(trial, 0.5, state=report_page.TrialState.COMPLETE) if i < 5 else study.tell(
            trial, state=report_page.TrialState.PRUNED)
    _end(folder, room)
    return folder.path


def _end(folder: RunFolder, room: Any) -> None:
    texts = [*dev_texts()[:-1], f"uno {SCRIPT} dos"]
    winner = candidate(*(write_trial(folder.trials, name, 0.2, seed=seed)
                         for seed, name in enumerate(("0000", "0000-seed1"))))
    after, before = heard(texts, 0.2, 1), heard(texts, 0.8, 2)
    wrong = most_wrong(texts, after)
    look = Look(trial=winner.best_training.id, clips=60, winner=score(texts, after, 0),
                source_as_it_stands=score(texts, before, 0),
                mistakes=Mistakes(winner=wrong, source_as_it_stands=most_wrong(texts, before, beside=wrong)),
                examples=[Example(reference=text, hypothesis=after[-1 - i], before=before[-1 - i])
                          for i, text in enumerate(texts[:-6:-1])])
    rows = [{"id": "0000", "state": "complete"}]
    confirmed = Confirmed(candidates=[winner, candidate(write_trial(folder.trials, "0001", 0.5))], left_out=[])
    confirmed, transfer = ablate(confirmed, folder, room, Interrupt(), lambda recipe: "not here")
    tested = replace(look, mistakes=None, examples=None, times_read=1)
    summary = summarise(folder, rows, confirmed, transfer, FIGURES, tested, room.budget)
    write_json(folder.path / "test.json", {"looks": [plain(look)]})
    split = {"clips": 60, "hours": 1.5, "speakers": 3, "characters": "abc"}
    write_json(folder.path / "corpus_report.json", {
        "splits": {"train": split, "dev": split, "test": split}, "clips_found": 200, "clips_left_out": 20,
        "left_out_by_reason": {"too_long": 20}, "left_out": [], "features": "x",
        "overlap": {"said": ["1 sentence and 0 speakers of dev are in train too"]},
        "text": {"clips": 180, "changes": {"digits_spelled_out": {
            "clips": 3, "found": {"3": 3}, "examples": [{"before": "3 <b>", "after": "tres b"}]}}}, "vocabularies": [
            {"kind": "bpe", "size": 64, "num_labels": 64, "infeasible_share": 0.01, "error": None}]})
    folder.best.mkdir()
    (folder.best / "card.txt").write_text(card(summary))
    save_yaml(folder.path / "config.yaml", {"version": 1} | asdict(folder.config) | {"corpus": ["es.tar.gz"],
                                                                                    "warm_start": []})


def test_small_study_is_drawn_and_says_that_importance_cannot_be_told(run: Path) -> None:
    page = write_report(run).read_text()
    assert "what mattered is unknown: 3 trials can be compared" in page
    assert "Learning curves" in page and "has not named a winner yet" in page
    assert "The lowest dev WER so far is 60.0%" in page
    assert SCRIPT not in page and "&lt;script&gt;alert" in page
    assert not (run / "report.html.part").exists()


def test_shares_are_drawn_with_their_intervals(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "importance", lambda trials, seed: FIGURES)
    page = write_report(run).read_text()
    assert "optimizer 60% (50% to 75%), vocabulary 40% (25% to 50%)" in page
    assert '"arrayminus":[0.15' in page and '"y":["vocabulary","optimizer"]' in page


def test_ended_study_tells_what_was_found_and_how_to_do_it_again(ended: Path) -> None:
    page = re.sub(r"<script>.*?</script>", "", write_report(ended).read_text(), flags=re.S)
    summary = json.loads((ended / "summary.json").read_text())
    rates = summary["test"]["winner"]
    assert (f"On 60 test clips it gets {rates['wer']:.1%} (95 %: {rates['wer_low']:.1%} to "
            f"{rates['wer_high']:.1%}) of the words wrong and {rates['cer']:.1%} (95 %: {rates['cer_low']:.1%} to "
            f"{rates['cer_high']:.1%}) of the letters") in page
    assert "Compared with others: better than runner-up 0001" in page
    assert f"python search/train.py {ended / 'best' / 'recipe.yaml'}" in page and "train</td>" not in page
    assert "20 of 200 clips are left out: 20 too long." in page and "<td>1.50" in page
    assert "Compared after epoch 4" in page and "speakers of dev are in train too" in page
    (ended / "best" / "card.txt").write_bytes(b"caf\xe9")  # saved by an editor of Windows
    assert "caf\ufffd" in write_report(ended).read_text()
    assert "<td>digits spelled out<td>3<td>3 &lt;b&gt;<td>tres b" in page


def test_figures_of_an_earlier_winner_are_not_those_of_the_winner(ended: Path) -> None:
    summary = json.loads((ended / "summary.json").read_text())
    write_json(ended / "summary.json", summary | {"exported": "0007"})
    page = write_report(ended).read_text()
    assert f"On 60 test clips {summary['exported']}, an earlier winner, gets " in page
    assert f"On dev, where it was chosen, it gets {summary['dev']['wer']:.1%} of the words wrong and " in page
    assert page.count(f"<p>Of {summary['exported']}, an earlier winner.</p>") == 2


def test_command_that_trains_the_winner_again_has_what_its_study_was_given(ended: Path) -> None:
    values = yaml.safe_load((ended / "config.yaml").read_text())
    given = {"workers_per_trial": 2, "allow_overlap": True, "max_duration_s": 12.5, "precision": "bf16",
             "cache": "/my cache"}
    save_yaml(ended / "config.yaml", values | given)
    command = re.findall("python search/train.py (.*)", write_report(ended).read_text())[-1]
    arguments = shlex.split(html.unescape(command))
    (ended / "best" / "recipe.yaml").write_text("")
    replace(RECIPE, study={"corpus": ["es.tar.gz"], "source": "none"}).save(arguments[0])
    recipe, config, *_ = parse_training(arguments)
    found = config.study(recipe)
    assert {name: getattr(found, name) for name in given} == given and config.average_last == 0
    assert "--min-duration-s" not in arguments and "--out" not in arguments


def test_study_without_a_trial_is_drawn_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    open_study(tmp_path / "study.db", seed=0)
    page = write_report(tmp_path).read_text()
    assert "has not named a winner yet: 0 trials" in page and "Compared after epoch" not in page
    (tmp_path / "corpus_report.json").write_text("{")
    with pytest.raises(ConfigError, match="corpus_report.json: .*Restore the file"):
        write_report(tmp_path)


def spoiled(values: Any, name: str, value: Any) -> Any:
    """A copy with one value, `a/0/b`, exchanged."""
    name, _, rest = name.partition("/")
    if isinstance(values, list):
        return [spoiled(one, rest, value) if rest else value for one in values]
    return values | {name: spoiled(values[name], rest, value) if rest else value}


@pytest.mark.parametrize(("name", "fields"), [
    ("summary.json", ["test", "dev", "test/winner", "test/winner/wer", "recipe", "recipe/optimizer.lr", "transfer",
                      "transfer/0/wer", "importance", "test/clips"]),
    ("test.json", ["looks", "looks/0/mistakes", "looks/0/mistakes/winner/words/0/count", "looks/0/examples/0/before"]),
    ("corpus_report.json", ["splits", "vocabularies/0/infeasible_share", "text/changes", "clips_found", "overlap"]),
    ("trials/0001/record.json", ["epochs", "epochs/0/wer", "epochs/0/best_wer", "num_parameters", "recipe"]),
])
def test_any_value_of_a_file_that_was_edited_by_hand_is_one_line(ended: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 name: str, fields: list[str]) -> None:
    monkeypatch.setattr(report_page.plotly.io, "to_html", lambda *_, **__: "")  # slow, and of no file
    values = json.loads((ended / name).read_text())
    for field in fields:
        refused = 0
        for value in (None, ["x"], {"a": 1}):
            write_json(ended / name, spoiled(values, field, value))
            try:
                write_report(ended)
            except ConfigError as error:
                refused += 1
                assert str(error).startswith(f"{ended / name}: ") and "Restore the file" in str(error)
                assert str(error).count("\n") == 0
        assert refused, field


def test_transcripts_stand_side_by_side_with_what_happened_to_each_word() -> None:
    said = report_page._transcript(Example(reference="la casa <b> roja", hypothesis="la caza roja",
                                           before="la casa <b> roja ya"))
    assert "<span class=equal>la</span><span class=replace><s>casa</s> caza</span>" in said
    assert "<span class=delete><s>&lt;b&gt;</s> </span>" in said and "<span class=insert>ya</span>" in said
    assert said.count("<span class=delete>") == 1 and said.count("<span class=equal>") == 6


@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [1200, 500])
def test_browser_without_a_network_draws_every_figure(ended: Path, width: int) -> None:
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
                   None)
    if browser is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium): the page was not opened")
    page = write_report(ended)
    page.write_text(page.read_text().replace("</html>", _PROBE + "</html>"))
    shown = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--dump-dom",
         "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},2000",
         "--virtual-time-budget=20000", f"--user-data-dir={ended / 'browser'}", page.as_uri()],
        capture_output=True, text=True, timeout=240)
    # The software renderer that stands in for a graphics card grumbles about its own speed.
    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    assert not console, console
    found = json.loads(re.findall(r'<pre id="probe">(.*?)</pre>', shown.stdout)[-1])
    assert found["drawn"] == found["figures"] == 6, found
    # curves of nine trials, then a panel each: three optimizers, three trade-offs; bars of shares and mistakes
    assert found["traces"] == {"scatter": 9 + 3 + 3, "bar": 1 + 4}, found
    assert found["parallel"] == 5, "optimizer, rate, vocabulary, pieces and WER"
    assert found["points"] > 40
    assert found["wide"] <= width and found["alerts"] == 0


_PROBE = """<pre id="probe"></pre><script>
let alerts = 0; window.alert = () => alerts++;
window.addEventListener("load", () => setTimeout(() => {
  const all = s => document.querySelectorAll(s);
  document.getElementById("probe").textContent = JSON.stringify({
    figures: all(".js-plotly-plot").length,
    drawn: [...all(".js-plotly-plot")].filter(f => f.querySelector(".main-svg")).length,
    traces: {scatter: all("g.trace.scatter").length, bar: all("g.trace.bars").length},
    points: all("path.point, g.point").length, parallel: all("g.y-axis").length,
    wide: document.documentElement.scrollWidth, alerts});
}, 5000));
</script>"""
