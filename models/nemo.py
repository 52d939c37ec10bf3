"""Read and write NVIDIA NeMo's model files (.nemo) of QuartzNets."""

import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor

from corpora.storage import write_shared
from models.frontend import WINDOW, FrontendConfig, FrontendError, mel_filters
from models.quartznet import AcousticModel, BlockConfig, NetworkError, QuartzNetConfig
from models.vocabulary import WORD_START, CharacterVocabulary, PieceKind, PieceVocabulary, Vocabulary, VocabularyError

WRITTEN_NEMO_VERSION = "3.0.0"
"""The version whose layout `write_nemo` follows."""
ZERO_PADDING_SINCE = (2, 5)
"""From this NeMo on the front end pads with zeros; a file of an older one was trained with reflection."""

_CONFIG, _WEIGHTS, _TOKENIZER = "model_config.yaml", "model_weights.ckpt", "tokenizer.model"
_PIECES, _SCORES = "vocab.txt", "tokenizer.vocab"
_OURS = "cuarzo"  # a section that NeMo ignores
_MODELS = "nemo.collections.asr.models"
_NORM_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

_PREPROCESSOR = {"sample_rate": 16_000, "window_size": 0.02, "window_stride": 0.01, "n_fft": 512, "window": "hann",
                 "normalize": "per_feature", "frame_splicing": 1, "preemph": 0.97, "log": True, "mag_power": 2.0,
                 "lowfreq": 0, "pad_value": 0}
"""The front end's fixed numbers; a file that sets another one is not read."""
_ENCODER = {"activation": "relu", "conv_mask": True, "normalization_mode": "batch", "residual_mode": "add"}
_BLOCK = {"se": False, "residual_dense": False, "residual_mode": "add", "kernel_size_factor": 1, "groups": 1,
          "heads": -1, "stride_last": False, "normalization": "batch", "tied": False}


class NemoFileError(ValueError):
    """A .nemo file that cannot be read, or that holds no QuartzNet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceModel:
    """What a .nemo file holds."""

    frontend: FrontendConfig
    network: QuartzNetConfig
    vocabulary: Vocabulary
    state: dict[str, Tensor]
    """`AcousticModel.state_dict()`, in the precision of the file."""


def read_nemo(path: str | os.PathLike[str]) -> SourceModel:
    """Read a QuartzNet that NeMo or `write_nemo` saved, plain or gzipped, in full or half precision.

    Raises:
        NemoFileError: no such file, not a .nemo, truncated, not a QuartzNet, or weights that do not fit.
    """
    members = _read_members(Path(path))
    try:
        config = yaml.safe_load(members[_CONFIG])
        if not isinstance(config, dict):
            raise NemoFileError(f"its {_CONFIG} is not a mapping.")
        network = _read_network(_section(config, "encoder"))
        frontend = _read_frontend(config)
        if frontend.num_mels != network.num_mels:
            raise NemoFileError(f"its front end gives {frontend.num_mels} mels, its encoder takes {network.num_mels}.")
        vocabulary = _read_vocabulary(config, members)
        state = _read_state(members[_WEIGHTS], network, vocabulary.size + 1)
    except (NemoFileError, NetworkError, FrontendError, VocabularyError) as error:
        raise NemoFileError(f"{path}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NemoFileError(f"{path}: its {_CONFIG} is not YAML ({str(error).splitlines()[0]}).") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NemoFileError(f"{path}: its {_CONFIG} lacks what a QuartzNet needs ({error!r}).") from error
    return SourceModel(frontend=frontend, network=network, vocabulary=vocabulary, state=state)


def write_nemo(path: str | os.PathLike[str], frontend: FrontendConfig, network: QuartzNetConfig,
               vocabulary: Vocabulary, state: Mapping[str, Tensor]) -> None:
    """Write a file that NeMo 3.0 restores: characters as EncDecCTCModel, pieces as EncDecCTCModelBPE.

    `state` is `AcousticModel.state_dict()`. The file is written aside and renamed.

    Raises:
        NemoFileError: the weights do not fit `network` and `vocabulary`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_shapes(state, network, vocabulary.size + 1)
    weights = {"preprocessor.featurizer.window": torch.hann_window(WINDOW, periodic=False),
               "preprocessor.featurizer.fb": mel_filters(frontend.num_mels)[None]}
    for ours, theirs in nemo_names(network):
        tensor = state[ours].detach().cpu()
        weights[theirs] = tensor[:, :, None].clone() if _is_pointwise(ours) else tensor.clone()
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    config = model_config(frontend, network, vocabulary)
    members = {_CONFIG: yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode(),
               _WEIGHTS: buffer.getvalue()}
    if isinstance(vocabulary, PieceVocabulary):
        members |= tokenizer_files(vocabulary)

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    write_shared(target, write)


