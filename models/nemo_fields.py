"""Read the fields of NeMo's configuration: each one that changes what is computed is followed or refused."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor

from models.frontend import FFT_SIZE, HOP, LOG_FLOOR, SAMPLE_RATE_HZ, WINDOW, FrontendConfig, mel_filters
from models.nemo_archive import CONFIG, TOKENIZER, WEIGHTS, NemoFileError
from models.nemo_config import is_reference
from models.quartznet import BlockConfig, QuartzNetConfig
from models.vocabulary import CharacterVocabulary, PieceKind, PieceVocabulary, Vocabulary

ZERO_PADDING_SINCE = (2, 5)
"""Since this version of NeMo the front end pads with zeros; older files were trained with reflection."""
OURS = "cuarzo"
"""A section that NeMo ignores."""

FILTERS, WINDOW_NAME = "preprocessor.featurizer.fb", "preprocessor.featurizer.window"
"""Where the weights hold the front end's filters and window."""
_FRONT_END_TOLERANCE = 1e-4
"""Relative to the largest value, or twice the file's rounding step if that is more; libraries differ by 1e-7."""

_ANY = object()  # in a table: any value, as it changes nothing that is computed
_PREPROCESSOR: dict[str, tuple[Any, ...]] = {
    "sample_rate": (SAMPLE_RATE_HZ,), "n_fft": (FFT_SIZE, None), "window": ("hann",), "normalize": ("per_feature",),
    "frame_splicing": (1,), "preemph": (0.97,), "log": (True,), "mag_power": (2.0,), "lowfreq": (0,),
    "highfreq": (SAMPLE_RATE_HZ / 2, None, 0), "mel_norm": ("slaney",), "log_zero_guard_type": ("add",),
    "log_zero_guard_value": (LOG_FLOOR,), "pad_value": (0,), "exact_pad": (False,), "use_torchaudio": (False,),
    "nb_augmentation_prob": (0,), "nb_max_freq": (_ANY,), "rng": (_ANY,), "stft_conv": (_ANY,),
    "stft_exact_pad": (_ANY,)}
"""The front end's fixed values, by NeMo's names; None is NeMo's default, which is the same as ours."""
_ENCODER: dict[str, tuple[Any, ...]] = {
    "activation": ("relu",), "conv_mask": (True,), "normalization_mode": ("batch",), "residual_mode": ("add",),
    "frame_splicing": (1,), "quantize": (False,), "norm_groups": (_ANY,), "init_mode": (_ANY,)}
_BLOCK: dict[str, tuple[Any, ...]] = {
    "se": (False,), "residual_dense": (False,), "residual_mode": ("add",), "kernel_size_factor": (1,), "groups": (1,),
    "heads": (-1,), "stride_last": (False,), "normalization": ("batch",), "tied": (False,), "future_context": (-1,),
    "se_reduction_ratio": (_ANY,), "se_context_size": (_ANY,), "se_context_window": (_ANY,),
    "se_interpolation_mode": (_ANY,)}
_DECODER: dict[str, tuple[Any, ...]] = {"add_blank": (True,), "init_mode": (_ANY,), "num_classes": (_ANY,)}


def read_network(encoder: Mapping[str, Any], weights: Mapping[str, Tensor]) -> QuartzNetConfig:
    """The encoder; parts of its shape that no field gives come from the weights."""
    _check_class(encoder, "encoder", "ConvASREncoder")
    _check_fields(encoder, _ENCODER, "encoder", read=("feat_in", "jasper"))
    rows = encoder.get("jasper")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise NemoFileError("its encoder has no list of blocks (jasper).")
    blocks = tuple(_read_block(row, _block_of(weights, number), f"encoder.jasper[{number}]")
                   for number, row in enumerate(rows))
    if sum(block.repeat for block in blocks) > len(weights):
        raise NemoFileError(f"its weights do not fit its {CONFIG}: of {sum(block.repeat for block in blocks):,} "
                            f"convolutions, some are missing among {len(weights):,} tensors.")
    feat_in = encoder.get("feat_in")
    if feat_in is None:
        feat_in = _num_mels(weights)
    return QuartzNetConfig(num_mels=_integer(feat_in, "encoder.feat_in"), blocks=blocks)


