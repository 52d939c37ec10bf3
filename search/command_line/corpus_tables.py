"""Print the corpus report: tables on a terminal, plain text elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpora.text import FOLDED
from search.speech.corpus_report import listed, origin_lines
from search.trials.budget import format_duration
from search.wording import counted

PLAIN_WIDTH = 120
"""Columns if there is no terminal to ask."""

NUM_EXAMPLES = 3
"""Clips named for each reason; the saved report names all."""

OUTSIDE = (FOLDED, "letters_dropped", "marks_dropped", "variants_made_one")
"""Kinds of change that show what the alphabet lacks."""

MAX_LISTED = 20
"""Changes listed per kind; the saved report has more."""

BAR = 30
"""Characters of the histogram's longest bar."""


def show(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the whole report."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    look = _Look(console)
    look.line(f"corpus: {', '.join(report['corpus'])} ({report['language']})")
    _show_splits(look, report)
    _show_origins(look, report.get("origins", ()))
    _show_lengths(look, report["lengths"])
    _show_characters(look, report)
    _show_vocabularies(look, report["vocabularies"])
    _show_overlap(look, report)
    _show_left_out(look, report)
    _show_estimate(look, report["estimate"])


class _Look:
    """Prints titles, tables and lines; without a terminal a table has no frame."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        """One line, without interpreting markup in it."""
        self._console.print(Text(text), soft_wrap=True)

    def section(self, text: str) -> None:
        """A line after an empty one."""
        self._console.print()
        self.line(text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]],
              text_columns: int = 1) -> None:
        """A table with a title; the first columns are text, the others numbers."""
        self.section(title)
        table = Table(box=box.SIMPLE_HEAD if self._console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
        for number, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if number < text_columns else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._console.print(table)


def _show_splits(look: _Look, report: Mapping[str, Any]) -> None:
    splits = report["splits"]
    lengths = next((list(split["length_s"]) for split in splits.values() if split["length_s"]), [])
    look.table("splits, and the length of their clips in seconds",
               ["split", "hours", "clips", "speakers", "sentences", *lengths],
               [[name, _hours(split["hours"]), split["clips"], split["speakers"], split["sentences"],
                 *(f"{seconds:.2f}" for seconds in split["length_s"].values())] for name, split in splits.items()])
    unknown = [f"{counted(split['clips_of_unknown_speakers'], 'clip')} of {name}" for name, split in splits.items()
               if split["clips_of_unknown_speakers"]]
    if unknown:
        look.line(f"speaker unknown: {', '.join(unknown)}; they may also speak in another split")


def _show_origins(look: _Look, origins: Sequence[Mapping[str, Any]]) -> None:
    look.section("where the utterances of each split come from, and why")
    for line in origin_lines(origins):
        look.line(f"  {line}")


def _show_lengths(look: _Look, lengths: Mapping[str, Any]) -> None:
    width, clips = lengths["bin_s"], lengths["clips"]
    most = max([*clips["train"], 1])
    look.table("clips by length", ["seconds", "train", *clips],
               [[f"{width * i:g} to {width * (i + 1):g}", "█" * round(BAR * clips["train"][i] / most),
                 *(counts[i] for counts in clips.values())] for i in range(len(clips["train"]))], text_columns=2)


def _show_characters(look: _Look, report: Mapping[str, Any]) -> None:
    found = report["characters"]
    look.section(f"characters of the normalised texts: {listed(found['counts'])}")
    changes: Mapping[str, Any] = report["text"]["changes"]
    outside = [f"{kind.replace('_', ' ')}: {listed(changes[kind]['found'])}" for kind in OUTSIDE if kind in changes]
    for line in outside or ["none"]:
        look.line(f"  not in the alphabet: {line}")
    if found["left_out"]:
        look.line(f"  letters for which clips are left out, by clips: {listed(found['left_out'])}")
    if found["not_in_train"]:
        look.line(f"  in dev or test, and never in train: {listed(found['not_in_train'])}")
    if found["never"]:
        look.line(f"  in the alphabet, and in no text: {' '.join(found['never'])}")
    words = report["words"]
    look.line(f"words: {words['in_train']:,} different ones in train; {words['dev_unseen_share']:.1%} of dev's words "
              "are not among them")
    for kind, change in changes.items():
        example, of = change["examples"][0], counted(report["text"]["clips"], "clip")
        look.line(_shortened(f"{kind.replace('_', ' ')}: in {change['clips']:,} of {of}, such as "
                             f"{example['before']!r}, which is {example['after']!r} now", 300))
        if change["found"] and kind not in OUTSIDE:
            look.line(f"  {listed(change['found'], MAX_LISTED)}")


def _show_vocabularies(look: _Look, vocabularies: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for found in vocabularies:
        name = f"{found['kind']} {found['size'] or ''}".strip()
        if found["error"]:
            rows.append([name, f"no: {found['error']}", "", "", "", ""])
        else:
            rows.append([name, "yes" if found["is_usable"] else "no: too much is infeasible", found["num_labels"],
                         f"{found['mean_labels']:.1f}", f"{found['infeasible_share']:.1%}",
                         f"{found['unknown_share']:.2%}"])
    look.table("vocabularies: what CTC cannot align in train, and what is unknown of dev's characters",
               ["vocabulary", "usable", "labels", "labels a clip", "infeasible", "unknown"], rows, text_columns=2)


def _show_overlap(look: _Look, report: Mapping[str, Any]) -> None:
    overlap = report["overlap"]
    look.section("speakers and sentences in more than one split: " + ("" if overlap["pairs"] else "none"))
    for said in overlap["said"]:
        look.line(f"  {said}")
    if overlap["pairs"] and overlap["allowed"]:
        look.line("  allowed by --allow-overlap")


def _show_left_out(look: _Look, report: Mapping[str, Any]) -> None:
    if not report["left_out"]:
        look.section(f"clips left out: none of {report['clips_found']:,}")
        return
    rows = []
    for reason, count in report["left_out_by_reason"].items():
        named = [row for row in report["left_out"] if row["reason"] == reason][:NUM_EXAMPLES]
        rows += [[reason if i == 0 else "", count if i == 0 else "", row["split"],
                  _shortened(f"{row['id']}: {row['detail']}", 200)] for i, row in enumerate(named)]
    look.table(f"clips left out: {report['clips_left_out']:,} of {report['clips_found']:,}, by reason with examples",
               ["reason", "clips", "split", "example"], rows, text_columns=4)


def _show_estimate(look: _Look, found: Mapping[str, Any]) -> None:
    epochs, disk = found["epochs_per_trial"], found["disk"]
    look.table("the study, estimated", ["what", "from", "to"],
               [["epochs a trial, by what ASHA stops", *epochs],
                *([["wall time", *map(format_duration, found["wall_s"])]] if found["wall_s"] else []),
                *([["GPU hours", *found["gpu_h"]]] if found["gpu_h"] and found["gpu_h"][1] else []),
                *([["cost", *found["cost"]]] if found["cost"] else []),
                ["disk: features (there now)", *[_gigabytes(disk["features"])] * 2],
                ["disk: checkpoints and weights of all trainings", *map(_gigabytes, disk["trials"])],
                ["disk: W&B", *map(_gigabytes, disk["wandb"])]])
    if disk["to_write"][1] > disk["free"]:
        look.line(f"careful: {_gigabytes(disk['free'])} are free on the disk of the run's folder")
    pace = (f"one trial trains on {found['speech_s_per_s']:g} s of speech a second, measured with real steps, "
            f"{found['concurrency']} at a time" if found["speech_s_per_s"] else "no training was timed, so no time")
    look.line(f"it assumes {counted(found['trials'], 'trial')} of at most {counted(found['max_epochs'], 'epoch')} of "
              f"{_hours(found['train_h'])} h, {counted(found['trainings'], 'training')} in all with those on other "
              f"seeds and for what transfer gained; {pace}")
    for line in found["budgets"]:
        look.line(f"  {line}")


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.1 else f"{hours:.4f}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
