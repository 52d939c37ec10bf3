"""Draw a finished or running study: report.html, one self-contained page. Also `python search/report.py RUN`."""

import sys
from pathlib import Path

if __name__ == "__main__":  # the root in place of search/, so that `models` and `spaces` are ours
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import html
import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
import plotly.io
from optuna.trial import TrialState

from search.config import ConfigError
from search.final_look import read_looks
from search.folder import check_database
from search.importance import importance, importance_line
from search.sampler import open_study, trial_id

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid #ddd; padding: .2rem .8rem; text-align: left; }
pre { background: #f6f6f4; padding: 1rem; overflow-x: auto; white-space: pre-wrap; }
"""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder, aside first and then renamed, and return its path.

    Raises:
        ConfigError: the folder holds no study, or a damaged one.
    """
    if not (run / "study.db").exists():
        raise ConfigError(f"{run}: there is no study here (study.db is missing). Name the folder of a run.")
    check_database(run)
    study = open_study(run / "study.db", seed=0)
    sections = [f"<h1>Study {html.escape(run.name)}</h1>", _card(run), "<h2>Learning curves</h2>",
                _figure(learning_curves(study), first=True)]
    sections += ["<h2>Parallel coordinates</h2>", _parallel(study), "<h2>What mattered</h2>",
                 _importance(_what_mattered(run, study))]
    sections += ["<h2>Test transcripts</h2>", _examples(run), "<h2>Trials</h2>", _trials(study)]
    page = ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style>{''.join(sections)}</html>")
    aside = run / "report.html.part"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, run / "report.html")
    return run / "report.html"


def learning_curves(study: optuna.Study) -> go.Figure:
    """Word error rate by epoch, a line a trial; a stopped trial is dotted and ends in a cross."""
    figure = go.Figure(layout={"xaxis_title": "epoch", "yaxis_title": "dev WER", "yaxis_tickformat": ".0%"})
    for trial in study.trials:
        epochs = sorted(trial.intermediate_values)
        if not epochs:
            continue
        is_stopped = trial.state == TrialState.PRUNED
        name = trial.user_attrs.get("hand_recipe") or trial.params.get("optimizer", "")
        symbols = ["circle"] * (len(epochs) - 1) + ["x" if is_stopped else "circle"]
        figure.add_scatter(x=epochs, y=[trial.intermediate_values[e] for e in epochs], mode="lines+markers",
                           name=f"{trial_id(trial.number)} {name}", line={"dash": "dot" if is_stopped else "solid"},
                           marker={"symbol": symbols})
    return figure


MIN_COMPLETE = 3
"""Trials trained to the end below which parallel coordinates say nothing."""


def _parallel(study: optuna.Study) -> str:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if len(complete) < MIN_COMPLETE:
        return f"<p>{len(complete)} trials ran to the end; from {MIN_COMPLETE} on this is drawn.</p>"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _figure(optuna.visualization.plot_parallel_coordinate(study))
        except (ValueError, RuntimeError) as error:  # Optuna refuses where no parameter is shared or none varies
            return f"<p>Not drawn: {html.escape(str(error))}</p>"


def _what_mattered(run: Path, study: optuna.Study) -> dict[str, Any]:
    """What the summary says, and so the card; a study without one is looked at now."""
    path = run / "summary.json"
    known = json.loads(path.read_text(encoding="utf-8")).get("importance") if path.exists() else None
    return known or importance(study.trials, seed=0)


def _importance(figures: dict[str, Any]) -> str:
    """A bar for each choice with its 90 % interval, where enough trials can tell; the line of the card."""
    line = f"<p>{html.escape(importance_line(figures))}</p>"
    if figures["why_none"]:
        return line
    shares = sorted(figures["shares"].items(), key=lambda item: item[1]["share"])
    means = [share["share"] for _, share in shares]
    bars = go.Bar(x=means, y=[name for name, _ in shares], orientation="h", error_x={
        "type": "data", "symmetric": False, "array": [s["high"] - s["share"] for _, s in shares],
        "arrayminus": [s["share"] - s["low"] for _, s in shares]})
    return line + _figure(go.Figure(bars, layout={"xaxis_title": "share of what the choices explain",
                                                  "xaxis_tickformat": ".0%"}))


def _figure(figure: go.Figure, first: bool = False) -> str:
    """The figure as HTML; the first one carries plotly's script for all."""
    return str(plotly.io.to_html(figure, full_html=False, include_plotlyjs=first))


def _card(run: Path) -> str:
    path = run / "best" / "card.txt"
    if path.exists():
        return f"<pre>{html.escape(path.read_text(encoding='utf-8'))}</pre>"
    return "<p>The study has not named a winner yet.</p>"


def _examples(run: Path) -> str:
    examples = [example for look in read_looks(run / "test.json")[-1:] for example in look["examples"]]
    return _table(["reference", "heard"], [[e["reference"], e["hypothesis"]] for e in examples])


def _trials(study: optuna.Study) -> str:
    rows = []
    for trial in study.trials:
        values = trial.intermediate_values
        parameters = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
        reason = trial.user_attrs.get("reason") or trial.user_attrs.get("infeasible") or ""
        rows.append([trial_id(trial.number), trial.state.name.lower(), len(values),
                     f"{min(values.values()):.1%}" if values else "", parameters, reason])
    return _table(["trial", "state", "epochs", "best dev WER", "recipe", "reason"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


if __name__ == "__main__":
    from search.commands import report

    sys.exit(report())
