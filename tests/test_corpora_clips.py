"""Which clips files, folders, lists and manifests name."""

import io
from pathlib import Path

import pytest

from corpora.audio import AudioError
from corpora.clips import Clip, find_clips

pytestmark = pytest.mark.timeout(30)


def paths_of(*arguments: str | Path) -> list[str]:
    """The clips' paths; an error is its text."""
    return [found.path if isinstance(found, Clip) else str(found) for found in find_clips(map(str, arguments))]


def test_files_keep_their_order_and_are_not_looked_at(tmp_path: Path) -> None:
    assert paths_of("b.wav", tmp_path / "a.MP3", "b.wav") == ["b.wav", str(tmp_path / "a.MP3"), "b.wav"]


def test_folder_is_all_its_sound_at_any_depth_sorted(tmp_path: Path) -> None:
    for name in ("z.wav", "a/b/c.FLAC", "a/notes.txt", "a/validated.tsv", "m.opus", "phone.m4a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths_of(tmp_path) == [str(tmp_path / name) for name in ("a/b/c.FLAC", "m.opus", "phone.m4a", "z.wav")]


def test_what_macos_notes_about_a_clip_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "__MACOSX").mkdir()
    for name in ("._a.wav", "__MACOSX/._a.wav"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    (tmp_path / "a.wav").touch()
    (tmp_path / "._mine.wav").write_bytes(b"RIFF")
    assert paths_of(tmp_path) == [str(tmp_path / "._mine.wav"), str(tmp_path / "a.wav")]


def test_folder_without_sound_is_an_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    error, after = find_clips([str(tmp_path), "clip.wav"])
    assert isinstance(error, AudioError) and f"{tmp_path}: holds no audio file" in str(error)
    assert after == Clip(path="clip.wav")


def test_list_counts_from_its_folder_and_standard_input_from_here(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips.txt").write_bytes("\ufeffuno.wav\r\n\r\n/abs/dos tres.wav\nño.mp3".encode())
    assert paths_of(tmp_path / "clips.txt") == [
        str(tmp_path / "uno.wav"), "/abs/dos tres.wav", str(tmp_path / "ño.mp3")]
    monkeypatch.setattr("sys.stdin", io.StringIO("uno.wav\nsub/dos.wav\n"))
    assert paths_of("-", "tres.wav") == ["uno.wav", "sub/dos.wav", "tres.wav"]


def test_manifest_gives_stretches_and_needs_no_text(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('{"audio_filepath": "a.wav", "duration": 2.5, "offset": 1.0}\n'
                                          '{"audio_filepath": "/b.wav", "text": "hola"}\n')
    assert list(find_clips([str(tmp_path / "clips.jsonl")])) == [
        Clip(path=str(tmp_path / "a.wav"), offset_s=1.0, duration_s=2.5), Clip(path="/b.wav")]


@pytest.mark.parametrize(("name", "content", "complaint"), [
    ("clips.jsonl", b"{}\n", "clips.jsonl:1: has no field, but no `audio_filepath`"),
    ("clips.txt", b"a.wav\n\xff\xfe.wav\n", "is not UTF-8"),
    ("clips.txt", None, "cannot be read (No such file or directory)"),
])
def test_bad_lists_are_one_line(tmp_path: Path, name: str, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    [error] = paths_of(tmp_path / name)
    assert complaint in error and "\n" not in error
