"""The report of a study: one self-contained page, drawn from a run's folder.

The study may be running, finished or killed; the page says what is not known yet.
"""

import html
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
import plotly.io
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from files.atomic import write_aside
from models.mistakes import align
from search.config import ConfigError, StudyConfig, load_config
from search.records.files import damage_named, read_json
from search.records.measured import Example, Importance, Look
from search.records.run_folder import check_database
from search.records.shell_words import command, quoted
from search.records.trial_record import TrialRecord
from search.results import figures
from search.results.cautions import TITLES
from search.results.data_scaling import scaling_lines
from search.results.figures import Shown
from search.results.importance import importance, importance_line
from search.results.run_summary import RunSummary, StudySummary, load_summary
from search.results.statistics import with_interval
from search.results.summary import earlier_winner
from search.speech.evaluate_test import read_looks
from search.training_config import SHARED, TrainingConfig
from search.tuning.optuna_study import open_study, trial_id
from search.wording import counted
from spaces.recipe import Recipe

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; font-size: 1.25rem; } .lead { font-size: 1.15rem; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid #ddd; padding: .2rem .8rem; text-align: left;
  vertical-align: top; } .wide { overflow-x: auto; margin-bottom: 1rem; } .broad { min-width: 56rem; }
.number td:not(:first-child) { text-align: right; }
pre, code { background: #f6f6f4; } pre { padding: 1rem; overflow-x: auto; white-space: pre-wrap; }
.said { margin: .2rem 0 1rem; line-height: 2.1; } .said span { margin-right: .35em; }
.replace { background: #ffe6b3; } .delete { background: #ffd0d0; } .insert { background: #d3efd3; }
.replace s, .delete s { color: #a33; } small { color: #666; }
@media (max-width: 40rem) { body { font-size: 15px; margin: 1rem auto; } td, th { padding: .2rem .4rem; } }
"""

_HEIGHT = 420

MAX_OPEN = 20
"""With more rows, the table of trials is folded."""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder, aside and renamed, and return its path.

    Raises:
        ConfigError: the folder holds no study, or a damaged one.
    """
    if not (run / "study.db").exists():
        raise ConfigError(f"{run}: there is no study here (study.db is missing), and no production training. Name the "
                          "folder of a run.")
    check_database(run)
    study = open_study(run / "study.db", seed=0)
    summary = load_summary(StudySummary, run)
    trials = [shown for trial in study.trials if (shown := _shown(trial, run))]
    epoch = figures.fair_epoch(trials)
    at = f"<p><small>Compared after epoch {epoch}, the last that half of the trials reached.</small></p>" * bool(epoch)
    is_any_above = any(wer > figures.CEILING for trial in trials for wer in trial.wers.values())
    above = f" Error rates above {figures.CEILING:.0%} are drawn at it, here and below." * is_any_above
    with damage_named(run / "summary.json"):
        found = _found(summary, trials)
        more = _more_speech(summary)
        mattered = _importance((summary and summary.importance) or importance(study.trials, seed=0))
    sections = [
        f"<h1>Study {html.escape(run.name)}</h1>", found,
        section("Learning curves", figure(figures.learning_curves(trials, summary.winner if summary else None)),
                 "<p><small>Dotted lines that end in a cross were stopped; the thick one is the winner."
                 f"{above}</small></p>"),
        section("Parallel coordinates", "<div class=wide><div class=broad>",
                 figure(figures.parallel_coordinates(trials, epoch)), "</div></div>", at),
        section("What mattered", mattered),
        *([section("More speech", more)] if more else []),
        section("Learning rates", figure(figures.learning_rates(trials, epoch)), at),
        section("What it costs", figure(figures.trade_offs(trials))),
        *looked(run, summary),
        section("The corpus", corpus_section(run / "corpus_report.json")),
        section("Do it again", _command(run)),
        section("All figures", _card(run)),
        section("Trials", _trials(study, trials)),
    ]
    return write_page(run, sections)


# --- what was found -------------------------------------------------------------------------------------------------


def _found(summary: StudySummary | None, trials: Sequence[Shown]) -> str:
    """The answer in a few sentences."""
    if not summary:
        running = sum(trial.state == "running" for trial in trials)
        best = min((min(trial.wers.values()) for trial in trials if trial.wers), default=None)
        so_far = f" The lowest dev {trials[0].title} so far is {best:.1%}." if best is not None else ""
        return (f"<p class=lead>The study has not named a winner yet: {counted(len(trials), 'trial')}, {running} of "
                f"them open.{so_far}</p>")
    winner = summary.winner_is_hand_recipe or Recipe.from_flat(summary.recipe).in_short()
    sentences = [f"Careful: {said}." for said in summary.cautions] + [f"Trial {summary.winner} won ({winner})."]
    look, earlier = summary.test, earlier_winner(summary)
    if look:
        rates, before = look.winner, look.source_as_it_stands
        beside = f"; the unchanged source {before.wer:.1%} and {before.cer:.1%}" if before else ""
        whose = f"{earlier}, an earlier winner," if earlier else "it"
        sentences.append(f"On {counted(look.clips, 'test clip')} {whose} gets {with_interval(rates, 'wer')} of the "
                         f"words wrong and {with_interval(rates, 'cer')} of the letters{beside}.")
    if not look or earlier:
        sentences.append(f"On dev, where it was chosen, it gets {summary.dev.wer:.1%} of the words wrong and "
                         f"{summary.dev.cer:.1%} of the letters.")
    sentences.append(f"Compared with others: {summary.verdict}.")
    bought = next((variant for variant in summary.transfer if variant.variant == "from scratch"), None)
    if bought and (value := bought.rate(summary.objective)) is not None:
        rate = f"{TITLES[summary.objective]} {value:.1%}"
        sentences.append(f"From random weights the same recipe has {rate} on dev in as many epochs: "
                         f"{bought.said}.")
    return f"<p class=lead>{html.escape(' '.join(sentences))}</p>"


def _importance(shares: Importance) -> str:
    """The line of the card, and bars if there are enough trials."""
    line = f"<p>{html.escape(importance_line(shares))}</p>"
    return line if shares.why_none else line + figure(figures.shares(shares))


def _more_speech(summary: StudySummary | None) -> str:
    """What more speech would give, and the law that says so; empty if it was not asked for."""
    if not summary or not summary.data_scaling:
        return ""
    said = " ".join(line.strip() for line in scaling_lines(summary.data_scaling, summary.objective))
    line = f"<p>{html.escape(said)}.</p>"
    return line + figure(figures.more_speech(summary.data_scaling, TITLES[summary.objective]))


# --- what it gets wrong ---------------------------------------------------------------------------------------------


def looked(run: Path, summary: RunSummary | None, model: str = "the winner") -> list[str]:
    """The mistakes and transcripts of the last evaluation on test, by the model's name; empty before it."""
    looks = read_looks(run / "test.json")
    if not looks:
        return []
    with damage_named(run / "summary.json"):
        earlier = earlier_winner(summary)
    whose = f"<p>Of {html.escape(earlier)}, an earlier winner.</p>" if earlier else ""
    with damage_named(run / "test.json"):
        return _look(looks[-1], whose, model)


def _look(look: Look, whose: str, model: str) -> list[str]:
    sections = []
    if wrong := look.mistakes:
        sections.append(section("Most often wrong, on test", whose,
                                 figure(figures.mistakes(wrong.winner, wrong.source_as_it_stands, model))))
    legend = ("<p><small><span class=replace><s>was</s> heard</span> another word, <span class=delete><s>missed</s>"
              "</span>, <span class=insert>put in</span></small></p>")
    said = [_transcript(example, model) for example in look.examples or []]
    return [*sections, section("Test transcripts", whose, legend, *said)]


def _transcript(example: Example, model: str = "the winner") -> str:
    """A reference with the model's transcript, and the source's before."""
    said = f"<p class=said><small>{model}</small> {_aligned(example.reference, example.hypothesis)}"
    if example.before is not None:
        said += f"<br><small>unchanged source</small> {_aligned(example.reference, example.before)}"
    return said + "</p>"


def _aligned(reference: str, hypothesis: str) -> str:
    """Aligned words, coloured by edit operation."""
    words = []
    for operation, was, heard in align(reference.split(), hypothesis.split()):
        gone = f"<s>{html.escape(was)}</s> " if was and operation != "equal" else ""
        words.append(f"<span class={operation}>{gone}{html.escape(heard)}</span>")
    return "".join(words)


# --- what it was made of --------------------------------------------------------------------------------------------


def corpus_section(path: Path) -> str:
    """What `corpus_report.json` tells: splits, clips left out, changes of the text, and vocabularies."""
    if not path.exists():
        return "<p>The corpus is not prepared yet.</p>"
    report = read_json(path)
    with damage_named(path):
        return _corpus(report)


def _corpus(report: dict[str, Any]) -> str:
    splits = [[name, split["clips"], f"{split['hours']:.2f}", split["speakers"]]
              for name, split in report["splits"].items()]
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in report["left_out_by_reason"].items())
    num_out, found = report["clips_left_out"], counted(report["clips_found"], "clip")
    left_out = f"<p>{num_out} of {found} {'is' if num_out == 1 else 'are'} left out{': ' if reasons else ''}"
    shared = "".join(f"<p>{html.escape(said)}</p>" for said in report.get("overlap", {}).get("said", []))
    changed = [[kind.replace("_", " "), change["clips"], *change["examples"][0].values()]
               for kind, change in report.get("text", {}).get("changes", {}).items()]
    kinds = [[f"{row['kind']} {row['size'] or ''}", row["num_labels"], f"{row['infeasible_share']:.1%}",
              row["error"] or ""] for row in report["vocabularies"]]
    return (table(["split", "clips", "hours", "speakers"], splits, "number")
            + f"{left_out}{html.escape(reasons)}.</p>{shared}"
            + (table(["what is changed in the text", "clips", "such as", "which is then"], changed) if changed else "")
            + table(["vocabulary", "labels", "clips that CTC cannot align", "why it is out"], kinds, "number"))


def _command(run: Path) -> str:
    """The commands that train the winner again and run the study again."""
    again = "python search/run.py --config " + quoted(run / "config.yaml") + " --out runs/again"
    config = load_config(run) if (run / "config.yaml").exists() else None
    winner = command("python", "search/train.py", run / "best" / "recipe.yaml", "--average-last", "0",
                     *(_flags(config) if config else []))
    lines = [winner, again] if (run / "best").exists() else [again]
    seed = f"<p><small>Seed {config.seed}; the winner's is in its recipe.yaml.</small></p>" if config else ""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>{seed}"


def _flags(config: StudyConfig) -> list[str]:
    """The settings of a study that its trainings depend on, as flags of train.py."""
    given = {"workers": config.workers_per_trial} | {name: getattr(config, name) for name in SHARED if name != "out"}
    usual = {field.name: field.default for field in fields(TrainingConfig)}
    return [part for name, value in given.items() if value != usual[name]
            for part in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))]