def read_frontend(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> FrontendConfig:
    """The front end; if no field gives the number of mels, the file's filters do."""
    preprocessor = section(config, "preprocessor")
    _check_fields(config, {"sample_rate": _PREPROCESSOR["sample_rate"]}, "model", read=None)
    _check_class(preprocessor, "preprocessor", "AudioToMelSpectrogramPreprocessor")
    _check_fields(preprocessor, _PREPROCESSOR, "preprocessor",
                  read=("features", "dither", "pad_to", "window_size", "window_stride", "n_window_size",
                        "n_window_stride"))
    for size, samples in (("window_size", WINDOW), ("window_stride", HOP)):
        _check_samples(preprocessor, size, samples)
    for name in ("stft_conv", "stft_exact_pad"):  # since 1.1, NeMo reads such a file and ignores the field
        if preprocessor.get(name) and WINDOW_NAME not in weights:
            raise NemoFileError(f"preprocessor.{name} is {preprocessor[name]!r}; it must be False in a file that does "
                                "not hold the window. Save it again with NeMo 1.1 or newer.")
    features = preprocessor.get("features")
    if features is None:
        features = weights[FILTERS].shape[-2] if FILTERS in weights and weights[FILTERS].ndim > 1 else 64
    ours = config.get(OURS) or {}
    if not isinstance(ours, dict):
        raise NemoFileError(f"its section {OURS} is {ours!r}; it must be a mapping.")
    return FrontendConfig(
        num_mels=_integer(features, "preprocessor.features"),
        padding=ours.get("padding", _padding(config.get("nemo_version"))),
        dither=_number(preprocessor.get("dither", 1e-5), "preprocessor.dither"),
        pad_to=_integer(preprocessor.get("pad_to", 16), "preprocessor.pad_to"))


def compare_frontend(frontend: FrontendConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse a file whose filters or window, if its weights hold them, are not those that we compute with."""
    _compare(weights, FILTERS, mel_filters(frontend.num_mels)[None])
    _compare(weights, WINDOW_NAME, torch.hann_window(WINDOW, periodic=False))


def read_vocabulary(config: Mapping[str, Any], members: Mapping[str, bytes]) -> Vocabulary:
    """Pieces if the model has a tokenizer, else the labels of its decoder or of its training data."""
    decoder = section(config, "decoder")
    _check_class(decoder, "decoder", "ConvASRDecoder")
    _check_fields(decoder, _DECODER, "decoder", read=("feat_in", "vocabulary", "labels"))
    if config.get("tokenizer") is not None:
        if TOKENIZER not in members:
            raise NemoFileError(f"its vocabulary is of pieces, but it has no {TOKENIZER}.")
        return PieceVocabulary(members[TOKENIZER], _piece_kind(members[TOKENIZER]))
    places = [decoder.get("vocabulary"), decoder.get("labels"), config.get("labels")]
    for name in ("train_ds", "validation_ds", "test_ds"):
        data = config.get(name)
        places.append(data.get("labels") if isinstance(data, dict) else None)
    labels = next((held for held in places if isinstance(held, list) and held), None)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise NemoFileError("it has no list of labels; its vocabulary is unknown.")
    return CharacterVocabulary(tuple(labels), fold=bool((config.get(OURS) or {}).get("fold", False)))


def section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of the configuration."""
    held = config.get(name)
    if not isinstance(held, dict):
        raise NemoFileError(f"its {CONFIG} has no section {name}; it holds no CTC model.")
    return held


def _check_class(held: Mapping[str, Any], where: str, expected: str) -> None:
    """Check the class if one is named; the weights are checked in any case."""
    name = held.get("_target_")
    if name is not None and str(name).rpartition(".")[2] != expected:
        raise NemoFileError(f"its {where} is {name}; it must be NeMo's {expected}, as a QuartzNet's is.")


def _check_fields(held: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]], where: str,
                  read: tuple[str, ...] | None) -> None:
    """Refuse other values than we compute with; if `read`, the fields read elsewhere, is given, also unknown fields."""
    for name, values in expected.items():
        if name in held and not any(value is _ANY or _is_same(held[name], value) for value in values):
            raise NemoFileError(f"{where}.{name} is {held[name]!r}; a QuartzNet's is {values[0]!r}. "
                                "Only plain QuartzNets can be read.")
    unknown = [] if read is None else [name for name in held if name not in (*expected, *read, "_target_")]
    if unknown:
        raise NemoFileError(f"{where}.{unknown[0]} is {held[unknown[0]]!r}; no such field is known, so what it changes "
                            "would be lost. Only plain QuartzNets can be read.")


def _is_same(held: object, value: object) -> bool:
    if isinstance(held, int | float) and isinstance(value, int | float):
        return math.isclose(held, value, rel_tol=1e-6)
    return held == value


