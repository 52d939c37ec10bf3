"""One door for every kind of corpus, and a key that tells contents apart."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
from release_files import pack, release_files

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


def test_release_says_its_language_and_a_manifest_does_not(manifest: Path, shared_data: Path) -> None:
    said = [open_corpus(shared_data / f"cv-corpus-6.1-2020-12-11-{code}.tar.gz").language for code in ("es", "en")]
    assert said == ["es", "en"] and open_corpus(manifest).language is None


def test_what_is_no_corpus_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "absent.tar.gz", "there is no such file or folder"),
        (tmp_path / "notes.txt", "the name ends in '.txt', which is not a corpus"),
        (tmp_path / "empty", "this folder holds neither train.tsv nor train-.*/ nor a manifest"),
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


def test_pipe_device_folder_and_endless_name_in_a_manifest_are_missing_clips(manifest: Path) -> None:
    os.mkfifo(manifest.parent / "pipe.wav")
    (manifest.parent / "huge.wav").touch()
    os.truncate(manifest.parent / "huge.wav", 1 << 40)
    names = ["pipe.wav", "/dev/zero", "/dev/stdin", ".", "a" * 300, "b/" * 3000 + "a.wav", "huge.wav"]
    manifest.write_text("".join(LINE.replace("a.wav", name) for name in names))
    reasons = []
    for _, found, clip in open_corpus(manifest).clips([""]):
        with pytest.raises(AudioError) as error:
            decode(clip, found.offset_s, found.duration_s)
        reasons.append(error.value.reason)
        assert str(error.value).isprintable()
    assert reasons == ["missing"] * 6 + ["undecodable"]


def test_row_of_endless_text_is_counted(manifest: Path) -> None:
    manifest.write_text(LINE + LINE.replace("a.wav", "b.wav").replace("hola", "e\u0345\u0301" * 20_000))
    clips = [(found.id, clip) for _, found, clip in open_corpus(manifest).clips([""])]
    assert {name: clip.reason for name, clip in clips if isinstance(clip, AudioError)} == {"b": "bad_row"}


def test_same_stretch_of_a_file_counts_once_however_it_is_written(manifest: Path) -> None:
    same = LINE.replace("a.wav", "../one/./a.wav")
    later = LINE.replace('"duration"', '"offset": 1.5, "duration"').replace("hola", "adiós")
    manifest.write_text(LINE + same + later + later.replace("adiós", "otra"))
    clips = [clip for _, _, clip in open_corpus(manifest).clips([""])]
    assert [clip.reason if isinstance(clip, AudioError) else "" for clip in clips] == ["duplicate"] * 3 + [""]
    assert "is in 2 rows (row 1, row 2) with one sentence. Drop all rows but one." in str(clips[0])


def test_clip_is_refused_in_train_when_the_splits_are_made_later(manifest: Path) -> None:
    manifest.write_text(LINE.replace("}", ', "speaker": "a"}') + LINE.replace("}", ', "speaker": "b"}'))
    corpus = open_corpus(manifest)
    whole = corpus.splits.pop("")
    corpus.splits.update({"train": whole[:1], "test": whole[1:]})
    found = {split: clip for split, _, clip in corpus.clips(["train", "test"])}
    assert isinstance(found["train"], AudioError)
    assert found["test"] == manifest.parent / "a.wav"


def test_folder_whose_name_is_not_text_is_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/se\xf1al\n"))
    (folder / "clips").mkdir(parents=True)
    (folder / "train.tsv").write_text("path\tsentence\nabsent.mp3\thola\n")
    (clip,) = (clip for _, _, clip in open_corpus(folder).clips(["train"]))
    assert str(clip).isprintable()
    (folder / "train.tsv").write_text("path\n")
    with pytest.raises(CorpusError) as error:
        open_corpus(folder)
    assert str(error.value).isprintable()


def test_home_of_nobody_is_no_corpus() -> None:
    with pytest.raises(CorpusError, match="there is no such file or folder"):
        open_corpus("~nobody-of-this-name/train.jsonl")


def test_corpus_travels_to_another_process(manifest: Path) -> None:
    corpus = open_corpus(manifest)
    assert pickle.loads(pickle.dumps(corpus)) == corpus


def test_real_clips_of_a_manifest_last_as_long_as_it_says(shared_data: Path) -> None:
    corpus = open_corpus(shared_data / "es-real" / "train.jsonl")
    for _, found, clip in list(corpus.clips([""]))[::40]:
        assert len(decode(clip)) / 16_000 == pytest.approx(found.duration_s, abs=0.02)


def test_clips_replaced_by_others_of_equal_length_and_date_are_another_corpus(manifest: Path, tmp_path: Path) -> None:
    before = open_corpus(manifest, tmp_path / "memory").fingerprint
    assert open_corpus(manifest, tmp_path / "memory").fingerprint == before
    clip = manifest.parent / "a.wav"
    date = clip.stat()
    clip.write_bytes(b"FFIR")
    os.utime(clip, ns=(date.st_atime_ns, date.st_mtime_ns))
    assert open_corpus(manifest, tmp_path / "memory").fingerprint != before
    clip.write_bytes(b"RIFF")
    assert open_corpus(manifest, tmp_path / "memory").fingerprint == before


def test_clip_of_equal_length_in_a_tarball_is_another_corpus(tmp_path: Path) -> None:
    files = release_files(num_clips=600)
    names = [name for name in files if "/clips/train_" in name]
    for suffix in ("tar", "tar.gz"):
        before = open_corpus(pack(tmp_path / f"a.{suffix}", files)).fingerprint
        for name in (names[0], names[len(names) // 4], names[-1]):
            changed = files | {name: files[name][:-1] + bytes([files[name][-1] ^ 1])}
            assert open_corpus(pack(tmp_path / f"b.{suffix}", changed)).fingerprint != before
        assert open_corpus(pack(tmp_path / f"c.{suffix}", files)).fingerprint == before or suffix == "tar.gz"
