"""Exported files hear what PyTorch hears, at any batch size and length, and say what their use needs."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from corpora.audio import decode
from corpora.corpus import open_corpus
from models import export
from models.decoding import greedy
from models.export import Description, ExportError, export_onnx, export_torchscript, read_description
from models.frontend import FrontendConfig
from models.portable import PortableRecognizer
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig
from models.recognizer import Recognizer
from models.vocabulary import CharacterVocabulary, Vocabulary, train_vocabulary
from spaces.recipe import VocabularyRecipe

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: this check did not run")
pytestmark = pytest.mark.timeout(240)

Batch = tuple[Tensor, Tensor]
NETWORK = QuartzNetConfig(blocks=(
    BlockConfig(filters=16, kernel=5, stride=2, residual=False), BlockConfig(filters=16, repeat=2, kernel=3),
    BlockConfig(filters=24, kernel=1, residual=False, separable=False)))
TEXTS = [f"{a} {b} {c}" for a in ("enciende", "apaga", "sube") for b in ("la luz", "el ventilador", "la puerta")
         for c in ("ahora", "mañana", "del salón", "de la cocina")]


def _small(vocabulary: Vocabulary | None = None, frontend: FrontendConfig | None = None) -> Recognizer:
    vocabulary = vocabulary or CharacterVocabulary(tuple(" abcñ"))
    torch.manual_seed(0)
    return Recognizer(frontend or FrontendConfig(), AcousticModel(NETWORK, vocabulary.size + 1), vocabulary)


def _run(path: Path, batch: Batch) -> Batch:
    """What the file itself gives, in ONNX Runtime or in TorchScript."""
    if path.suffix == ".ts":
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", DeprecationWarning)
            return cast(Batch, torch.jit.load(str(path))(*batch))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    log_probs, lengths = session.run(None, {name: part.numpy() for name, part in zip(names, batch, strict=True)})
    return torch.from_numpy(log_probs), torch.from_numpy(lengths)


def _batch(clips: list[Tensor]) -> Batch:
    return nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def _largest(one: Tensor, other: Tensor, lengths: Tensor) -> float:
    """Largest difference in the valid frames."""
    return max([(one[row, :length].double() - other[row, :length].double()).abs().max().item()
                for row, length in enumerate(lengths.tolist()) if length], default=0.0)


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[Tensor]:
    """Two English and two Spanish ones with NeMo's figures, and one of Common Voice."""
    reference = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    known = [torch.from_numpy(waveform[:length]) for waveform, length in
             zip(reference["waveforms"], reference["waveform_lengths"], strict=True)]
    corpus = open_corpus(shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz")
    _, _, clip = next(iter(corpus.clips(["test"])))
    assert clip is not None
    return [*known, torch.from_numpy(decode(clip))]


def _batches(clips: list[Tensor]) -> list[Batch]:
    """Of one and of three, a 20 ms clip among them, of lengths that the trace did not have; float64 is slow."""
    return [_batch([clips[0][:32_000]]), _batch([clips[4][-24_001:]]), _batch([clips[0][4_000:4_320]]),
            _batch([clips[3][:20_000], clips[2][:30_001], clips[1][9_000:9_500]])]


@pytest.fixture(scope="module", params=["quartznet15x5_en.nemo", "reference/quartznet5x5_small_random.nemo"])
def real(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
         ) -> tuple[Recognizer, Path]:
    """A recogniser, and the folder of everything that is exported of it."""
    recognizer, folder = Recognizer.load(shared_data / request.param, precision="float32"), tmp_path_factory.mktemp("m")
    export_onnx(recognizer, folder / "waveforms.onnx", frontend=True, language="en")
    export_onnx(recognizer, folder / "features.onnx", frontend=False)
    export_torchscript(recognizer, folder / "model.ts", language="en")
    assert sorted(path.name for path in folder.iterdir()) == ["features.onnx", "model.ts", "waveforms.onnx"]
    return recognizer, folder


def test_network_in_onnx_runtime_is_pytorchs(real: tuple[Recognizer, Path], clips: list[Tensor]) -> None:
    """Probabilities within 1e-4 of PyTorch's, and log-probabilities as near to the exact ones as PyTorch's own.

    float32 itself moves the log-probabilities of unlikely labels by more than 1e-4, in PyTorch too.
    """
    recognizer, folder = real
    exact = AcousticModel(recognizer.acoustic.encoder.config, recognizer.vocabulary.size + 1).double().eval()
    exact.load_state_dict(recognizer.acoustic.state_dict())
    for batch in _batches(clips):
        features = recognizer.features(*batch)
        log_probs, lengths = _run(folder / "features.onnx", features)
        with torch.inference_mode():
            expected, expected_lengths = recognizer.acoustic(*features)
            truth, _ = exact(features[0].double(), features[1])
        assert torch.equal(lengths, expected_lengths) and log_probs.shape == expected.shape
        assert _largest(log_probs.exp(), expected.exp(), lengths) < 1e-4
        assert _largest(log_probs, truth, lengths) < 1e-4 + 2 * _largest(expected, truth, lengths)


@pytest.mark.parametrize("name", ["waveforms.onnx", "model.ts"])
def test_waveforms_give_pytorchs_probabilities_and_text(real: tuple[Recognizer, Path], clips: list[Tensor],
                                                        name: str) -> None:
    recognizer, folder = real
    plain = PortableRecognizer(recognizer.frontend, recognizer.acoustic).eval()
    for batch in _batches(clips):
        log_probs, lengths = _run(folder / name, batch)
        expected, expected_lengths = recognizer.log_probs(*batch)
        assert torch.equal(lengths, expected_lengths) and log_probs.shape == expected.shape
        with torch.inference_mode():
            assert _largest(log_probs.exp(), plain(*batch)[0].exp(), lengths) < 1e-4
        assert _largest(log_probs.exp(), expected.exp(), lengths) < 5e-4  # the Fourier transform is another one
        assert greedy(log_probs, lengths, recognizer.vocabulary) == greedy(expected, lengths, recognizer.vocabulary)


def test_exported_model_hears_nemos_text(shared_data: Path, tmp_path: Path, clips: list[Tensor]) -> None:
    export_onnx(Recognizer.load(shared_data / "quartznet15x5_en.nemo"), tmp_path / "model.onnx", frontend=True)
    expected = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")["greedy_text"].tolist()
    vocabulary = read_description(tmp_path / "model.onnx").vocabulary  # the file alone is enough
    assert greedy(*_run(tmp_path / "model.onnx", _batch(clips[:4])), vocabulary) == expected


@pytest.mark.parametrize("frontend", [FrontendConfig(), FrontendConfig(padding="reflect", pad_to=0)])
@pytest.mark.parametrize("kind", ["characters", "characters_folded", "bpe", "unigram"])
def test_description_comes_back(tmp_path: Path, kind: Any, frontend: FrontendConfig) -> None:
    size = 34 if kind in ("bpe", "unigram") else 0
    vocabulary = train_vocabulary(VocabularyRecipe(kind=kind, size=size), TEXTS, " abcdefghijklmnopqrstuvwxyzáéíñóúü")
    recognizer = _small(vocabulary, frontend)
    export_onnx(recognizer, tmp_path / "model.onnx", frontend=False, language="es")
    export_torchscript(recognizer, tmp_path / "model.ts", language="es")
    for name, takes_waveforms in (("model.onnx", False), ("model.ts", True)):
        description = read_description(tmp_path / name)
        assert (description.frontend, description.vocabulary, description.language) == (frontend, vocabulary, "es")
        assert (description.takes_waveforms, description.frame_s) == (takes_waveforms, 0.02)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert Description.from_properties(properties) == read_description(tmp_path / "model.onnx")
    # Without Cuarzo there are the labels, the blank and the front end's numbers.
    assert (json.loads(properties["labels"]), properties["blank"]) == (list(vocabulary.labels), str(vocabulary.blank))
    assert json.loads(properties["frontend"])["hop_samples"] == 160


def test_batch_and_time_are_open_and_numbers_are_float32(tmp_path: Path) -> None:
    export_onnx(_small(), tmp_path / "model.onnx", frontend=True)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
              for value in (*model.graph.input, *model.graph.output)}
    assert shapes == {"waveforms": ["batch", "samples"], "lengths": ["batch"],
                      "log_probs": ["batch", "log_prob_frames", 6], "log_prob_lengths": ["batch"]}
    weights = [weight for weight in model.graph.initializer if len(weight.dims) > 1]
    assert {weight.data_type for weight in weights} == {onnx.TensorProto.FLOAT}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("name", ["model.onnx", "model.ts"])
