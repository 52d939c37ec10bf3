"""Read and write NVIDIA NeMo's model files (.nemo) of QuartzNets."""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor

from files.atomic import write_shared
from models.frontend import FFT_SIZE, HOP, SAMPLE_RATE_HZ, WINDOW, FrontendConfig, FrontendError, mel_filters
from models.nemo_archive import CONFIG, TOKENIZER, WEIGHTS, load_weights, read_members
from models.nemo_archive import DamagedNemoFileError as DamagedNemoFileError
from models.nemo_archive import NemoFileError as NemoFileError
from models.nemo_config import load_config
from models.nemo_fields import (
    FILTERS,
    OURS,
    WINDOW_NAME,
    compare_frontend,
    read_frontend,
    read_network,
    read_vocabulary,
    section,
)
from models.quartznet import AcousticModel, BlockConfig, NetworkError, QuartzNetConfig
from models.vocabulary import WORD_START, PieceVocabulary, Vocabulary, VocabularyError

WRITTEN_NEMO_VERSION = "3.0.0"
"""The version whose layout `write_nemo` follows."""
_PIECES, _SCORES = "vocab.txt", "tokenizer.vocab"
_MODELS = "nemo.collections.asr.models"
_NORM_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_OTHERS = ("spec_aug", "loss.", "wer.", "_wer.", "decoding.")
"""Prefixes of weights that are not the network's."""
_FRONT_END = {FILTERS, WINDOW_NAME}

