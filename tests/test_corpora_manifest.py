"""Manifests: what is read, what is refused and how it is said, how speakers are parted."""

import json
import os
from pathlib import Path

import pytest

from corpora.manifest import CorpusError, Manifest, ManifestError, Utterance

pytestmark = pytest.mark.timeout(30)


def utterance(name: str, speaker: str = "") -> Utterance:
    return Utterance(id=name, audio=f"/clips/{name}.wav", duration_s=1.5, text=f"text of {name}", speaker=speaker)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "train.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_nemo_lines_are_read_with_audio_relative_to_the_manifest(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": "audio/a.wav", "duration": 2, "text": "Hola"},
        {"audio_filepath": "/elsewhere/b.wav", "duration": 1.5, "offset": 0.25, "text": "", "speaker": 7},
        {"audio_filepath": "c.wav", "text": "sin duración"},
    ]
    manifest = Manifest.load(write(tmp_path, "\n\n".join(map(json.dumps, lines))))
    assert list(manifest) == [
        Utterance(id="audio/a", audio=str(tmp_path / "audio/a.wav"), duration_s=2.0, text="Hola"),
        Utterance(
            id="/elsewhere/b@0.25", audio="/elsewhere/b.wav", duration_s=1.5, text="", speaker="7", offset_s=0.25
        ),
        Utterance(id="c", audio=str(tmp_path / "c.wav"), duration_s=None, text="sin duración"),
    ]