def test_bad_files_get_one_clear_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ExportError, match=f"{name}: there is no such file"):
        read_description(path)
    (export_torchscript if name == "model.ts" else _with_frontend)(_small(), path)
    whole = path.read_bytes()
    for content in (b"", b"junk" * 100, whole[:len(whole) // 2], whole[:-5]):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=f"{name}: ") as complaint:
            read_description(path)
        assert "\n" not in str(complaint.value) and len(str(complaint.value)) < 400


def test_models_of_others_are_named(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="other.onnx: its metadata has no frontend, so Cuarzo did not export it"):
        read_description(tmp_path / "other.onnx")
    for wrong, said in (({"vocabulary": "{}"}, ""), ({"input": "mfcc"}, ".*input is 'mfcc'; it must be waveforms or")):
        onnx.helper.set_model_props(model, {**_properties(), **wrong})
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(ExportError, match="other.onnx: its metadata is damaged" + said):
            read_description(tmp_path / "other.onnx")


def test_file_of_another_name_is_not_taken_for_onnx(tmp_path: Path) -> None:
    (tmp_path / "model.nemo").touch()
    with pytest.raises(ExportError, match=r"model.nemo: the name ends in '.nemo'; it must end in .onnx or .ts. Name a"):
        read_description(tmp_path / "model.nemo")


@pytest.mark.parametrize(("change", "message"), [
    (lambda log_probs, lengths: (log_probs.roll(1, -1), lengths), "probabilities differ from PyTorch's by"),
    (lambda log_probs, lengths: (log_probs * torch.nan, lengths), "differ from PyTorch's by nan"),
    (lambda log_probs, lengths: (log_probs, lengths - 1), "of lengths"),
])
def test_what_is_not_the_same_network_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     change: Callable[[Tensor, Tensor], Batch], message: str) -> None:
    compare = export._compare
    monkeypatch.setattr(export, "_compare", lambda path, expected, given: compare(path, expected, change(*given)))
    for write, name in ((_with_frontend, "model.onnx"), (export_torchscript, "model.ts")):
        with pytest.raises(ExportError, match=f"{name}: .*{message}"):
            write(_small(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_network_that_pytorch_cannot_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operation\nand more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"model.onnx: PyTorch cannot write .* \(no such operation\)"):
        export_onnx(_small(), tmp_path / "model.onnx", frontend=True)


def _with_frontend(recognizer: Recognizer, path: Path) -> None:
    export_onnx(recognizer, path, frontend=True)


def _properties() -> dict[str, str]:
    return Description(takes_waveforms=True, frontend=FrontendConfig(), vocabulary=CharacterVocabulary(("a",)),
                       language="", frame_s=0.02, version="").to_properties()