_PREPROCESSOR = {"_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                 "normalize": "per_feature", "window_size": WINDOW / SAMPLE_RATE_HZ,
                 "window_stride": HOP / SAMPLE_RATE_HZ, "sample_rate": SAMPLE_RATE_HZ, "window": "hann",
                 "n_fft": FFT_SIZE, "frame_splicing": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceModel:
    """The contents of a .nemo file."""

    frontend: FrontendConfig
    network: QuartzNetConfig
    vocabulary: Vocabulary
    state: dict[str, Tensor]
    """As in `AcousticModel.state_dict()`, in the file's precision."""


def read_nemo(path: str | os.PathLike[str]) -> SourceModel:
    """Read a QuartzNet that NeMo (since 1.0) or `write_nemo` saved, plain or gzipped, in full or half precision.

    Raises:
        NemoFileError: no such file, not a .nemo file, truncated, not a QuartzNet, or weights that do not fit.
    """
    members = read_members(Path(path))
    try:
        config, weights = load_config(members[CONFIG]), load_weights(members[WEIGHTS])
        network = read_network(section(config, "encoder"), weights)
        frontend = read_frontend(config, weights)
        if frontend.num_mels != network.num_mels:
            raise NemoFileError(f"its front end gives {frontend.num_mels} mels, its encoder takes {network.num_mels}.")
        compare_frontend(frontend, weights)
        vocabulary = read_vocabulary(config, members)
        state = _read_state(weights, network, vocabulary.size + 1)
    except (NemoFileError, NetworkError, FrontendError, VocabularyError) as error:
        kind = type(error) if isinstance(error, NemoFileError) else NemoFileError
        raise kind(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NemoFileError(f"{path}: its {CONFIG} lacks what a QuartzNet needs ({error!r}).") from error
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
    weights = {WINDOW_NAME: torch.hann_window(WINDOW, periodic=False),
               FILTERS: mel_filters(frontend.num_mels)[None]}
    for ours, theirs in nemo_names(network):
        tensor = state[ours].detach().cpu()
        weights[theirs] = tensor[:, :, None].clone() if _is_pointwise(ours) else tensor.clone()
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    config = model_config(frontend, network, vocabulary)
    members = {CONFIG: yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode(),
               WEIGHTS: buffer.getvalue()}
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
    """Pairs of our name and NeMo's for every weight and buffer of an `AcousticModel`."""
    for number, block in enumerate(network.blocks):
        ours, theirs = f"encoder.blocks.{number}", f"encoder.encoder.{number}"
        for repeat in range(block.repeat):
            # NeMo numbers convolutions, BatchNorm, ReLU and dropout in one list.
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


def _read_state(weights: Mapping[str, Tensor], network: QuartzNetConfig, num_labels: int) -> dict[str, Tensor]:
    names = dict(nemo_names(network))
    missing = [theirs for theirs in names.values() if theirs not in weights and "num_batches" not in theirs]
    unknown = set(weights) - set(names.values()) - _FRONT_END
    unknown = {name for name in unknown if not name.startswith(_OTHERS)}
    if missing or unknown:
        name = (missing or sorted(unknown))[0]
        raise NemoFileError(f"its weights do not fit its {CONFIG}: {name} is {'missing' if missing else 'unknown'} "
                            f"({len(missing)} missing, {len(unknown)} unknown).")
    state = {ours: weights.get(theirs, torch.tensor(0)) for ours, theirs in names.items()}
    state = {ours: held[:, :, 0] if _is_pointwise(ours) and held.shape[2:] == (1,) else held
             for ours, held in state.items()}
    _check_shapes(state, network, num_labels)
    for ours, held in state.items():
        if "num_batches" not in ours and not held.is_floating_point():
            raise NemoFileError(f"{names[ours]} is of {held.dtype}; weights are floating-point numbers.")
        if held.numel() > 1 and 0 in held.stride():  # one stored number expanded to many
            raise NemoFileError(f"{names[ours]} repeats one number {held.numel():,} times; weights are stored in full.")
        if not held.float().isfinite().all() or ("running_var" in ours and (held.float() < 0).any()):
            raise NemoFileError(f"{names[ours]} holds numbers that are not finite or, of a variance, below 0, as a "
                                "training that diverged leaves them; it would recognise nothing. Use an earlier one.")
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
    """What NeMo needs to rebuild the model, and a section of our own."""
    labels = list(vocabulary.labels)
    config: dict[str, Any] = {
        "sample_rate": SAMPLE_RATE_HZ,
        "preprocessor": _PREPROCESSOR | {"features": frontend.num_mels, "dither": frontend.dither,
                                         "pad_to": frontend.pad_to},
        "encoder": {"_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": network.num_mels,
                    "activation": "relu", "conv_mask": True, "jasper": [nemo_row(block) for block in network.blocks]},
        "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": network.num_channels,
                    "num_classes": len(labels), "vocabulary": labels},
        "target": f"{_MODELS}.ctc_models.EncDecCTCModel",
        "nemo_version": WRITTEN_NEMO_VERSION,
        OURS: {"padding": frontend.padding},
    }
    if isinstance(vocabulary, PieceVocabulary):
        config["tokenizer"] = {"dir": "", "type": "bpe", "model_path": f"nemo:{TOKENIZER}",
                               "vocab_path": f"nemo:{_PIECES}", "spe_tokenizer_vocab": f"nemo:{_SCORES}"}
        config["target"] = f"{_MODELS}.ctc_bpe_models.EncDecCTCModelBPE"
    else:
        config["labels"] = labels
        config[OURS]["fold"] = vocabulary.fold
    return config


def nemo_row(block: BlockConfig) -> dict[str, Any]:
    row: dict[str, Any] = {"filters": block.filters, "repeat": block.repeat, "kernel": [block.kernel],
                           "stride": [block.stride], "dilation": [block.dilation], "dropout": block.dropout,
                           "residual": block.residual}
    return row | ({"separable": True} if block.separable else {})


def tokenizer_files(vocabulary: PieceVocabulary) -> dict[str, bytes]:
    """The SentencePiece model and the two text files that NeMo keeps with it; vocab.txt has ## inside words."""
    words = [label[1:] if label.startswith(WORD_START) and label != WORD_START else f"##{label}"
             for label in vocabulary.labels]
    proto = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.model_proto)  # type: ignore[attr-defined]
    return {TOKENIZER: vocabulary.model_proto, _PIECES: "".join(f"{word}\n" for word in words).encode(),
            _SCORES: "".join(f"{piece.piece}\t{piece.score:g}\n" for piece in proto.pieces).encode()}
