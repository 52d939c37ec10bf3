"""Export a recogniser for other runtimes, as ONNX or TorchScript, with all that inference needs in the file."""

import importlib.metadata
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from files.atomic import write_aside
from models.frontend import FFT_SIZE, HOP, LOG_FLOOR, PREEMPHASIS, SAMPLE_RATE_HZ, WINDOW, FrontendConfig
from models.portable import PortableNetwork, PortableRecognizer
from models.recognizer import Recognizer
from models.vocabulary import Vocabulary, vocabulary_from_bytes, vocabulary_to_bytes

OPSET = 17
"""ONNX Runtime reads it since 1.12."""
CHECK_TOLERANCE = 0.01
"""Largest difference from PyTorch's probabilities when an export is checked on noise: rounding is far below it, a wrong
graph far above. The tests measure the difference on speech."""
_DESCRIPTION = "description.json"  # TorchScript's name for what ONNX has in its metadata
_FRONT_END = {"sample_rate_hz": SAMPLE_RATE_HZ, "window_samples": WINDOW, "hop_samples": HOP, "fft_size": FFT_SIZE,
              "preemphasis": PREEMPHASIS, "log_floor": LOG_FLOOR}
"""What every front end shares, for reimplementations; the rest are the fields of FrontendConfig."""

_INPUTS = ("waveforms", "features")


class ExportError(ValueError):
    """An exported model that cannot be written, or a file that is not one."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The metadata of an exported file."""

    takes_waveforms: bool
    """Whether the front end is included; otherwise the model takes features."""
    frontend: FrontendConfig
    vocabulary: Vocabulary
    language: str
    """A language code, es for example; empty if unknown."""
    frame_s: float
    """Seconds per frame of log-probabilities."""
    version: str
    """Version of the Cuarzo that wrote the file."""

    def to_properties(self) -> dict[str, str]:
        """As ONNX stores it, strings by name. Labels and blank are stored twice, for readers without Cuarzo."""
        return {"cuarzo_version": self.version, "language": self.language,
                "input": "waveforms" if self.takes_waveforms else "features",
                "frontend": json.dumps(_FRONT_END | asdict(self.frontend)), "frame_s": str(self.frame_s),
                "vocabulary": vocabulary_to_bytes(self.vocabulary).decode(), "blank": str(self.vocabulary.blank),
                "labels": json.dumps(self.vocabulary.labels, ensure_ascii=False)}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Self:
        """Read what `to_properties` wrote, as ONNX Runtime's `get_modelmeta().custom_metadata_map` returns it.

        Raises:
            ExportError: a property is missing, so `export_onnx` or `export_torchscript` did not write the file.
        """
        try:
            frontend = {name: value for name, value in json.loads(properties["frontend"]).items()
                        if name not in _FRONT_END}
            if (given := properties["input"]) not in _INPUTS:
                raise ValueError(f"input is {given!r}; it must be {' or '.join(_INPUTS)}")
            return cls(takes_waveforms=given == "waveforms", frontend=FrontendConfig(**frontend),
                       vocabulary=vocabulary_from_bytes(properties["vocabulary"].encode()),
                       language=properties["language"], frame_s=float(properties["frame_s"]),
                       version=properties["cuarzo_version"])
        except KeyError as error:
            raise ExportError(f"its metadata has no {error.args[0]}, so Cuarzo did not export it. Name a model.onnx or "
                              "model.ts of a run's best/.") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ExportError(f"its metadata is damaged ({error}). Export it again.") from error


def export_onnx(recognizer: Recognizer, path: str | os.PathLike[str], *, frontend: bool, language: str = "") -> None:
    """Write an ONNX model of any batch size and length, in float32, with BatchNorm folded.

    With `frontend` its inputs are `waveforms` (batch, samples), 16 kHz mono in [-1, 1], without it `features` (batch,
    mels, frames), and `lengths` (batch,) in samples or frames. Its outputs are `log_probs` (batch, frames', labels and
    blank) and `log_prob_lengths` (batch,); frames past these mean nothing. With a front end that pads by reflection,
    the end of a clip depends on its batch (see `FrontendConfig.padding`): run clips one by one. The file is written
    aside, checked, compared with PyTorch if ONNX Runtime is installed, and renamed.

    Raises:
        ExportError: PyTorch cannot export it, or the export computes something else.
    """
    model, name = _plain(recognizer, frontend), "waveforms" if frontend else "features"
    example, trial = _noise(recognizer, frontend, 2, 96), _noise(recognizer, frontend, 3, 77)
    axes = {name: {0: "batch", example[0].ndim - 1: "samples" if frontend else "frames"}, "lengths": {0: "batch"},
            "log_probs": {0: "batch", 1: "log_prob_frames"}, "log_prob_lengths": {0: "batch"}}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # PyTorch advises its newer exporter, which takes a minute for a 15x5
            torch.onnx.export(model, example, buffer,  # type: ignore[arg-type]  # it takes files too
                              dynamo=False, opset_version=OPSET, dynamic_axes=axes, input_names=[name, "lengths"],
                              output_names=["log_probs", "log_prob_lengths"])
            expected = model(*trial)
        proto = onnx.load_model_from_string(buffer.getvalue())
        onnx.helper.set_model_props(proto, _describe(recognizer, frontend, language).to_properties())
        content = proto.SerializeToString()
        onnx.checker.check_model(content)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path}: PyTorch cannot write it as ONNX ({_first_sentence(error)}).") from error
    if importlib.util.find_spec("onnxruntime"):
        _check_runtime(path, content, expected, {name: trial[0], "lengths": trial[1]})
    write_aside(Path(path), content)


