"""What `search/transcribe.py` prints, where, and how it ends."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpora.audio import AudioError
from corpora.clips import Clip
from models.decoding import Word
from models.frontend import FrontendConfig
from models.nemo import write_nemo
from models.quartznet import AcousticModel, named_network
from models.transcription import Transcript
from models.vocabulary import CharacterVocabulary
from search.command_line import commands
from search.command_line.print_transcripts import print_transcripts
from search.speech.catalog import SOURCES
from search.speech.download import record_of
from search.trials.interrupt import Interrupted

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
SOUND = np.random.default_rng(0).normal(0, 0.1, 8_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    torch.manual_seed(0)  # of other weights, a network may hear nothing
    network = named_network("narrow")
    path = tmp_path_factory.mktemp("model") / "model.nemo"
    write_nemo(path, FrontendConfig(), network, vocabulary, AcousticModel(network, vocabulary.size + 1).state_dict())
    return path


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    for name in ("b.wav", "a.flac"):
        soundfile.write(tmp_path / name, SOUND, 16_000)
    return [str(tmp_path / "b.wav"), str(tmp_path / "a.flac")]


class Stub:
    """A transcriber that has heard already, and is interrupted where it hears nothing."""

    def __init__(self, *results: Transcript | AudioError | None) -> None:
        self.results = results

    def transcribe(self, sources: object, on_heard: object) -> Iterator[Transcript | AudioError]:
        for result in self.results:
            if result is None:
                raise KeyboardInterrupt
            on_heard(1.0)  # type: ignore[operator]
            yield result


def said(text: str) -> Transcript:
    return Transcript(duration_s=1.23456, words=tuple(Word(text=word, start_s=0.1234, end_s=0.5, confidence=0.98765)
                                                      for word in text.split()))


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_line_a_clip_and_the_same_text_in_json(
        model: Path, clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.transcribe([str(model), *clips, "--no-names"]) == 0
    texts = capsys.readouterr().out.split("\n")[:-1]
    assert len(texts) == 2
    assert commands.transcribe([str(model), *clips, "--json"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["path"] for row in rows] == clips and [row["text"] for row in rows] == texts and printed.err == ""
    assert [row["duration_s"] for row in rows] == [0.5, 0.5]
    assert all(" ".join(word["word"] for word in row["words"]) == row["text"] for row in rows)
    assert commands.transcribe([str(model), str(tmp_path), "--json"]) == 0
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == sorted(clips)


def test_one_bad_clip_or_model_is_one_line(model: Path, clips: list[str], tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.wav").touch()
    for arguments, complaint in (([str(tmp_path / "empty.wav"), *clips], "empty.wav: not a .nemo file"),
                                 ([str(model), str(tmp_path / "absent.wav")], "absent.wav: there is no such file"),
                                 ([str(model), str(tmp_path / "empty.wav")], "empty.wav: is empty (0 bytes)")):
        assert commands.transcribe(arguments) == commands.FAILED
        printed = capsys.readouterr()
        assert complaint in printed.err and printed.err.startswith("error: ") and printed.err.count("\n") == 1
        assert printed.out == ""


def test_bad_clips_among_good_ones_are_named_and_counted_at_the_end(
        model: Path, clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 8)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{clips[0]}\n{tmp_path / 'absent.wav'}\n{clips[1]}\n"))
    assert commands.transcribe([str(model), str(tmp_path / "noise.mp3"), "-"]) == commands.FAILED
    printed = capsys.readouterr()
    lines = [line.split("\t") for line in printed.out.split("\n")[:-1]]
    names = ("noise.mp3", "b.wav", "absent.wav", "a.flac")
    assert [path for path, _ in lines] == [f"{tmp_path}/{name}" for name in names]
    assert [bool(text) for _, text in lines] == [False, True, False, True], "a line a clip"
    noise, absent, total = printed.err.splitlines()
    assert "noise.mp3: 2,048 bytes cannot be decoded" in noise and "absent.wav: there is no such file" in absent
    assert total.startswith("error: 2 of 4 clips could not be transcribed")


def test_model_for_other_programs_is_told_apart(clips: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.transcribe(["runs/a/best/model.ts", clips[0]]) == commands.FAILED
    assert "runs/a/best/model.ts: TorchScript is for programs that load it" in capsys.readouterr().err


def test_ctrl_c_promises_nothing_to_go_on_with(model: Path, clips: list[str], capsys: pytest.CaptureFixture[str],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.recognizer.Recognizer.load", interrupt)
    assert commands.transcribe([str(model), clips[0]]) == commands.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_script_stops_in_silence_when_its_reader_has_seen_enough(model: Path, clips: list[str]) -> None:
    script = subprocess.Popen([sys.executable, "search/transcribe.py", str(model), *clips * 3], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert script.stdout is not None and script.stderr is not None
    script.stdout.close()
    assert script.stderr.read() == b"" and script.wait() == 0


def test_texts_stand_beside_their_paths_but_for_a_single_sound_file(
        model: Path, clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "list.txt").write_text(f"{clips[0]}\n")
    soundfile.write(folder / "c.wav", SOUND, 16_000)
    for arguments, named in (([clips[0]], []), ([clips[0], "--names"], [clips[0]]), (clips, clips),
                             ([*clips, "--no-names"], []), ([str(folder)], [f"{folder}/c.wav"]),
                             ([str(folder / "list.txt")], [clips[0]])):
        assert commands.transcribe([str(model), *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition("\t")[0] for line in lines if "\t" in line] == named, arguments


# --- what is printed -------------------------------------------------------------------------------------------------


def test_json_has_times_and_confidence(capsys: pytest.CaptureFixture[str]) -> None:
    clips = [Clip(path="ñ.wav"), Clip(path="b.wav", offset_s=2.5, duration_s=1.0)]
    print_transcripts(Stub(said("hola"), said("")), clips, as_json=True)  # type: ignore[arg-type]
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"path": "ñ.wav", "duration_s": 1.235, "text": "hola",
                     "words": [{"word": "hola", "start_s": 0.123, "end_s": 0.5, "confidence": 0.9877}]}
    assert second == {"path": "b.wav", "offset_s": 2.5, "duration_s": 1.235, "text": "", "words": []}


def test_path_takes_one_field_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    clips: list[Clip | AudioError] = [Clip(path="a\tb\nc.wav"), Clip(path=os.fsdecode(b"ni\xf1o.wav")),
                                      AudioError("no such list")]
    with pytest.raises(AudioError, match="1 of 3"):
        print_transcripts(Stub(said("uno"), said("dos"), AudioError("no such list")), clips,  # type: ignore[arg-type]
                          as_json=False, has_names=True)
    assert capsys.readouterr().out == "a\\tb\\nc.wav\tuno\nni\\udcf1o.wav\tdos\n\t\n"


def test_path_that_is_not_utf_8_comes_back_from_json(capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fsdecode(b"ni\xf1o.wav")
    print_transcripts(Stub(said("niño")), [Clip(path=path)], as_json=True)  # type: ignore[arg-type]
    row = json.loads(capsys.readouterr().out)
    assert (row["path"], row["text"]) == (path, "niño")


def test_interrupt_keeps_what_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted, match="after 1 of 3 clips; what was printed is valid"):
        print_transcripts(Stub(said("uno dos"), None), [Clip(path="a.wav")] * 3, as_json=False)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "uno dos\n"


def test_bar_is_drawn_on_a_terminal_alone_and_only_for_long_work(
        clips: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    absent = AudioError(" ".join(["absent"] * 30))  # wider than the terminal
    found = [Clip(path=clips[0]), absent, Clip(path=clips[1])]
    drawn = {}
    for quiet_s in (0.0, 3600.0):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("search.command_line.print_transcripts.QUIET_S", quiet_s)
        with pytest.raises(AudioError, match="1 of 3 clips"):
            print_transcripts(Stub(said("uno"), absent, said("dos")), found, as_json=False)  # type: ignore[arg-type]
        drawn[quiet_s] = terminal.getvalue()
        assert capsys.readouterr().out == "uno\n\ndos\n", "a pipe gets the text and nothing else"
    assert "transcribing" in drawn[0.0] and "/1 s" in drawn[0.0] and f"error: {absent}\n" in drawn[0.0]
    assert drawn[3600.0] == f"error: {absent}\n"


def test_model_is_taken_from_a_runs_folder_or_by_its_name(model: Path, clips: list[str], tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.transcribe([str(model), *clips]) == 0
    expected = capsys.readouterr().out
    best = tmp_path / "runs" / "NAME" / "best"
    best.mkdir(parents=True)
    shutil.copy(model, best / "model.nemo")
    for folder in (best.parent, best):
        assert commands.transcribe([str(folder), *clips]) == 0
        assert capsys.readouterr().out == expected
    monkeypatch.setenv("CUARZO_CACHE", str(tmp_path / "cache"))
    held = tmp_path / "cache" / "downloads" / "sources" / SOURCES["stt_en_quartznet15x5"].file_name
    held.parent.mkdir(parents=True)
    shutil.copy(model, held)
    record_of(held).write_text(json.dumps({"num_bytes": held.stat().st_size}))
    assert commands.transcribe(["stt_en_quartznet15x5", *clips]) == 0
    assert capsys.readouterr().out == expected
    (best / "model.nemo").unlink()
    assert commands.transcribe([str(best.parent), *clips]) == commands.FAILED
    assert "NAME: is a folder without best/model.nemo" in capsys.readouterr().err
