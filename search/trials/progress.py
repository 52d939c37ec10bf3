"""The display while trials run: a live table on a terminal, plain lines elsewhere."""

import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.records.job import Job
from search.task import Measures
from search.trials.budget import Amounts, Budget

ROWS_ENDED = 8
"""Ended trials in the table, the best ones."""

REDRAWS_PER_S = 2

NARROWEST_RECIPE = 8
"""Fewest letters for a readable recipe."""

GAP = 2
"""Spaces between columns."""


@dataclass
class _Row:
    """A trial in the table."""

    name: str
    epochs: int
    """Epochs of its recipe."""
    recipe: str
    result: dict[str, Any] = field(default_factory=dict)
    """Its latest epoch."""
    state: str = "running"
    since: float = field(default_factory=time.monotonic)


class Progress(tune.Callback):
    """Tracks the number of trials, the best so far, and the time left at this pace."""

    def __init__(self, measures: Measures, total: int, budget: Budget | None = None,
                 so_far: tuple[int, float] = (0, math.inf)) -> None:
        self._measures, self._budget = measures, budget
        self._total, self._started_at = total, time.time()
        self._done, self._best = so_far
        self._done_before = self._done

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """Process one epoch, or one that a resumed trial reports again."""
        self._best = min(self._best, result[self._measures.best])
        self.show_epoch(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that ended."""
        self.show_end(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that failed."""
        self.show_end(trial)

    def show_epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """Show one epoch."""

    def show_end(self, trial: Any) -> None:
        """Count a trial and show that it ended."""
        self._done += 1

    def close(self) -> None:
        """Leave the display as it is."""

    def standing(self, result: dict[str, Any], epochs: int) -> str:
        """Trials done, the best so far, and the time left, in words."""
        metric = self._measures.minimised
        return (f"best {metric.title} {metric.text(self._best)}, {self._done}/{self._total} trials done"
                f"{self._eta(result, epochs)}")

    def spent(self) -> str:
        """Spent and left of the budget; empty if there is none."""
        return self._budget.line() if self._budget else ""

    def _eta(self, result: dict[str, Any], epochs: int) -> str:
        if self._total - self._done_before == 1:
            left_s = result["train_s"] / result["epoch"] * (epochs - result["epoch"])
        elif self._done_before < self._done < self._total:
            pace_s = (time.time() - self._started_at) / (self._done - self._done_before)
            left_s = pace_s * (self._total - self._done)
        else:
            return ""
        if self._budget and not self._budget.has_room(Amounts(wall_s=left_s)):
            return ""  # the budget ends first, and says how much of it is left
        return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"


class ProgressLines(Progress):
    """Prints a line for each epoch."""

    def show_epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """Print one epoch, once."""
        if not result["is_new"]:
            return
        epochs, spent = _epochs(trial), self.spent()
        figures = "".join(f"{metric.title} {metric.text(result[metric.name])}  " for metric in self._measures.shown)
        print(f"trial {result['trial']}  epoch {result['epoch']}/{epochs}  {figures}| "
              f"{self.standing(result, epochs)}{' | ' if spent else ''}{spent}", flush=True)


class LiveTable(Progress):
    """A table of running trials and the best ended ones, redrawn in place."""

    def __init__(self, measures: Measures, total: int, budget: Budget | None = None,
                 so_far: tuple[int, float] = (0, math.inf), console: Console | None = None) -> None:
        super().__init__(measures, total, budget, so_far)
        first, *others = (metric.title for metric in measures.shown)
        self._columns = ("trial", "", "epoch", first, "best", *others, "speed")
        """Columns of figures, never cut; the recipe takes the rest of the line."""
        self._given_up = ("speed", "", "best", *reversed(others))
        """Columns that are dropped on a narrow terminal, the first one first."""
        self._rows: dict[str, _Row] = {}
        self._console = console
        self._live: Live | None = None
        self._last: tuple[dict[str, Any], int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of its callbacks; a screen cannot be copied."""
        return self.__dict__ | {"_live": None, "_console": None}

    def setup(self, *args: Any, **info: Any) -> None:
        """Start drawing."""
        console = self._console or Console()
        # Other output appears above the table.
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=REDRAWS_PER_S)
        self._live.start()

    def close(self) -> None:
        """Leave the table as it is at the end."""
        if self._live:
            self._live.stop()
            self._live = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Add a trial, or continue its row."""
        job = Job.of(trial.config)
        row = self._rows.setdefault(job.id, _Row(job.id, job.recipe.training.epochs, job.recipe.in_short()))
        row.state = "running"

    def show_epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """Add an epoch."""
        self._last = result, _epochs(trial)
        self._rows[result["trial"]].result = result

    def show_end(self, trial: Any) -> None:
        """Close a trial's row."""
        super().show_end(trial)
        row = self._rows.get(Job.of(trial.config).id)
        if row:
            epoch = row.result.get("epoch", 0)
            row.state = "done" if epoch >= row.epochs else "stopped" if epoch else "failed"

    def table(self) -> "_Drawn":
        """The drawing, at the terminal's current size."""
        return _Drawn(self)

    def draw(self, width: int, height: int) -> list[Table | Text]:
        """The trials and the summary lines, in this many columns and lines."""
        rows = list(self._rows.values())
        running = [row for row in rows if row.state == "running"]
        ended = sorted((row for row in rows if row.state != "running"),
                       key=lambda row: row.result.get(self._measures.best, math.inf))
        said = [*([self.standing(*self._last)] if self._last else []), self.spent()]
        # Its head, and the line that counts the hidden ones, take one each.
        room = max(1, height - 2 - sum(math.ceil(len(line) / width) for line in said))
        shown = (running + ended[:ROWS_ENDED])[:room]
        more = {"run": len(running) - min(len(running), room), "ended": len(ended)}
        more["ended"] -= sum(row.state != "running" for row in shown)
        hidden = ", ".join(f"{count} more {what}" for what, count in more.items() if count)
        return [self._grid(shown, width), *(Text(line, style="dim") for line in (hidden, *said) if line)]

    def _grid(self, rows: list[_Row], width: int) -> Table:
        cells = [self._cells(row) for row in rows]
        widths = {name: max(map(len, [name, *(row[name] for row in cells)])) for name in self._columns}
        names = list(self._columns)
        for name in self._given_up:
            if sum(widths[name] + GAP for name in names) - GAP > width:
                names.remove(name)
        left = width - sum(widths[name] + GAP for name in names)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for name in names:
            table.add_column(name, justify="left" if name in ("trial", "") else "right", no_wrap=True,
                             min_width=widths[name])
        if left >= NARROWEST_RECIPE:
            table.add_column("recipe", no_wrap=True, overflow="ellipsis", max_width=left)
            names.append("recipe")
        for row, by_name in zip(rows, cells, strict=True):
            style = "green" if row.result.get(self._measures.best) == self._best else ""
            table.add_row(*(by_name[name] for name in names), style=style)
        return table

    def _cells(self, row: _Row) -> dict[str, str]:
        """A trial by column."""
        result, measures = row.result, self._measures
        cells = dict.fromkeys(self._columns, "") | {"trial": row.name, "": row.state, "epoch": f"0/{row.epochs}",
                                                    "recipe": row.recipe}
        if result:
            cells |= {"epoch": f"{result['epoch']}/{row.epochs}", "speed": f"{measures.speed.of(result):.0f}x",
                      "best": measures.minimised.text(result[measures.best])}
            cells |= {metric.title: metric.text(result[metric.name]) for metric in measures.shown}
        return cells


@dataclass(frozen=True)
class _Drawn:
    """A table that takes its size when it is drawn, because the terminal may be resized."""

    of: LiveTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.of.draw(options.max_width, options.size.height)


def progress(measures: Measures, total: int, budget: Budget | None,
             so_far: tuple[int, float] = (0, math.inf)) -> Progress:
    """A live table if standard output is a terminal that can be drawn on again, otherwise lines."""
    can_redraw = sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return (LiveTable if can_redraw else ProgressLines)(measures, total, budget, so_far)


def _epochs(trial: Any) -> int:
    return Job.of(trial.config).recipe.training.epochs