def export_torchscript(recognizer: Recognizer, path: str | os.PathLike[str], *, language: str = "") -> None:
    """Write a TorchScript module of any batch size and length, in float32, with front end and BatchNorm folded.

    `torch.jit.load(path)(waveforms, lengths)` takes (batch, samples), 16 kHz mono, and (batch,) samples; it returns
    log-probabilities (batch, frames', labels and blank) and their lengths (batch,). It runs on any device. The file is
    written aside, checked and renamed.

    Raises:
        ExportError: PyTorch cannot export it, or the export computes something else.
    """
    model, buffer = _plain(recognizer, True), io.BytesIO()
    example, trial = _noise(recognizer, True, 2, 96), _noise(recognizer, True, 3, 77)
    properties = json.dumps(_describe(recognizer, True, language).to_properties(), ensure_ascii=False)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # TorchScript is no longer developed, but is read everywhere
            script = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(script, buffer, _extra_files={_DESCRIPTION: properties})
            content = buffer.getvalue()
            copy = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
            expected, given = model(*trial), copy(*trial)
    except RuntimeError as error:
        raise ExportError(f"{path}: PyTorch cannot write it as TorchScript ({_first_sentence(error)}).") from error
    _compare(path, expected, given)
    write_aside(Path(path), content)


def read_description(path: str | os.PathLike[str]) -> Description:
    """Read the metadata of a file that `export_onnx` or `export_torchscript` wrote.

    Raises:
        ExportError: no such file, a damaged one, or one that Cuarzo did not export.
    """
    if not Path(path).is_file():
        raise ExportError(f"{path}: there is no such file. Name a model.onnx or model.ts.")
    suffix = Path(path).suffix
    if suffix not in (".onnx", ".ts"):
        raise ExportError(f"{path}: the name ends in {suffix!r}; it must end in .onnx or .ts. Name a model.onnx or "
                          "model.ts of a run's best/.")
    try:
        if suffix == ".ts":
            return Description.from_properties(_torchscript_properties(path))
        model = onnx.load_model(path)
        return Description.from_properties({entry.key: entry.value for entry in model.metadata_props})
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ExportError(f"{path}: not a {suffix} model, or damaged ({_first_sentence(error)}). "
                          "Export it again.") from error


def _torchscript_properties(path: str | os.PathLike[str]) -> dict[str, str]:
    extra = {_DESCRIPTION: b""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    properties: dict[str, str] = json.loads(extra[_DESCRIPTION] or b"{}")
    return properties


def _plain(recognizer: Recognizer, frontend: bool) -> nn.Module:
    """The module that is exported."""
    if frontend:
        return PortableRecognizer(recognizer.frontend, recognizer.acoustic).eval()
    return PortableNetwork(recognizer.acoustic).eval()


def _noise(recognizer: Recognizer, frontend: bool, batch: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Waveforms, or features without the front end, and lengths, each a quarter shorter than the one before."""
    config = recognizer.frontend.config
    shape = (batch, num_frames * HOP) if frontend else (batch, config.num_mels, num_frames)
    longest = shape[-1]
    lengths = torch.tensor([longest - clip * longest // 4 for clip in range(batch)])
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch)), lengths


def _check_runtime(path: str | os.PathLike[str], content: bytes, expected: tuple[Tensor, Tensor],
                   inputs: dict[str, Tensor]) -> None:
    """Run the file's content in ONNX Runtime.

    Raises:
        ExportError: ONNX Runtime cannot run it, or computes something else.
    """
    import onnxruntime  # not needed to write a file

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        given = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception as error:  # of its own C++ module, without a common base
        raise ExportError(f"{path}: ONNX Runtime cannot run the export ({_first_sentence(error)}).") from error
    _compare(path, expected, (torch.from_numpy(given[0]), torch.from_numpy(given[1])))


def _compare(path: str | os.PathLike[str], expected: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor]) -> None:
    if expected[0].shape != given[0].shape or not torch.equal(expected[1], given[1]):
        raise ExportError(f"{path}: the export gives log-probabilities {tuple(given[0].shape)} of lengths "
                          f"{given[1].tolist()}; PyTorch gives {tuple(expected[0].shape)}, {expected[1].tolist()}.")
    difference = (expected[0].exp() - given[0].exp()).abs().max().item()
    if not difference <= CHECK_TOLERANCE:
        raise ExportError(f"{path}: the export's probabilities differ from PyTorch's by {difference:.2g}; at most "
                          f"{CHECK_TOLERANCE} is rounding.")


def _describe(recognizer: Recognizer, frontend: bool, language: str) -> Description:
    try:
        version = importlib.metadata.version("cuarzo")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        version = "unknown"
    frame_s = recognizer.acoustic.encoder.config.stride * HOP / SAMPLE_RATE_HZ
    return Description(takes_waveforms=frontend, frontend=recognizer.frontend.config, language=language,
                       vocabulary=recognizer.vocabulary, frame_s=frame_s, version=version)


def _first_sentence(error: Exception) -> str:
    """The first sentence of a message that may run over pages."""
    return re.split(r"\n|\. ", str(error).strip())[0]
