"""A dataclass's fields as flags: only what was given is read, wrong usage is one line, and help is the docstrings."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from search.command_line import commands
from search.command_line.arguments import parse_command_line
from search.command_line.flags import Parser, field_docstrings, read_flags
from search.command_line.training_arguments import parse_training
from search.config import StudyConfig
from search.training_config import TrainingConfig

pytestmark = pytest.mark.timeout(30)


@dataclass
class Kiln:
    """Fields of every kind that a configuration has."""

    clays: tuple[str, ...] = ()
    """What is fired. Default: nothing."""
    heat: float | None = None
    """Degrees, 100 % of them. Default: none."""
    shelves: int | Literal["auto"] = "auto"
    """How many."""
    glaze: Literal["salt", "ash"] = "ash"
    """Of what."""
    is_open: bool = False
    """Whether its door is."""


def read(*arguments: str) -> dict[str, Any]:
    return read_flags(Parser(), Kiln, "the kiln", arguments)[1]


def test_only_fields_that_were_given_are_read() -> None:
    assert read() == {}
    assert read("--clays", "red", "white", "--heat", "1e3") == {"clays": ["red", "white"], "heat": 1000.0}
    assert read("--clays", "red", "--clays", "white") == {"clays": ["red", "white"]}
    assert read("--shelves", "3", "--is-open") == {"shelves": 3, "is_open": True}
    assert read("--shelves", "auto", "--no-is-open", "--glaze", "salt") == {
        "shelves": "auto", "is_open": False, "glaze": "salt"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--shelfs", "3"], "error: --shelfs: there is no such flag; the nearest is --shelves. See --help.\n"),
    (["--colour", "red"], "error: --colour: there is no such flag. See --help.\n"),
    (["--is-open", "red"], "error: 'red' follows no flag; every value has one. See --help.\n"),
    (["--heat", "warm"], "error: argument --heat: the value is 'warm'; it must be a number"),
    (["--glaze", "tin"], "error: argument --glaze: the value is 'tin'; it must be"),
    (["--shelves", "-2.5"], "error: argument --shelves: the value is '-2.5'; it must be a whole number or"),
])
def test_wrong_usage_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str],
                                                 message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        read(*arguments)
    said = capsys.readouterr().err
    assert (stopped.value.code, said.count("\n")) == (2, 1) and said.startswith(message), said


@pytest.mark.parametrize(("flag", "in_a_study", "in_a_training"), [
    ("--lr", "; optimizer.lr is a choice of the recipe. ", "; optimizer.lr is a choice of the recipe. "),
    ("--batch-size", "; training.audio_s_per_step is a choice", "; training.audio_s_per_step is a choice"),
    ("--num-epochs", "; the nearest is --max-epochs. ", "; the nearest is --epochs. "),
    ("--num-workers", "; the nearest is --workers-per-trial. ", "; the nearest is --workers. "),
    ("--gpus", "; the nearest is --gpus-per-worker. ", "; the nearest is --gpus-per-worker. "),
    ("--duration", "; the nearest are --min-duration-s, --max-duration-s. ", "; the nearest are --min-duration-s, "),
    ("--output_dir", "; the nearest is --out. ", "; the nearest is --out. "),
    ("--trails", "; the nearest is --trials. ", ". "),
    ("--helpp", ". ", ". "), ("--xyz=3", ". ", ". ")])
def test_flag_that_there_is_not_is_answered_by_one_that_is_meant_or_none(
        capsys: pytest.CaptureFixture[str], flag: str, in_a_study: str, in_a_training: str) -> None:
    for parse, said in ((lambda given: parse_command_line("A study.", given), in_a_study),
                        (parse_training, in_a_training)):
        with pytest.raises(SystemExit):
            parse([flag])
        assert capsys.readouterr().err.startswith(f"error: {flag.partition('=')[0]}: there is no such flag{said}")


@pytest.mark.parametrize(("command", "arguments", "said"), [
    (commands.transcribe, ["m", "a", "--jsn"], "--jsn: there is no such flag; the nearest is --json."),
    (commands.transcribe, ["m", "a", "--lr", "1"], "--lr: there is no such flag."),
    (commands.report, ["run", "--out", "x"], "--out: there is no such flag."),
    (commands.report, ["one", "two"], "'two' is one folder too many: search/report.py draws one run, and "
     "search/compare.py compares two."),
    (commands.compare, ["run"], "the following arguments are required: RUN.")])
def test_wrong_usage_of_the_other_scripts_is_one_line_too(
        capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int], arguments: list[str],
        said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(arguments)
    assert (stopped.value.code, capsys.readouterr().err) == (2, f"error: {said} See --help.\n")


@pytest.mark.parametrize(("kind", "parse"), [(StudyConfig, lambda given: parse_command_line("A study.", given)),
                                             (TrainingConfig, parse_training)])
def test_help_tells_of_every_field_what_its_docstring_says(capsys: pytest.CaptureFixture[str], kind: type,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           parse: Callable[[list[str]], object]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    assert stopped.value.code == 0
    shown = re.sub(r"\s+", "", capsys.readouterr().out)  # wrapping breaks words at hyphens
    documents = field_docstrings(kind)
    assert set(documents) == {f.name for f in dataclasses.fields(kind)}
    for f in dataclasses.fields(kind):
        said = documents[f.name]
        if f.default not in (None, ()):
            shown_default = ("no", "yes")[f.default] if isinstance(f.default, bool) else f.default
            said += f" Default: {shown_default}."
        assert re.sub(r"\s+", "", said) in shown and "default" in said.lower(), f"{f.name} lacks {said!r}"
        assert "--" + f.name.replace("_", "-") in shown


@pytest.mark.parametrize("arguments", [["--resume", ""], ["--resume="], ["--out", ""], ["--corpus", "a", ""]])
def test_variable_of_the_shell_that_is_not_set_starts_no_study(
        arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.run(arguments)
    assert ended.value.code == 2 and "has an empty value. Give it one, or leave it out" in capsys.readouterr().err


def test_spaces_of_a_path_stay_in_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Parser().error("two  spaces\n  and a line")
    assert capsys.readouterr().err == "error: two  spaces and a line. See --help.\n"
