"""The report's figures, drawn with plotly from a study's trials."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.records.measured import DataScaling, Importance
from search.records.trial_record import TrialRecord
from spaces.recipe import Recipe

MIN_PARALLEL = 3
"""Fewest trials for parallel coordinates."""

MAX_NAMED = 12
"""With more trials, a legend would be longer than its figure; it then names optimizers."""

LONGEST_TICK = 12
"""Letters of a category before it would overlap the next axis."""

MAX_TICKED = 12
"""Most epochs with a tick each."""

PERCENT = "~%"
"""As many digits as the ticks of an axis need to differ: those of a narrow one are 100%, 100.5%, 101%."""

CEILING = 1.1
"""Higher error rates are drawn here: one recipe that inserts many words would flatten all other curves."""

COLOURS = {"novograd": "#636efa", "adamw": "#ef553b", "lion": "#00a277", "lamb": "#ab63fa"}
GREY = "#999999"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A trial as shown in the figures."""

    name: str
    recipe: Recipe
    wers: dict[int, float]
    """Dev error rate by epoch, of the epochs that the search knows."""
    state: str
    """complete, pruned, running or failed."""
    title: str = "WER"
    """The error rate that the study minimises."""
    hand_recipe: str | None = None
    record: TrialRecord | None = None

    @property
    def label(self) -> str:
        """The trial's name in a legend."""
        return f"{self.name} {self.hand_recipe or self.recipe.optimizer.name}"

    @property
    def is_stopped(self) -> bool:
        """Whether a rung ended it."""
        return self.state == "pruned"

    @property
    def colour(self) -> str:
        """The colour of its optimizer."""
        return COLOURS.get(self.recipe.optimizer.name, GREY)


def learning_curves(trials: Sequence[Shown], winner: str | None = None) -> go.Figure:
    """Error rate by epoch, one line per trial in its optimizer's colour; stopped ones are dotted, with a cross."""
    figure = go.Figure(layout={"xaxis_title": "epoch", "yaxis_title": f"dev {_title(trials)}",
                               "yaxis_tickformat": PERCENT, "showlegend": True,
                               "legend": {"orientation": "h", "y": -0.2}})
    named = set()
    for trial in trials:
        epochs = sorted(trial.wers)
        name = trial.label if len(trials) <= MAX_NAMED else trial.recipe.optimizer.name
        if epochs:
            symbols = ["circle"] * (len(epochs) - 1) + [_symbol(trial)]
            figure.add_scatter(
                x=epochs, y=_drawn(trial.wers[epoch] for epoch in epochs), mode="lines+markers", name=name,
                legendgroup=name, showlegend=name not in named, hovertext=f"{trial.label} {trial.recipe.in_short()}",
                marker={"symbol": symbols, "color": trial.colour},
                line={"dash": "dot" if trial.is_stopped else "solid", "color": trial.colour,
                      "width": 4 if trial.name == winner else 1.5})
            named.add(name)
    return figure.update_xaxes(dtick=_epoch_step(epoch for trial in trials for epoch in trial.wers))


def _title(trials: Sequence[Shown]) -> str:
    return trials[0].title if trials else "WER"


def training_curve(record: TrialRecord) -> go.Figure:
    """Error rates of one training by epoch, a star at the best one."""
    figure = go.Figure(layout={"xaxis_title": "epoch", "yaxis_title": "dev", "yaxis_tickformat": PERCENT,
                               "legend": {"orientation": "h", "y": -0.2}})
    epochs = [epoch.epoch for epoch in record.epochs]
    for name, wers, dash, colour in (
            ("WER", [epoch["wer"] for epoch in record.epochs], "solid", COLOURS["novograd"]),
            ("WER of the latest weights", [epoch["latest_wer"] for epoch in record.epochs], "dot", COLOURS["novograd"]),
            ("CER", [epoch["cer"] for epoch in record.epochs], "solid", COLOURS["lion"])):
        stars = ["star" if record.best and name == "WER" and epoch == record.best.epoch else "circle"
                 for epoch in epochs]
        figure.add_scatter(x=epochs, y=_drawn(wers), name=name, mode="lines+markers",
                           line={"dash": dash, "color": colour},
                           marker={"symbol": stars, "size": [14 if star == "star" else 6 for star in stars]})
    return figure.update_xaxes(dtick=_epoch_step(epochs))


def _epoch_step(epochs: Iterable[int]) -> int | None:
    """Epochs between ticks; None if plotly's own ticks are at whole epochs."""
    return 1 if max(epochs, default=0) <= MAX_TICKED else None


