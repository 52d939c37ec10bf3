"""What is printed to be pasted gives a shell the very words."""

import shutil
import subprocess
from pathlib import Path

import pytest

from search.records.run_folder import PRODUCTION, STUDY
from search.records.shell_words import command, quoted, resume_flag

pytestmark = pytest.mark.timeout(30)

NAMES = ["a b", "it's", '"$HOME"`id`', "-n", "a\\b", "two\nlines", "tab\t'\\", "\x1b[2Jñ", "next\u2028line",
         "  two  spaces "]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("name", NAMES)
def test_shell_reads_the_same_name_from_one_printable_line(name: str) -> None:
    line = command("printf", "%s", name)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == name


def test_every_command_that_goes_on_is_one_line() -> None:
    path = Path("/runs/two\nlines")
    for said in (resume_flag(path), STUDY.going_on(path), PRODUCTION.going_on(path), quoted(path)):
        assert said.isprintable() and said.endswith(r"$'/runs/two\x0alines'")
