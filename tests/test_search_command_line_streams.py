"""Standard output and standard error of any encoding, closed, full, or with nobody who reads."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
HEAD = "import sys\nfrom search.command_line import commands\n"


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of ours as a shell starts it."""
    def run(code: str, redirected: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(HEAD + textwrap.dedent(code), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        return subprocess.run(["bash", "-c", f'set -o pipefail; "$0" script.py {redirected}', sys.executable],
                              cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=100,
                              env=environment | {"PYTHONPATH": str(ROOT)} | variables)
    return run


Ran = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
    @commands._script(outlive_reader=True)
    def study(arguments=None):
        for number in range(3000):
            print("época", number, flush=True)
        print("ended", file=sys.stderr)
    sys.exit(study())
"""
REPORT = STUDY.replace("outlive_reader=True", "").replace(", flush=True", "")


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1:strict"},
                                       {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=str)
def test_letter_that_the_stream_lacks_is_written_as_its_code(ran: Ran, variables: dict[str, str]) -> None:
    done = ran("""
        @commands._script()
        def told(arguments=None):
            print("ə → 漢 niño")
            __import__("rich.console").console.Console().print("[b]ə → 漢[/b]")
            print("ə → 漢", file=sys.stderr)
            raise __import__("corpora.manifest").manifest.CorpusError("漢: cannot be read")
        sys.exit(told())
    """, **variables)
    assert (done.returncode, done.stderr) == (1, "\\u0259 \\u2192 \\u6f22\nerror: \\u6f22: cannot be read\n")
    assert done.stdout.startswith("\\u0259 \\u2192 \\u6f22 ni") and done.stdout.count("\\u6f22") == 2


@pytest.mark.parametrize("script", ["run", "train", "transcribe", "report", "compare"])
def test_help_is_read_to_its_end_in_ascii_and_not_at_all(ran: Ran, script: str) -> None:
    code = f"sys.exit(commands.{script}(['--help']))"
    done = ran(code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == "" and "--help" in done.stdout
    for redirected in ("| true", ">&- 2>&- <&-"):
        done = ran(code, redirected)
        assert (done.returncode, done.stderr) == (0, ""), redirected


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=str)
@pytest.mark.parametrize("redirected", ["| head -1", ">/dev/full", ">&-"])
def test_study_goes_on_when_nobody_reads_what_it_prints(ran: Ran, redirected: str, variables: dict[str, str]) -> None:
    done = ran(STUDY, redirected, **variables)
    assert (done.returncode, done.stderr) == (0, "ended\n")


def test_study_goes_on_without_standard_error(ran: Ran) -> None:
    for redirected in ("2>&-", "2>/dev/full"):
        done = ran(STUDY, redirected)
        assert done.returncode == 0 and done.stdout.endswith("época 2999\n")


def test_other_scripts_end_quietly_for_a_reader_who_is_gone_and_say_what_is_not_written(ran: Ran) -> None:
    done = ran(REPORT.replace("3000", "30000"), "| head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "época 0\n", "")
    done = ran(REPORT.replace("3000", "3"), ">/dev/full")
    assert done.returncode == 1 and "error: standard output cannot be written (No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_file_that_is_opened_after_a_closed_stream_is_not_printed_into(ran: Ran, tmp_path: Path) -> None:
    code = f"""
        @commands._script(outlive_reader=True)
        def study(arguments=None):
            with open({str(tmp_path / 'study.db')!r}, "w") as file:
                print("not into it", flush=True)
                __import__("os").system("echo nor this")
                file.write("whole")
        sys.exit(study())
    """
    assert ran(code, ">&-").returncode == 0 and (tmp_path / "study.db").read_text() == "whole"


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
def test_all_clips_are_heard_where_standard_output_lacks_their_letters(ran: Ran, variables: dict[str, str]) -> None:
    heard = """
        from corpora.clips import Clip
        from models.transcription import Transcript, Word
        from search.command_line import print_transcripts
        class Heard:
            def transcribe(self, clips, on_heard):
                yield from (Transcript(duration_s=1.0, words=tuple(
                    Word(text=text, start_s=0, end_s=1, confidence=1) for text in ("mañana", "ə"))) for _ in clips)
        @commands._script()
        def script(arguments=None):
            clips = [Clip(path="añ.wav"), Clip(path="b.wav")]
            print_transcripts.print_transcripts(Heard(), clips, {})
        sys.exit(script())
    """
    done = ran(heard.format(False), **variables)
    assert done.returncode == 0 and done.stdout.count("\\u0259\n") == 2
    assert done.stderr.startswith("warning: standard output is ") and done.stderr.count("\n") == 1
    done = ran(heard.format(True), **variables)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["mañana ə"] * 2 and not done.stderr
