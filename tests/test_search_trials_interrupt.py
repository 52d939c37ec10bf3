"""Signals of a person and of a supervisor: what runs is asked to stop once, ended when asked again, and never lost."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from search.trials.interrupt import STOPPING, Interrupt, Interrupted

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[1]


def started(code: str, *before: str) -> subprocess.Popen[str]:
    """A program of ours in a session of its own; it has printed "ready"."""
    head = ("import os, signal, sys, threading, time\nfrom search.command_line import commands\n"
            "from search.trials import interrupt\n")
    program = subprocess.Popen([*before, sys.executable, "-c", head + textwrap.dedent(code)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    return program


WAITS = """
    @commands._script(outlive_reader=True, if_interrupted="interrupted")
    def work(arguments=None):
        print("ready", flush=True)
        time.sleep(40)
    sys.exit(work())
"""

STOPS = """
    @commands._script(outlive_reader=True, if_interrupted="interrupted")
    def work(arguments=None):
        with interrupt.interruptible() as asked:
            print("ready", flush=True)
            while not asked.is_set():
                time.sleep(0.01)
            {}
        asked.raise_if_set("/a study")
    sys.exit(work())
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signal_ends_what_cannot_go_on_by_itself_in_one_line(how: signal.Signals, code: int) -> None:
    program = started(WAITS)
    program.send_signal(how)
    _, said = program.communicate(timeout=30)
    assert program.returncode == code and said == "interrupted\n"


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signal_asks_a_study_to_stop_and_a_second_one_ends_it(how: signal.Signals, code: int) -> None:
    program = started(STOPS.format("pass"))
    program.send_signal(how)
    _, said = program.communicate(timeout=30)
    assert (program.returncode, said) == (code, "stopped; what was done is kept. Resume with --resume '/a study'\n")
    program = started(STOPS.format('print("asked", flush=True); time.sleep(40)'))
    program.send_signal(how)
    assert program.stdout is not None and program.stdout.readline() == "asked\n"
    program.send_signal(how)
    _, said = program.communicate(timeout=30)
    assert program.returncode == code and said == "interrupted\n"


def test_handlers_that_a_library_sets_take_no_signal_away() -> None:
    """As Ray does: `ray.init` puts handlers of its own, one of them in C++, in the place of ours."""
    theirs = "signal.signal(signal.SIGTERM, lambda *_: os.abort())"
    program = started(WAITS.replace('print("ready"', f'{theirs}; print("ready"'))
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == 143


def test_signal_to_the_whole_group_leaves_what_we_started_to_us() -> None:
    child = 'child = __import__("subprocess").Popen(["sleep", "30"])'
    program = started(STOPS.format("time.sleep(0.5); print(child.poll(), flush=True); child.kill()").replace(
        'print("ready"', f'{child}; print("ready"'))
    os.killpg(program.pid, signal.SIGTERM)
    said, _ = program.communicate(timeout=30)
    assert (program.returncode, said) == (143, "None\n"), "Ray's processes have to outlive it"


def test_nohup_stays_what_it_is() -> None:
    program = started(WAITS, "nohup")
    program.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == 143


def test_what_does_not_end_by_itself_is_ended_before_its_supervisor_kills_it() -> None:
    endless = "interrupt.PATIENCE_S = 0.2\n" + textwrap.dedent(STOPS.format("time.sleep(40)"))
    program = started(endless)
    program.send_signal(signal.SIGTERM)
    _, said = program.communicate(timeout=30)
    assert program.returncode == 143 and said == "stopped in the middle; what was done before is kept\n"


def test_ctrl_c_in_the_middle_of_a_print_to_nobody_is_kept() -> None:
    """Signals come while the same stream is written to, and its reader is gone: the study is asked all the same."""
    program = started(STOPS.format("pass").replace("time.sleep(0.01)", "print('x' * 5000)"))
    assert program.stdout is not None
    program.stdout.close()
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == 130 and program.stderr is not None
    assert program.stderr.read() == "stopped; what was done is kept. Resume with --resume '/a study'\n"


def test_person_who_asked_is_answered_once() -> None:
    interrupt = Interrupt()
    interrupt.ask()
    assert interrupt.is_set() and [interrupt.answer(), interrupt.answer()] == [STOPPING, None]
    interrupt = Interrupt()
    interrupt.set()  # a full disk has stopped it
    assert interrupt.is_set() and interrupt.answer() is None
    with pytest.raises(Interrupted, match=re.escape("--resume '/runs/a b'")):
        interrupt.raise_if_set(Path("/runs/a b"))
