"""One door for every kind of corpus, and a key that tells contents apart."""

import os
import pickle
import shutil
from pathlib import Path

import pytest

from corpora.audio import AudioError, decode
from corpora.corpus import open_corpus
from corpora.manifest import CorpusError

pytestmark = pytest.mark.timeout(60)

LINE = '{"audio_filepath": "a.wav", "duration": 1, "text": "hola"}\n'


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "train.jsonl").write_text(LINE)
    (folder / "a.wav").write_bytes(b"RIFF")
    return folder / "train.jsonl"


def test_manifest_has_its_utterances_and_no_split(manifest: Path) -> None:
    corpus = open_corpus(manifest)
    assert (corpus.kind, list(corpus.splits), corpus.archive) == ("manifest", [""], None)
    assert [(split, found.text, clip) for split, found, clip in corpus.clips([""])] == [
        ("", "hola", manifest.parent / "a.wav")
    ]


def test_key_is_equal_for_a_copy_and_differs_when_text_or_audio_changes(manifest: Path, tmp_path: Path) -> None:
    key = open_corpus(manifest).fingerprint
    copy = Path(shutil.copytree(manifest.parent, tmp_path / "two")) / "train.jsonl"
    os.utime(copy, (0, 0))
    assert open_corpus(copy).fingerprint == key
    (copy.parent / "a.wav").write_bytes(b"RIFF!")
    changed_audio = open_corpus(copy).fingerprint
    (copy.parent / "a.wav").unlink()
    without_audio = open_corpus(copy).fingerprint
    manifest.write_text(LINE.replace("hola", "adiós"))
    assert len({key, changed_audio, without_audio, open_corpus(manifest).fingerprint}) == 4


def test_tarball_key_is_equal_for_a_copy_and_differs_when_a_byte_changes(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz").read_bytes()
    copy, changed = tmp_path / "copy.tar.gz", tmp_path / "changed.tar.gz"
    copy.write_bytes(whole)
    changed.write_bytes(whole[:-4] + bytes(4))
    key = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz").fingerprint
    assert open_corpus(copy).fingerprint == key
    assert open_corpus(changed).fingerprint != key


def test_what_is_no_corpus_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "absent.tar.gz", "there is no such file or folder"),
        (tmp_path / "notes.txt", "the name ends in '.txt', which is no corpus"),
        (tmp_path / "empty", "this folder holds neither train.tsv nor train-"),
    ):
        with pytest.raises(CorpusError, match=said) as error:
            open_corpus(path)
        assert str(path) in str(error.value)
        assert "Give " in str(error.value)
        assert "\n" not in str(error.value)


def test_bad_clips_are_reasons_and_no_stop(manifest: Path) -> None:
    names = ("absent", "empty", "garbage")
    manifest.write_text("".join(LINE.replace("a.wav", f"{name}.wav") for name in names))
    (manifest.parent / "empty.wav").touch()
    (manifest.parent / "garbage.wav").write_bytes(b"no sound at all")
    reasons = []
    for _, found, clip in open_corpus(manifest).clips([""]):
        try:
            decode(clip, found.offset_s)
        except AudioError as error:
            reasons.append(error.reason)
    assert reasons == ["missing", "empty", "undecodable"]


def test_corpus_travels_to_another_process(manifest: Path) -> None:
    corpus = open_corpus(manifest)
    assert pickle.loads(pickle.dumps(corpus)) == corpus


def test_real_clips_of_a_manifest_last_as_long_as_it_says(shared_data: Path) -> None:
    corpus = open_corpus(shared_data / "es-real" / "train.jsonl")
    for _, found, clip in list(corpus.clips([""]))[::40]:
        assert len(decode(clip)) / 16_000 == pytest.approx(found.duration_s, abs=0.02)