def nemo_names(network: QuartzNetConfig) -> Iterator[tuple[str, str]]:
    """Pairs of our name and NeMo's of every weight and buffer of an `AcousticModel`."""
    for number, block in enumerate(network.blocks):
        ours, theirs = f"encoder.blocks.{number}", f"encoder.encoder.{number}"
        for repeat in range(block.repeat):
            # NeMo counts convolutions, BatchNorm, ReLU and dropout in one list.
            index = repeat * (5 if block.separable else 4)
            if block.separable:
                yield f"{ours}.layers.{repeat}.depthwise", f"{theirs}.mconv.{index}.conv.weight"
                index += 1
            yield f"{ours}.layers.{repeat}.pointwise", f"{theirs}.mconv.{index}.conv.weight"
            for key in _NORM_KEYS:
                yield f"{ours}.layers.{repeat}.norm.{key}", f"{theirs}.mconv.{index + 1}.{key}"
        if block.residual:
            yield f"{ours}.residual.pointwise", f"{theirs}.res.0.0.conv.weight"
            for key in _NORM_KEYS:
                yield f"{ours}.residual.norm.{key}", f"{theirs}.res.0.1.{key}"
    yield "decoder.weight", "decoder.decoder_layers.0.weight"
    yield "decoder.bias", "decoder.decoder_layers.0.bias"


def _is_pointwise(ours: str) -> bool:
    return ours.endswith("pointwise") or ours == "decoder.weight"


def _read_members(path: Path) -> dict[str, bytes]:
    """The files in the archive by their last name; NeMo puts a hash before the tokenizer's."""
    if not path.is_file():
        raise NemoFileError(f"{path}: there is no such file. Name a .nemo file.")
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                wanted = next((known for known in (_CONFIG, _WEIGHTS, _TOKENIZER) if name.endswith(known)), None)
                content = archive.extractfile(member) if wanted else None
                if wanted and content is not None:
                    members[wanted] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, tarfile.ReadError) and not members and "end of data" not in str(error):
            raise NemoFileError(f"{path}: not a .nemo file (a tar). Name one, or fetch it again.") from error
        raise NemoFileError(f"{path}: a truncated .nemo file: {error}. Fetch it again.") from error
    for name in (_CONFIG, _WEIGHTS):
        if name not in members:
            raise NemoFileError(f"{path}: there is no {name} in it, so it is not a .nemo file, or is truncated.")
    return members


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise NemoFileError(f"its {_CONFIG} has no section {name}; it holds no CTC model.")
    return section