def _card(run: Path) -> str:
    path = run / "best" / "card.txt"
    if path.exists():
        return f"<pre>{html.escape(path.read_text(encoding='utf-8', errors='replace'))}</pre>"
    return "<p>They are written when the winner is named.</p>"


def _trials(study: optuna.Study, shown: Sequence[Shown]) -> str:
    rows, rates = [], {trial.name: trial.wers for trial in shown}
    for trial in study.trials:
        values = rates.get(trial_id(trial.number), {})
        parameters = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
        reason = trial.user_attrs.get("reason") or trial.user_attrs.get("infeasible") or ""
        rows.append([trial_id(trial.number), trial.state.name.lower(), len(values),
                     f"{min(values.values()):.1%}" if values else "", parameters, reason])
    title = shown[0].title if shown else "WER"
    listed = table(["trial", "state", "epochs", f"best dev {title}", "recipe", "reason"], rows)
    return listed if len(rows) <= MAX_OPEN else f"<details><summary>all {len(rows)}</summary>{listed}</details>"


# --- the page -------------------------------------------------------------------------------------------------------


def write_page(run: Path, sections: Sequence[str]) -> Path:
    """Write `report.html` of these sections into a run's folder, and return its path."""
    page = ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script>"
            f"{''.join(sections)}</html>")
    write_aside(run / "report.html", page.encode())
    return run / "report.html"


