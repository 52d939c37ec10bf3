"""A person reads the same report on a terminal and in a file."""

import io
import re
from typing import Any

import pytest
from rich.console import Console
from test_search_speech_corpus_report import report

from search.command_line.corpus_tables import show

pytestmark = pytest.mark.timeout(60)

__all__ = ["report"]


def shown(report: dict[str, Any], is_terminal: bool) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, force_terminal=is_terminal, width=120, highlight=False))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def test_plain_text_says_everything(report: dict[str, Any]) -> None:
    said = shown(report, is_terminal=False)
    rows = [re.sub(r" {2,}", " | ", line.strip()) for line in said.splitlines()]
    assert "corpus: es.tar.gz (es)" in rows
    assert "train | 0.0013 | 3 | 1 | 3 | 0.50 | 0.60 | 1.00 | 1.50 | 2.00 | 2.40 | 2.50" in rows
    assert ("speaker unknown: 1 clip of train; they may also speak in another split") in rows
    assert f"0.5 to 1 | {'█' * 30} | 1 | 0 | 0" in rows
    assert "not in the alphabet: none" in rows and "letters for which clips are left out, by clips: ж 1" in rows
    assert "digits spelled out: in 3 of 9 clips, such as '3 [x]', which is 'tres x' now" in rows
    assert "characters | yes | 34 | 5.0 | 1.0% | 0.00%" in rows
    assert "bpe 64 | no: too much is infeasible | 64 | 2.5 | 20.0% | 25.00%" in rows
    assert "bpe 128 | no: vocabulary.size is 128; the texts give at most 70." in rows
    assert "too_long | 5 | dev | 0/y0: 30.00 s; the limits are 0.3 to 20 s" in rows
    assert rows.count("dev | 0/y2: 30.00 s; the limits are 0.3 to 20 s") == 1 and "0/y3" not in said
    assert "foreign_letters | 1 | train | 0/x: 'die straße [bold]' holds 'ж', which 'es' cannot spell" in rows
    assert "epochs a trial, by what ASHA stops | 5.28 | 13.68" in rows
    assert "1 sentence and 0 speakers of test are in dev too (1 of 1 clip): 'uno tres'" in rows
    assert "budget 1h: enough for all of it" in rows
    assert "careful: 1.00 GB are free on the disk of the run's folder" in rows


def test_terminal_says_the_same_in_frames(report: dict[str, Any]) -> None:
    plain, framed = shown(report, is_terminal=False), shown(report, is_terminal=True)
    assert "─" in framed and "─" not in plain
    assert re.sub(r"[\s─━╺╸]+", " ", framed).split() == re.sub(r"\s+", " ", plain).split()


def test_nothing_left_out_and_nothing_timed_is_said(report: dict[str, Any]) -> None:
    quiet = report | {"left_out": [], "clips_left_out": 0, "left_out_by_reason": {},
                      "text": {"clips": 9, "changes": {}}}
    quiet["estimate"] = report["estimate"] | {"wall_s": None, "speech_s_per_s": None}
    said = shown(quiet, is_terminal=False)
    assert "clips left out: none of 11" in said and "wall time" not in said
    assert "no training was timed, so no time" in said and "speakers and sentences in more than one split: " in said


def test_letters_outside_the_alphabet_are_listed_with_counts(report: dict[str, Any]) -> None:
    folded = {"clips": 3, "found": {"ã→a": 31, "\u200d": 2}, "examples": [{"before": "São", "after": "sao"}]}
    changes = {"letters_folded": folded, "characters_dropped": folded}
    said = shown(report | {"text": {"clips": 9, "changes": changes}}, is_terminal=False).splitlines()
    assert "  not in the alphabet: letters folded: ã→a 31, U+200D 2" in said
    assert "characters dropped: in 3 of 9 clips, such as 'São', which is 'sao' now" in said
    assert "  ã→a 31, U+200D 2" in said
