"""The report of a production training: its figures, its curve, its mistakes, and how to repeat it."""

import html
from dataclasses import fields
from pathlib import Path
from typing import Any

from search.config import ConfigError
from search.records.files import damage_named
from search.records.run_folder import TRAINING
from search.records.shell_words import command, quoted
from search.records.trial_record import TrialRecord
from search.results import figures
from search.results.report_page import corpus_section, figure, looked, section, table, write_page
from search.results.run_summary import TrainingSummary, load_summary
from search.results.statistics import with_interval
from search.results.summary import earlier_winner
from search.training_config import TrainingConfig, load_training
from search.wording import counted
from spaces.recipe import Recipe

RECORD = Path("trials") / "training" / "record.json"


def write_training_report(run: Path) -> Path:
    """Write `report.html` into the folder of a production training, finished or not, and return its path.

    Raises:
        ConfigError, RecipeError: the folder holds no production training, or a damaged one.
    """
    if not (run / TRAINING).exists():
        raise ConfigError(f"{run}: there is no production training here ({TRAINING} is missing). Name its folder.")
    recipe, given = load_training(run)
    record = TrialRecord.load(run / RECORD.parent) if (run / RECORD).exists() else None
    summary = load_summary(TrainingSummary, run)
    curve = figure(figures.training_curve(record)) if record and record.epochs else "<p>No epoch has ended yet.</p>"
    card = run / "best" / "card.md"
    said = html.escape(card.read_text(encoding="utf-8", errors="replace")) if card.exists() else ""
    with damage_named(run / "summary.json"):
        reached = _reached(summary, record, recipe)
    return write_page(run, [
        f"<h1>Production training {html.escape(run.name)}</h1>", reached,
        section("Learning curve", curve, "<p><small>The star is the best epoch of the averaged weights. Dotted: the "
                "latest weights, before they are averaged.</small></p>"),
        *looked(run, summary, "the model"),
        section("The corpus", corpus_section(run / "corpus_report.json")),
        section("The recipe", table(["choice", "value"], [[*item] for item in recipe.flat().items()])),
        section("Do it again", f"<pre>{html.escape(again(run, given))}</pre>", "<p>A change of recipe.yaml is judged "
                f"beside this one by <code>python search/compare.py {html.escape(quoted(run))} OTHER</code>."
                "</p>"),
        section("All figures", f"<pre>{said}</pre>" if card.exists() else
                "<p>They are written at the end.</p>"),
    ])


def _reached(summary: TrainingSummary | None, record: TrialRecord | None, recipe: Recipe) -> str:
    """The answer in a few sentences."""
    if not summary:
        epochs = len(record.epochs) if record else 0
        best = f" The lowest dev WER so far is {record.best['wer']:.1%}." if record and record.best else ""
        of, are = recipe.training.epochs, "is" if 1 in (epochs, recipe.training.epochs) else "are"
        said = f"The training has not ended: {epochs} of {counted(of, 'epoch')} {are} trained.{best}"
        return f"<p class=lead>{said}</p>"
    dev, look = summary.dev, summary.test
    early = ", ended early" * summary.ended_early
    sentences = [f"{counted(summary.epochs, 'epoch')} of {recipe.in_short()}{early}."]
    if look:
        rates, before = look.winner, look.source_as_it_stands
        beside = f"; the unchanged source {before.wer:.1%} and {before.cer:.1%}" if before else ""
        whose = "an earlier model" if earlier_winner(summary) else "the model"
        sentences.append(f"On {counted(look.clips, 'test clip')} {whose} gets {with_interval(rates, 'wer')} of the "
                         f"words wrong and {with_interval(rates, 'cer')} of the letters{beside}.")
    sentences.append(f"On dev, where its epoch was chosen, it gets {with_interval(dev, 'wer')} of the words wrong.")
    return f"<p class=lead>{html.escape(' '.join(sentences))}</p>"


def again(run: Path, given: dict[str, Any]) -> str:
    """The command that repeats the training; recipe.yaml has the epochs."""
    usual = {f.name: f.default for f in fields(TrainingConfig)} | {name: given.get(name) for name in ("epochs", "out")}
    words = ["python", "search/train.py", str(run / "recipe.yaml"), "--out", str(run) + "-again"]
    for name, value in given.items():
        if value in (usual.get(name), []):
            continue
        flag = "--" + name.replace("_", "-")
        values = ["FILE.yaml"] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        words += [flag] if value is True else [flag, *map(str, values)]
    return command(*words)
