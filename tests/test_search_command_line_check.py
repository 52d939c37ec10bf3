"""`--check` counts and names the bad clips, and goes on with the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from noise_release import NO_ENDS, RELEASE, SENTENCE, pack, release, sound

from search import cluster
from search.command_line import commands
from search.command_line.check import check as check_corpus
from search.config import ConfigError, StudyConfig

pytestmark = pytest.mark.timeout(120)


def check_arguments(corpus: Path, cache: Path) -> list[str]:
    return ["--check", "--corpus", str(corpus), "--source", "none", "--space", "synthetic", "--trials", "1", "--cache",
            str(cache)]


def saved_report(printed: str) -> dict[str, Any]:
    """The report, where its last line says that it is."""
    path = Path(printed.splitlines()[-1].removeprefix("saved in "))
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def check(capsys: pytest.CaptureFixture[str], corpus: Path, cache: Path) -> dict[str, Any]:
    code = commands.run(check_arguments(corpus, cache))
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    return saved_report(printed.out)


@pytest.mark.parametrize("packed", [True, False], ids=["tarball", "folder"])
def test_bad_clips_are_counted_and_named_and_the_rest_goes_on(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool) -> None:
    files = release()
    del files[f"{RELEASE}/clips/train0.wav"]
    files[f"{RELEASE}/clips/train1.wav"] = b""
    files[f"{RELEASE}/clips/train2.wav"] = bytes(range(256)) * 8
    files[f"{RELEASE}/clips/test1.wav"] = sound(5, 1500)  # 0.09 s
    files[f"{RELEASE}/train.tsv"] = files[f"{RELEASE}/train.tsv"].replace(
        f"train3.wav\t{SENTENCE}".encode(), b"train3.wav\t!!!")
    if packed:
        corpus = pack(tmp_path / "es.tar.gz", files)
    else:
        corpus = tmp_path / "release"
        for name, content in files.items():
            (corpus / name).parent.mkdir(parents=True, exist_ok=True)
            (corpus / name).write_bytes(content)
    report = check(capsys, corpus, tmp_path / "cache")
    assert {split: facts["clips"] for split, facts in report["splits"].items()} == {"train": 8, "dev": 2, "test": 1}
    assert (report["clips_found"], report["clips_left_out"]) == (16, 5)
    assert report["left_out_by_reason"] == {"missing": 1, "empty": 1, "undecodable": 1, "no_text": 1, "too_short": 1}
    found = {row["id"].rpartition("/")[2]: (row["split"], row["reason"]) for row in report["left_out"]}
    assert found == {"train0": ("train", "missing"), "train1": ("train", "empty"), "train2": ("train", "undecodable"),
                     "train3": ("train", "no_text"), "test1": ("test", "too_short")}
    assert all(row["detail"] and "\n" not in row["detail"] for row in report["left_out"])
    assert [(v["kind"], v["size"]) for v in report["vocabularies"]] == [
        ("characters", 0), ("characters_folded", 0), ("bpe", 64)]
    assert "vocabulary.size is 64" in report["vocabularies"][2]["error"], "one sentence has no 64 pieces"


def test_second_look_at_a_corpus_finds_the_features_of_the_first(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = pack(tmp_path / "es.tar.gz", release())
    first = check(capsys, corpus, tmp_path / "cache")
    written = made(tmp_path / "cache")
    second = check(capsys, corpus, tmp_path / "cache")
    assert made(tmp_path / "cache") == written != {}
    assert {name: second[name] for name in second if name != "estimate"} == {
        name: first[name] for name in first if name != "estimate"}


def made(cache: Path) -> dict[Path, int]:
    """When each file in the cache was written, but the report."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*")
            if path.is_file() and path.name != "corpus_report.json"}


def test_check_prints_the_report_before_it_refuses_a_sentence_of_test_in_train(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = pack(tmp_path / "es.tar.gz", release(ends=NO_ENDS))
    arguments = [*check_arguments(corpus, tmp_path / "cache"), "--out", str(tmp_path / "looked")]
    code, printed = commands.run(arguments), capsys.readouterr()
    assert code == commands.FAILED and printed.err.count("\n") == 1
    assert f"{corpus}: 1 sentence and 0 speakers of test are in train too (2 of 2 clips): {SENTENCE!r}" in printed.err
    assert "--allow-overlap" in printed.err and "clips by length" in printed.out
    assert printed.out.endswith(f"saved in {tmp_path / 'looked' / 'corpus_report.json'}\n")
    assert saved_report(printed.out)["overlap"]["pairs"][1]["clip_ids"] == ["0/test0", "0/test1"]
    assert commands.run([*arguments, "--allow-overlap"]) == commands.DONE


def test_embedded_default_has_nothing_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "connected", lambda: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="corpus is not set; --check examines a corpus. Name one with --corpus."):
        check_corpus(StudyConfig(cache=str(tmp_path / "cache"), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
