"""The benchmark of transcription times what it says."""

from pathlib import Path

import numpy as np
import pytest
import transcribe

from corpora.audio import decode
from models.frontend import FrontendConfig
from models.quartznet import AcousticModel, named_network
from models.recognizer import Recognizer
from models.segmentation import cut
from models.vocabulary import CharacterVocabulary

pytestmark = pytest.mark.timeout(120)


def test_sound_has_its_length_and_pauses_to_cut_in(tmp_path: Path) -> None:
    transcribe.write_sound(tmp_path / "long.mp3", 60.0, seed=0)
    sound = decode(tmp_path / "long.mp3")
    assert len(sound) == pytest.approx(60 * 16_000, rel=0.01)
    pieces = list(cut([sound], 320))
    assert len(pieces) > 5 and np.mean([piece.is_joined for piece in pieces]) < 0.3


def test_every_contestant_hears_the_files_in_every_turn(tmp_path: Path) -> None:
    transcribe.write_sound(tmp_path / "clip.mp3", 2.0, seed=0)
    vocabulary = CharacterVocabulary(("a", " "))
    turns = transcribe.contestants(Recognizer(FrontendConfig(), AcousticModel(named_network("narrow"), 3), vocabulary),
                                   tmp_path)
    assert list(turns) == ["decoding", "float32", "bf16", "ONNX Runtime"]
    done: list[int] = []
    times = transcribe.medians(turns, [tmp_path / "clip.mp3"], 2, lambda: done.append(1))
    assert len(done) == 12
    assert list(times) == list(turns) and min(times.values()) > 0


def test_table_divides_seconds_of_sound_by_seconds_of_work() -> None:
    header, _, row = transcribe.table([("one file", 120.0, {"decoding": 0.5, "float32": 2.0, "bf16": 1.0})])
    assert row == "| one file | 0.50 | 2.00 | 1.00 | 60 | 120 | 2.00 times faster |"
    assert header.count("|") == row.count("|")