def _check_values(section: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    for name, value in expected.items():
        held = section.get(name, value)
        is_reference = isinstance(held, str) and held.startswith("${")  # to another field, which sets NeMo's default
        if held != value and not is_reference:
            raise NemoFileError(f"{where}.{name} is {held!r}; a QuartzNet's is {value!r}. "
                                "Only plain QuartzNets can be read.")


def _read_network(encoder: Mapping[str, Any]) -> QuartzNetConfig:
    if not str(encoder.get("_target_")).endswith(".ConvASREncoder"):
        raise NemoFileError(f"its encoder is {encoder.get('_target_')}; it must be NeMo's ConvASREncoder, as a "
                            "QuartzNet's is.")
    _check_values(encoder, _ENCODER, "encoder")
    rows = encoder.get("jasper")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NemoFileError("its encoder has no list of blocks (jasper).")
    return QuartzNetConfig(num_mels=int(encoder["feat_in"]),
                           blocks=tuple(_read_block(row, f"encoder.jasper[{i}]") for i, row in enumerate(rows)))


def _read_block(row: Mapping[str, Any], where: str) -> BlockConfig:
    _check_values(row, _BLOCK, where)
    try:
        kernel, stride, dilation = (_single(row.get(name, [1])) for name in ("kernel", "stride", "dilation"))
        return BlockConfig(filters=int(row["filters"]), repeat=int(row["repeat"]), kernel=kernel, stride=stride,
                           dilation=dilation, dropout=float(row.get("dropout", 0.0)),
                           residual=bool(row.get("residual", True)), separable=bool(row.get("separable", False)))
    except (KeyError, TypeError, ValueError) as error:
        raise NemoFileError(f"{where} is not a block of a QuartzNet: {error}.") from error


def _single(value: Any) -> int:
    """NeMo writes numbers of one dimension as lists of one."""
    return int(value[0] if isinstance(value, list) else value)


def _read_frontend(config: Mapping[str, Any]) -> FrontendConfig:
    preprocessor = _section(config, "preprocessor")
    _check_values(preprocessor, _PREPROCESSOR, "preprocessor")
    _check_values(config, {"sample_rate": _PREPROCESSOR["sample_rate"]}, "model")  # to which that one may refer
    version = tuple(int(part) for part in str(config.get("nemo_version", "0.0")).split(".")[:2] if part.isdigit())
    padding = "zeros" if version >= ZERO_PADDING_SINCE else "reflect"
    return FrontendConfig(num_mels=int(preprocessor.get("features", 64)),
                          padding=config.get(_OURS, {}).get("padding", padding),
                          dither=float(preprocessor.get("dither", 1e-5)), pad_to=int(preprocessor.get("pad_to", 16)))


def _read_vocabulary(config: Mapping[str, Any], members: Mapping[str, bytes]) -> Vocabulary:
    if "tokenizer" in config:
        if _TOKENIZER not in members:
            raise NemoFileError(f"its vocabulary is of pieces, but there is no {_TOKENIZER} in it.")
        return PieceVocabulary(members[_TOKENIZER], _piece_kind(members[_TOKENIZER]))
    decoder = _section(config, "decoder")
    labels = next((held for held in (decoder.get("vocabulary"), config.get("labels")) if isinstance(held, list)), None)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise NemoFileError("it has no list of labels; its vocabulary is unknown.")
    return CharacterVocabulary(tuple(labels), fold=bool(config.get(_OURS, {}).get("fold", False)))


def _piece_kind(model_proto: bytes) -> PieceKind:
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model_proto)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise NemoFileError(f"its {_TOKENIZER} is not a SentencePiece model ({error}).") from error
    return "bpe" if proto.trainer_spec.model_type == proto.trainer_spec.BPE else "unigram"