def test_byte_order_mark_and_crlf_are_tolerated(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"audio_filepath": "a.wav", "duration": 1, "text": "\xc3\xb1"}\r\n'
    assert [found.text for found in Manifest.load(write(tmp_path, line))] == ["ñ"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "'not json' is not JSON"),
        ('{"audio_filepath": "a.wav"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "is a JSON list; it must be an object"),
        ('{"duration": 1, "text": "x"}', "has duration, text, but no `audio_filepath`"),
        ('{"audio_filepath": "a.wav", "duration": 1}', "but no `text`"),
        ('{"audio_filepath": "", "duration": 1, "text": "x"}', "audio_filepath is ''"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": 5}', "text is '5'; it must be a string"),
        ('{"audio_filepath": "a.wav", "duration": 0, "text": "x"}', "duration is 0 s; it must be above 0"),
        ('{"audio_filepath": "a.wav", "duration": NaN, "text": "x"}', "duration is nan"),
        ('{"audio_filepath": "a.wav", "duration": "1.5", "text": "x"}', "duration is '1.5'"),
        ('{"audio_filepath": "a.wav", "duration": 1, "offset": -1, "text": "x"}', "offset is -1"),
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 400 + ', "text": "x"}', "duration is 1000"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": "\\ud800"}', "text holds half a character"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": "x", "offset": 1e308}', "offset is 1e+308"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": "x", "offset": Infinity}', "offset is inf"),
        ('{"audio_filepath": "a.wav", "duration": 1, "text": "x", "offset": -NaN}', "is not JSON"),
        ('{"audio_filepath": "a.wav", "duration": true, "text": "x"}', "duration is True"),
        ('{"audio_filepath": "a.wav", "duration": [1], "text": "x"}', "duration is [1]"),
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 9000 + ', "text": "x"}', "is not JSON (Exceeds the limit"),
        ('{"audio_filepath": null, "text": "x"}', "audio_filepath is 'None'; it must be a string"),
        ('{"audio_filepath": "a\\u0000.wav", "text": "x"}', "audio_filepath is 'a\\x00.wav'; it must be a path"),
        ('{"audio_filepath": "a.wav", "text": "x", "speaker": {"a": 1}}', "speaker is {'a': 1}; it must be a string"),
        ('{"audio_filepath": "a.wav", "text": "x", "speaker": NaN}', "speaker is nan; it must be a string or a whole"),
        ('{"audio_filepath": "a.wav", "text": "x", "id": true}', "id is True; it must be a string or a whole number"),
        ('{"audio_filepath": "a.wav", "text": ' + "[" * 900 + "]" * 900 + "}", "it must be a string"),
        ('{"audio_filepath": "a.wav", "text": ' + "[" * 90_000 + "]" * 90_000 + "}", "is not JSON"),
        ('{"audio_filepath": "a.wav", "te\\u001b[31m": "x"}', "but no `text`"),
        ('"' + "x" * 2_000_000 + '"', "is longer than 1,048,576 bytes"),
        ("null", "is a JSON NoneType"),
    ],
)
def test_bad_line_is_named_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, '{"audio_filepath": "a.wav", "duration": 1, "text": "x"}\n' + line + "\n")
    with pytest.raises(ManifestError) as error:
        Manifest.load(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert said in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_speaker_number_zero_is_a_speaker(tmp_path: Path) -> None:
    lines = "".join(f'{{"audio_filepath": "{i}.wav", "text": "x", "speaker": {i % 3}, "id": {i}}}\n' for i in range(30))
    manifest = Manifest.load(write(tmp_path, lines))
    assert {found.speaker for found in manifest} == {"0", "1", "2"}
    assert manifest[0].id == "0"


def test_pipe_or_device_in_place_of_a_manifest_is_not_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(ManifestError, match=rf"{name}\.jsonl: is not a regular file"):
            Manifest.load(tmp_path / f"{name}.jsonl")


def test_missing_empty_and_binary_manifests_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read .No such file"):
        Manifest.load(tmp_path / "absent.jsonl")
    with pytest.raises(ManifestError, match="holds 0 utterances"):
        Manifest.load(write(tmp_path, "\n \n"))
    with pytest.raises(ManifestError, match=":1: byte 0 is not UTF-8"):
        Manifest.load(write(tmp_path, b"\xff\xfe\x00"))
    assert issubclass(ManifestError, CorpusError)


def test_speakers_are_parted_and_nothing_is_lost() -> None:
    manifest = Manifest(utterance(f"{speaker}-{i}", f"speaker {speaker}") for speaker in range(200) for i in range(3))
    splits = manifest.split_by_speaker()
    speakers = {split: {found.speaker for found in part} for split, part in splits.items()}
    assert set(speakers) == {"train", "dev", "test"}
    assert sum(map(len, speakers.values())) == 200
    assert set.union(*speakers.values()) == {found.speaker for found in manifest}
    assert sum(map(len, splits.values())) == len(manifest)
    assert all(10 <= len(speakers[split]) <= 30 for split in ("dev", "test"))


def test_split_of_a_speaker_is_fixed_for_good() -> None:
    few, many = (Manifest(utterance(str(i), f"speaker {i}") for i in range(count)) for count in (60, 90))
    split_of = {found.speaker: split for split, part in many.split_by_speaker().items() for found in part}
    for split, part in few.split_by_speaker().items():
        assert {split_of[found.speaker] for found in part} == {split}
    # Known answers: another hash would move speakers between the splits of a study and its successor.
    assert [i for i in range(30) if split_of[f"speaker {i}"] != "train"] == [1, 3, 4, 10]


def test_three_speakers_fill_three_splits_and_the_most_heard_one_trains() -> None:
    manifest = Manifest(
        utterance(f"{name}{i}", name) for name, count in (("a", 9), ("b", 2), ("c", 3)) for i in range(count)
    )
    splits = manifest.split_by_speaker()
    assert {split: {found.speaker for found in part} for split, part in splits.items()} == {
        "train": {"a"},
        "dev": {"b"},
        "test": {"c"},
    }


def test_fewer_than_three_speakers_all_train() -> None:
    manifest = Manifest([utterance("a", "x"), utterance("b", "y"), utterance("c", "y")])
    assert manifest.split_by_speaker() == {"train": manifest}
    assert Manifest().split_by_speaker() == {}


def test_without_speakers_utterances_are_split() -> None:
    splits = Manifest(utterance(str(i)) for i in range(300)).split_by_speaker()
    assert set(splits) == {"train", "dev", "test"}
    assert sum(map(len, splits.values())) == 300


def test_real_manifests_are_read_whole(shared_data: Path) -> None:
    real = Manifest.load(shared_data / "es-real" / "train.jsonl")
    spoken = Manifest.load(shared_data / "es-kokoro" / "train.jsonl")
    assert (len(real), len(spoken)) == (723, 1284)
    assert sum(found.duration_s or 0 for found in real) == pytest.approx(52 * 60, rel=0.01)
    assert all(Path(found.audio).is_file() for found in (*real[:5], *spoken[:5]))
    assert set(real.split_by_speaker()) == {"train", "dev", "test"}
