"""Thousands of mutated releases: an error of one line, a counted row or the right pair, and nothing else."""

import io
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import hostile_release
import pytest
from hostile_release import Findings, Variant, judge, make_variant, read, read_apart, read_here, release

from corpora import corpus, tarball


def read_all(num_variants: int) -> Findings:
    findings = read_apart(0, num_variants)
    assert findings.wrong == []
    assert findings.counts["read"] + findings.counts["refused"] == num_variants
    # A mutation that hurts nobody, or everybody, proves nothing.
    assert findings.counts["read"] > 0.3 * num_variants
    assert findings.counts["refused"] > 0.3 * num_variants
    assert findings.counts["paired"] > num_variants
    return findings


@pytest.mark.timeout(300)
def test_300_mutated_releases_give_an_error_a_reason_or_the_right_pair() -> None:
    assert {"undecodable", "bad_row", "duplicate"} < set(read_all(300).counts)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_5000_mutated_releases_give_an_error_a_reason_or_the_right_pair() -> None:
    reasons = {"undecodable", "bad_row", "duplicate", "missing", "empty", "too_short", "silent"}
    assert reasons < set(read_all(5000).counts)


def everything(path: Path = Path(), **facts: bool) -> Variant:
    whole = frozenset(range(len(release().names)))
    return Variant(path=path, whole_clips=whole, whole_rows=whole, **facts)


def test_judge_passes_the_release_as_it_is_and_no_other_pairing() -> None:
    pairs = list(zip(hostile_release.SPLIT_OF, release().sounds, release().texts, strict=True))
    assert judge(everything(), pairs) == []
    swapped = [(split, sound, text) for (split, sound, _), (_, _, text) in zip(pairs, pairs[1:], strict=False)]
    assert len(judge(everything(), swapped)) == 2 * len(swapped)
    assert judge(everything(), [("train", release().sounds[0], "Otra frase.")])
    assert judge(everything(), [("train", b"another sound", release().texts[0])])
    assert judge(everything(), [*pairs, ("test", *pairs[0][1:])]) == ["a sound is in train and test"]
    touched = Variant(path=Path(), whole_clips=frozenset({0}), whole_rows=frozenset({1}))
    assert judge(touched, [("train", release().sounds[0], release().texts[1])]) == []
    assert judge(everything(any_change_is_told=True), [("train", b"another sound", "Otra frase.")])


def test_unmutated_release_is_read_whole(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    path = tmp_path / "x.tar"
    path.write_bytes(hostile_release.tarball(release().files))
    pairs = read(everything(path), counts)
    assert sorted(pairs) == sorted(zip(hostile_release.SPLIT_OF, release().sounds, release().texts, strict=True))
    assert counts == {"read": 1, "paired": 6}


def without_checksum(original: Callable[..., Any]) -> Callable[..., Any]:
    """Gzip's header and its checksum at the end are taken off, and not looked at."""

    def unzip(*, fileobj: IO[bytes], mode: str) -> io.BytesIO:
        return io.BytesIO(zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(fileobj.read()[10:]))

    return unzip


def paired_by_order(original: Callable[..., Any]) -> Callable[..., Any]:
    """Clips that are missing shift the sentences of all that follow."""

    def clips(self: corpus.Corpus, splits: Sequence[str]) -> Any:
        found = list(original(self, splits))
        usable = [clip for _, _, clip in found if not isinstance(clip, corpus.AudioError)]
        unusable = [clip for _, _, clip in found if isinstance(clip, corpus.AudioError)]
        return [(split, utterance, clip) for (split, utterance, _), clip in zip(found, usable + unusable, strict=True)]

    return clips


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (tarball.gzip, "GzipFile", without_checksum),
        (corpus.Corpus, "clips", paired_by_order),
        (corpus, "_unusable_rows", lambda original: lambda splits: {}),
    ],
)
def test_bugs_made_on_purpose_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, bug: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, bug(getattr(where, name)))
    findings = Findings()
    for seed in range(300):
        folder = tmp_path / str(seed)
        folder.mkdir()
        read_here(seed, folder, findings)
        if any(said in " ".join(findings.wrong) for said in ("untouched", "changed without a word", "of which came")):
            return
    pytest.fail(f"300 variants did not show the bug: {findings}")


def test_variant_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for seed in range(12):
        contents = []
        for name in ("first", "second"):
            folder = tmp_path / name / str(seed)
            folder.mkdir(parents=True)
            make_variant(seed, folder)
            contents.append({path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        assert contents[0] == contents[1]
    draw = random.Random(1)
    assert hostile_release.mutated(b"x" * 1000, draw) != hostile_release.mutated(b"x" * 1000, draw)


HARMFUL = """
import ctypes
import sys
import threading

import hostile_release

def make_variant(seed, folder, original=hostile_release.make_variant):
    if seed == 1:
        ctypes.string_at(0)
    if seed == 3:
        threading.Event().wait()
    if seed == 5:
        bytearray(3 << 30)
    return original(seed, folder)

hostile_release.make_variant = make_variant
hostile_release.SECONDS = 8
hostile_release.main(int(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.mark.slow
def test_crash_hang_and_hunger_are_told_and_the_next_variant_is_read(tmp_path: Path) -> None:
    (tmp_path / "harmful.py").write_text(HARMFUL)
    findings = read_apart(0, 7, tmp_path / "harmful.py")
    crash, hang, hunger = findings.wrong
    assert crash.startswith("1: SIGSEGV")
    assert hang.startswith("3: exit code 1: Timeout")
    assert hunger.startswith("5: exit code 1: ")
    assert "MemoryError" in hunger
    assert findings.counts["read"] + findings.counts["refused"] == 4
