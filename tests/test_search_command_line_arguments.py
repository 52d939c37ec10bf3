"""A study's command line says what is asked for; each flag's own value is tested with the configuration."""

from pathlib import Path

import pytest

from search.command_line.arguments import parse_command_line
from search.config import ConfigError
from spaces.typed import save_yaml

pytestmark = pytest.mark.timeout(30)


def test_each_question_is_told_apart(tmp_path: Path) -> None:
    save_yaml(tmp_path / "study.yaml", {"version": 1, "trials": 7, "corpus": ["a"], "source": "none"})
    config, *asked = parse_command_line("", ["--config", str(tmp_path / "study.yaml"), "--check", "--trials", "9"])
    assert (config.trials, config.corpus, asked) == (9, ("a",), [False, True, False])
    assert parse_command_line("", [])[1:] == (False, False, False)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--resume", "runs/a", "--out", "b"], "leave out --config and --out"),
    (["--resume", "runs/a", "--config", "b.yaml"], "leave out --config and --out"),
    (["--look-again"], "give the study with --resume DIR"), (["--trails", "3"], "--trials")])
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], said: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_command_line("", arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1


def test_folder_that_holds_no_study_is_no_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config.yaml"):
        parse_command_line("", ["--resume", str(tmp_path)])
