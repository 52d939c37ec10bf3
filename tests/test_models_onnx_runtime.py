"""The exported model hears in ONNX Runtime what PyTorch hears, from its file alone."""

import sys
from pathlib import Path

import pytest
import torch

from corpora.corpus import open_corpus
from models.export import ExportError, export_onnx
from models.frontend import FrontendConfig
from models.onnx_runtime import load_onnx
from models.quartznet import AcousticModel, named_network
from models.recognizer import Recognizer
from models.transcription import Transcript
from models.vocabulary import CharacterVocabulary

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("frontend", [True, False])
def test_words_and_times_are_those_of_pytorch(shared_data: Path, tmp_path: Path, frontend: bool) -> None:
    recognizer = Recognizer.load(shared_data / "quartznet15x5_en.nemo", precision="float32")
    export_onnx(recognizer, tmp_path / "model.onnx", frontend=frontend)
    corpus = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz")
    paths = []
    for i, (_, _, clip) in zip(range(4), corpus.clips(("train", "dev", "test")), strict=False):
        assert isinstance(clip, bytes)
        paths.append(tmp_path / f"{i}.mp3")
        paths[-1].write_bytes(clip)
    ours = list(recognizer.transcriber.transcribe(paths))
    theirs = list(load_onnx(tmp_path / "model.onnx", threads=1).transcribe(paths))
    for mine, other in zip(ours, theirs, strict=True):
        assert isinstance(mine, Transcript) and isinstance(other, Transcript) and mine.words
        assert mine.text == other.text
        for word, heard in zip(mine.words, other.words, strict=True):
            assert (word.start_s, word.end_s) == (heard.start_s, heard.end_s)
            assert word.confidence == pytest.approx(heard.confidence, abs=2e-3)


def test_front_end_that_reflects_hears_a_clip_the_same_beside_longer_ones(tmp_path: Path) -> None:
    vocabulary = CharacterVocabulary(tuple(" abcdefg"))
    torch.manual_seed(0)
    recognizer = Recognizer(FrontendConfig(padding="reflect"), AcousticModel(named_network("narrow"), 9), vocabulary)
    export_onnx(recognizer, tmp_path / "model.onnx", frontend=True)
    transcriber = load_onnx(tmp_path / "model.onnx", threads=1)
    clips = [torch.randn(num_samples).numpy() for num_samples in (8_000, 32_000, 12_345)]
    together = list(transcriber.transcribe(clips))
    assert together == [transcript for clip in clips for transcript in transcriber.transcribe([clip])]
    assert all(isinstance(transcript, Transcript) and transcript.words for transcript in together)


def test_runtime_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match="model.onnx: needs ONNX Runtime, which is not installed"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize(("content", "said"), [(None, "there is no such file"), (b"no model", "not an ONNX model")])
def test_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=said) as error:
        load_onnx(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_model_of_another_program_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              str(tmp_path / "x.onnx"))
    with pytest.raises(ExportError, match="Cuarzo did not export it"):
        load_onnx(tmp_path / "x.onnx")