def _check_samples(preprocessor: Mapping[str, Any], name: str, expected: int) -> None:
    """NeMo reads seconds from `name`, or samples from another field if the seconds are null or 0."""
    default = expected / SAMPLE_RATE_HZ
    size, samples = preprocessor.get(name, default), preprocessor.get(f"n_{name}")
    if not size and samples is not None and _integer(samples, f"preprocessor.n_{name}") == expected:
        return
    if samples or not _is_same(size, default):
        where, held, right = (name, size, default) if not samples else (f"n_{name}", samples, expected)
        raise NemoFileError(f"preprocessor.{where} is {held!r}; a QuartzNet's is {right!r}"
                            f"{f', with {name} null' if samples else ''}. Only plain QuartzNets can be read.")


def _padding(version: object) -> Any:
    match = re.match(r"\D?(\d+)\.(\d+)", str(version))
    numbers = (int(match[1]), int(match[2])) if match else (0, 0)
    return "zeros" if numbers >= ZERO_PADDING_SINCE else "reflect"


def _compare(weights: Mapping[str, Tensor], name: str, expected: Tensor) -> None:
    if name not in weights:
        return
    held = weights[name]
    if not held.is_floating_point() or held.numel() != expected.numel():
        raise NemoFileError(f"its {name} is {tuple(held.shape)}; a QuartzNet's front end has {tuple(expected.shape)}.")
    step = 2 * torch.finfo(held.dtype).eps if held.element_size() < 4 else 0.0
    difference = (held.float().reshape(expected.shape) - expected).abs().max().item() / expected.max().item()
    if not difference <= max(_FRONT_END_TOLERANCE, step):
        raise NemoFileError(f"its {name} differs from a QuartzNet's by {difference:.1%} of the largest value, whatever "
                            "its preprocessor says, so its features differ. Only plain QuartzNets can be read.")


def _read_block(row: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> BlockConfig:
    """`shape` is the block's shape as the weights give it."""
    read = ("filters", "repeat", "kernel", "stride", "dilation", "dropout", "residual", "separable")
    _check_fields(row, _BLOCK, where, read)
    held = {"separable": False, **shape, **{name: row[name] for name in read if row.get(name) is not None}}
    missing = next((name for name in read if name not in held and name != "dropout"), None)
    if missing:
        raise NemoFileError(f"{where} is not a block of a QuartzNet: neither it nor the weights give its {missing}.")
    for name in ("residual", "separable"):
        if not isinstance(held[name], bool):
            raise NemoFileError(f"{where}.{name} is {held[name]!r}; it must be true or false.")
    kernel, stride, dilation, filters, repeat = (_integer(held[name], f"{where}.{name}") for name in (
        "kernel", "stride", "dilation", "filters", "repeat"))
    return BlockConfig(filters=filters, repeat=repeat, kernel=kernel, stride=stride, dilation=dilation,
                       dropout=_number(held.get("dropout", 0.0), f"{where}.dropout"), residual=held["residual"],
                       separable=held["separable"])


def _block_of(weights: Mapping[str, Tensor], number: int) -> dict[str, Any]:
    """The shape of a block from its weights: all but stride, dilation and dropout."""
    prefix = f"encoder.encoder.{number}."
    convolutions = [tensor for name, tensor in weights.items()
                    if re.fullmatch(re.escape(prefix) + r"mconv\.\d+\.conv\.weight", name) and tensor.ndim == 3]
    if not convolutions:
        return {}
    is_separable = len(convolutions) > 1 and convolutions[0].shape[1] == 1
    return {"filters": convolutions[-1].shape[0], "repeat": len(convolutions) // (2 if is_separable else 1),
            "kernel": convolutions[0].shape[-1], "separable": is_separable,
            "residual": any(name.startswith(f"{prefix}res.") for name in weights)}


def _num_mels(weights: Mapping[str, Tensor]) -> int:
    first = weights.get("encoder.encoder.0.mconv.0.conv.weight")
    if first is None or first.ndim != 3:
        raise NemoFileError(f"neither its encoder.feat_in nor its {WEIGHTS} give its number of mels.")
    return first.shape[0] if first.shape[1] == 1 else first.shape[1]


def _integer(value: Any, where: str) -> int:
    """NeMo writes one-dimensional sizes as lists of one."""
    held = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(held, bool) or not isinstance(held, int | float) or held != held // 1:
        raise NemoFileError(f"{where} is {value!r}; it must be one whole number{_of_reference(value)}.")
    return int(held)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NemoFileError(f"{where} is {value!r}; it must be a number{_of_reference(value)}.")
    return float(value)


def _of_reference(value: object) -> str:
    return ", and the file does not hold what this refers to" if is_reference(value) else ""


def _piece_kind(model_proto: bytes) -> PieceKind:
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model_proto)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise NemoFileError(f"its {TOKENIZER} is not a SentencePiece model ({error}).") from error
    return "bpe" if proto.trainer_spec.model_type == proto.trainer_spec.BPE else "unigram"