def fair_epoch(trials: Sequence[Shown]) -> int:
    """The last epoch that at least half of the trials reached, at which they can be compared; 0 without any."""
    reached = Counter(epoch for trial in trials for epoch in trial.wers)
    with_any = sum(bool(trial.wers) for trial in trials)
    return max((epoch for epoch, count in reached.items() if 2 * count >= with_any), default=0)


def parallel_coordinates(trials: Sequence[Shown], epoch: int) -> go.Figure | None:
    """An axis per varying choice, and the error rate after `epoch`; None if there are too few trials."""
    shown = [trial for trial in trials if epoch in trial.wers]
    if len(shown) < MIN_PARALLEL:
        return None
    flats = [trial.recipe.flat() for trial in shown]
    axes = [_axis(label, [flat[name] for flat in flats]) for name, label in AXES.items()
            if len({str(flat[name]) for flat in flats}) > 1]
    wers = _drawn(trial.wers[epoch] for trial in shown)
    axes.append({"label": f"{_title(trials)}, epoch {epoch}", "values": wers, "tickformat": PERCENT})
    lines = go.Parcoords(dimensions=axes, labelangle=-20, labelside="top",
                         line={"color": wers, "colorscale": "Viridis", "showscale": False})
    return go.Figure(lines, layout={"margin": {"l": 60, "r": 60, "t": 90, "b": 30}})


AXES = {"optimizer.name": "optimizer", "optimizer.lr": "peak rate", "schedule.name": "schedule",
        "schedule.warmup_share": "warm-up", "vocabulary.kind": "vocabulary", "vocabulary.size": "pieces",
        "transfer.decoder": "decoder", "transfer.encoder_lr_ratio": "encoder's rate",
        "transfer.frozen_epochs": "frozen epochs", "transfer.frozen_part": "frozen part",
        "transfer.layer_lr_decay": "layer decay", "transfer.source_l2": "L2 from source",
        "transfer.batchnorm": "BatchNorm",
        "training.audio_s_per_step": "seconds a step", "training.spec_augment": "SpecAugment"}
"""The choices in the parallel coordinates; more would be unreadable."""

_LOGARITHMIC = ("peak rate", "encoder's rate", "L2 from source")


def _axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    if label in _LOGARITHMIC and min(values) > 0:  # where some have no L2, that is 0
        low, high = math.log10(min(values)), math.log10(max(values))
        ticks = [low + part * (high - low) for part in (0, 0.25, 0.5, 0.75, 1)]
        return {"label": label, "values": [math.log10(value) for value in values], "tickvals": ticks,
                "ticktext": _apart([10**tick for tick in ticks])}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": label, "values": list(values)}
    options = sorted({str(value) for value in values})
    named = [textwrap.shorten(option.replace("_", " "), LONGEST_TICK, placeholder="…") for option in options]
    return {"label": label, "values": [options.index(str(value)) for value in values],
            "tickvals": list(range(len(options))), "ticktext": named}


def _apart(values: Sequence[float]) -> list[str]:
    """Values of an axis, in the fewest digits that distinguish them."""
    return next(texts for digits in range(1, 17) if len(set(texts := [f"{value:.{digits}e}" for value in values]))
                == len(set(values)))


def learning_rates(trials: Sequence[Shown], epoch: int) -> go.Figure | None:
    """Error rate after `epoch` over the peak learning rate, one panel per optimizer; None without trials."""
    shown = [trial for trial in trials if epoch in trial.wers]
    names = [name for name in COLOURS if any(trial.recipe.optimizer.name == name for trial in shown)]
    if not names:
        return None
    figure = make_subplots(cols=len(names), subplot_titles=names, shared_yaxes=True)
    for column, name in enumerate(names, 1):
        of_it = [trial for trial in shown if trial.recipe.optimizer.name == name]
        figure.add_scatter(
            x=[trial.recipe.optimizer.lr for trial in of_it], y=_drawn(trial.wers[epoch] for trial in of_it),
            mode="markers", text=[f"{trial.name} {trial.recipe.in_short()}" for trial in of_it], row=1, col=column,
            marker={"color": COLOURS[name], "symbol": [_symbol(trial) for trial in of_it]})
        figure.update_xaxes(type="log", title="peak learning rate", row=1, col=column, dtick="D2", exponentformat="e")
    figure.update_yaxes(tickformat=PERCENT)
    figure.update_yaxes(title=f"dev {_title(trials)} after epoch {epoch}", row=1, col=1)
    return figure.update_layout(showlegend=False)