def _read_state(content: bytes, network: QuartzNetConfig, num_labels: int) -> dict[str, Tensor]:
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents none; seen: RuntimeError, UnpicklingError, EOFError, KeyError
        what = str(error).partition("\n")[0]
        raise NemoFileError(f"its {_WEIGHTS} cannot be read ({type(error).__name__} {what}). "
                            "Fetch it again.") from error
    if not isinstance(weights, dict):
        raise NemoFileError(f"its {_WEIGHTS} cannot be read: it holds {type(weights).__name__}, not weights by name.")
    names = dict(nemo_names(network))
    missing = [theirs for theirs in names.values() if theirs not in weights and "num_batches" not in theirs]
    unknown = set(weights) - set(names.values())
    unknown = {name for name in unknown if not name.startswith(("preprocessor.", "spec_aug", "loss."))}
    if missing or unknown:
        name = (missing or sorted(unknown))[0]
        raise NemoFileError(f"its weights do not fit its {_CONFIG}: {name} is {'missing' if missing else 'unknown'} "
                            f"({len(missing)} missing, {len(unknown)} unknown).")
    state = {ours: weights.get(theirs, torch.tensor(0)) for ours, theirs in names.items()}
    state = {ours: held[:, :, 0] if _is_pointwise(ours) and held.ndim == 3 else held for ours, held in state.items()}
    _check_shapes(state, network, num_labels)
    return state


def _check_shapes(state: Mapping[str, Tensor], network: QuartzNetConfig, num_labels: int) -> None:
    with torch.device("meta"):
        expected = AcousticModel(network, num_labels).state_dict()
    for name, tensor in expected.items():
        shape = tuple(state[name].shape) if name in state else "missing"
        if shape != tuple(tensor.shape):
            raise NemoFileError(f"the shape of {name} is {shape}; the network and {num_labels - 1} labels need "
                                f"{tuple(tensor.shape)}.")


def model_config(frontend: FrontendConfig, network: QuartzNetConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """What NeMo needs to build the model again, and what only we know."""
    labels = list(vocabulary.labels)
    config: dict[str, Any] = {
        "sample_rate": _PREPROCESSOR["sample_rate"],
        "preprocessor": _PREPROCESSOR_TARGET | {"features": frontend.num_mels, "dither": frontend.dither,
                                                "pad_to": frontend.pad_to},
        "encoder": {"_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": network.num_mels,
                    "activation": "relu", "conv_mask": True, "jasper": [nemo_row(block) for block in network.blocks]},
        "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": network.num_channels,
                    "num_classes": len(labels), "vocabulary": labels},
        "target": f"{_MODELS}.ctc_models.EncDecCTCModel",
        "nemo_version": WRITTEN_NEMO_VERSION,
        _OURS: {"padding": frontend.padding},
    }
    if isinstance(vocabulary, PieceVocabulary):
        config["tokenizer"] = {"dir": "", "type": "bpe", "model_path": f"nemo:{_TOKENIZER}",
                               "vocab_path": f"nemo:{_PIECES}", "spe_tokenizer_vocab": f"nemo:{_SCORES}"}
        config["target"] = f"{_MODELS}.ctc_bpe_models.EncDecCTCModelBPE"
    else:
        config["labels"] = labels
        config[_OURS]["fold"] = vocabulary.fold
    return config


_PREPROCESSOR_TARGET = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    **{name: _PREPROCESSOR[name] for name in ("normalize", "window_size", "window_stride", "sample_rate", "window",
                                              "n_fft", "frame_splicing")}}


def nemo_row(block: BlockConfig) -> dict[str, Any]:
    row: dict[str, Any] = {"filters": block.filters, "repeat": block.repeat, "kernel": [block.kernel],
                           "stride": [block.stride], "dilation": [block.dilation], "dropout": block.dropout,
                           "residual": block.residual}
    return row | ({"separable": True} if block.separable else {})


def tokenizer_files(vocabulary: PieceVocabulary) -> dict[str, bytes]:
    """The SentencePiece model and the two text files that NeMo keeps beside it; vocab.txt has ## inside words."""
    words = [label[1:] if label.startswith(WORD_START) and label != WORD_START else f"##{label}"
             for label in vocabulary.labels]
    proto = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.model_proto)  # type: ignore[attr-defined]
    return {_TOKENIZER: vocabulary.model_proto, _PIECES: "".join(f"{word}\n" for word in words).encode(),
            _SCORES: "".join(f"{piece.piece}\t{piece.score:g}\n" for piece in proto.pieces).encode()}