def _shown(trial: optuna.trial.FrozenTrial, run: Path) -> Shown | None:
    """A trial for the figures; None if it was never trained."""
    if "recipe" not in trial.user_attrs or trial.state == TrialState.WAITING or "infeasible" in trial.user_attrs:
        return None
    folder = run / "trials" / trial_id(trial.number)
    record = TrialRecord.load(folder) if (folder / "record.json").exists() else None
    wers = {epoch.epoch: epoch[record.metric] for epoch in record.epochs if epoch.epoch in trial.intermediate_values
            } if record else {}
    return Shown(name=trial_id(trial.number), recipe=Recipe.from_dict(trial.user_attrs["recipe"]),
                 title=TITLES[record.metric if record else "wer"], wers=wers,
                 state=trial.state.name.lower().replace("fail", "failed"),
                 hand_recipe=trial.user_attrs.get("hand_recipe"), record=record)


def section(title: str, *parts: str) -> str:
    """A heading and its content."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def figure(drawn: go.Figure | None) -> str:
    """The figure as HTML, as wide as the page; plotly's script is in the page's head."""
    if drawn is None:
        return "<p>There are too few trials to draw this.</p>"
    drawn.update_layout(template="plotly_white", height=drawn.layout.height or _HEIGHT,
                        margin=drawn.layout.margin if drawn.layout.margin.t is not None else
                        {"l": 50, "r": 15, "t": 40, "b": 50})
    return str(plotly.io.to_html(drawn, full_html=False, include_plotlyjs=False,
                                 config={"responsive": True, "displayModeBar": False}))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "") -> str:
    """An HTML table; `number` right-aligns all but the first column."""
    head = "".join(f"<th>{html.escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<div class=wide><table class='{kind}'><tr>{head}{body}</table></div>"