def _drawn(wers: Iterable[float]) -> list[float]:
    return [min(wer, CEILING) for wer in wers]


def _symbol(trial: Shown) -> str:
    return "x" if trial.is_stopped else "circle"


def trade_offs(trials: Sequence[Shown]) -> go.Figure | None:
    """The best error rate over parameters, speed and seconds of training; None if none were recorded."""
    shown = [(trial, trial.record) for trial in trials if trial.record and trial.record.epochs]
    if not shown:
        return None
    axes = {
        "millions of parameters": [record.num_parameters / 1e6 for _, record in shown],
        "transcribes, times real time": [record.epochs[-1].metrics.get("times_real_time", 0.0) for _, record in shown],
        "seconds of training": [record.epochs[-1].train_s for _, record in shown]}
    figure = make_subplots(cols=len(axes), shared_yaxes=True)
    wers = _drawn(record.best[record.metric] for _, record in shown if record.best)
    for column, (title, values) in enumerate(axes.items(), 1):
        figure.add_scatter(x=values, y=wers, mode="markers", row=1, col=column,
                           text=[f"{trial.name} {trial.recipe.in_short()}" for trial, _ in shown],
                           marker={"color": [t.colour for t, _ in shown], "symbol": [_symbol(t) for t, _ in shown]})
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_yaxes(tickformat=PERCENT)
    figure.update_yaxes(title=f"lowest dev {_title(trials)}", row=1, col=1)
    return figure.update_layout(showlegend=False)


def shares(importance: Importance) -> go.Figure:
    """One bar per choice, with its 90 % interval."""
    ranked = sorted(importance.shares.items(), key=lambda item: item[1].share)
    means = [share.share for _, share in ranked]
    bars = go.Bar(x=means, y=[name for name, _ in ranked], orientation="h", error_x={
        "type": "data", "symmetric": False, "array": [s.high - s.share for _, s in ranked],
        "arrayminus": [s.share - s.low for _, s in ranked]})
    return go.Figure(bars, layout={"xaxis_title": "share of what the choices explain", "xaxis_tickformat": PERCENT})


def more_speech(scaling: DataScaling, title: str) -> go.Figure | None:
    """Dev error of the winner's recipe by hours of speech, measured and predicted; None with nothing to compare."""
    if len(scaling.parts) < 2:
        return None
    figure = go.Figure(go.Scatter(x=[part.hours for part in scaling.parts], y=[part.rate for part in scaling.parts],
                                  mode="markers+lines", name="measured"))
    if scaling.more:
        whole = scaling.parts[-1]
        hours = [whole.hours, *(one.hours for one in scaling.more)]
        figure.add_scatter(x=hours, y=[whole.rate, *(one.rate for one in scaling.more)], mode="markers+lines",
                           name="predicted", line={"dash": "dot"}, error_y={
            "type": "data", "symmetric": False, "array": [0.0, *(one.high - one.rate for one in scaling.more)],
            "arrayminus": [0.0, *(one.rate - one.low for one in scaling.more)]})
    figure.update_xaxes(title="hours of training speech", type="log")
    return figure.update_yaxes(title=f"dev {title}", tickformat=PERCENT, rangemode="tozero")


def mistakes(after: dict[str, Any], before: dict[str, Any] | None, model: str = "the winner") -> go.Figure:
    """The words and letters most often wrong on test, by the model and by the unchanged source."""
    figure = make_subplots(cols=2, subplot_titles=["words", "letters"], horizontal_spacing=0.2)
    for column, kind in enumerate(("words", "letters"), 1):
        units = [row["unit"] for row in after[kind]][::-1]
        for name, found, colour in (("unchanged source", before, "#c0c0c0"), (model, after, "#636efa")):
            if found:
                wrong = {row["unit"]: row for row in found[kind]}
                rows = [wrong.get(unit) for unit in units]
                figure.add_bar(y=units, x=[row["wrong"] / row["count"] if row else None for row in rows], name=name,
                               hovertext=[_instead(row) if row else "" for row in rows], orientation="h",
                               marker_color=colour, row=1, col=column, showlegend=column == 1, legendgroup=name)
    figure.update_xaxes(tickformat=PERCENT, title="share that is wrong")
    figure.update_yaxes(type="category", tickfont_size=11)
    return figure.update_layout(height=620, legend={"orientation": "h", "y": 1.1})


def _instead(row: dict[str, Any]) -> str:
    return f"{row['wrong']} of {row['count']}, as {row['heard'] or 'nothing'}"
