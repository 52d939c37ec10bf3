"""QuartzNet (arXiv 1910.10261): a CTC network of separable convolutions, numerically NeMo's."""

from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batchnorm import BatchNorm, relu_and_mask
from models.padding import Padding
from models.separable import compute_dtype, separable_convolution
from spaces.recipe import BatchNormMode


class NetworkError(ValueError):
    """A network that is not a QuartzNet, or a configuration field outside its limits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockConfig:
    """A row of the paper's table: `repeat` sub-blocks of the same width, and a residual around them."""

    filters: int
    """Output channels."""
    repeat: int = 1
    """Number of sub-blocks."""
    kernel: int
    """Taps of the depthwise convolution; odd."""
    stride: int = 1
    """Input frames per output frame; above 1 only in blocks of one sub-block without a residual."""
    dilation: int = 1
    """Frames from one tap to the next."""
    dropout: float = 0.0
    """Dropout rate after each ReLU in training."""
    residual: bool = True
    """Add the block's input, through a pointwise convolution and BatchNorm, before the last ReLU."""
    separable: bool = True
    """False for a pointwise convolution only; then the kernel is 1."""

    def __post_init__(self) -> None:
        for name in ("filters", "repeat", "kernel", "stride", "dilation"):
            if getattr(self, name) < 1:
                raise NetworkError(f"{name} of a block is {getattr(self, name)}; it must be at least 1.")
        if self.kernel % 2 == 0:
            raise NetworkError(f"kernel of a block is {self.kernel}; it must be odd, to keep frames aligned.")
        if not 0 <= self.dropout < 1:
            raise NetworkError(f"dropout of a block is {self.dropout}; it must be in [0, 1).")
        if self.stride > 1 and (self.repeat > 1 or self.residual or self.dilation > 1 or not self.separable):
            raise NetworkError(f"stride of a block is {self.stride}; it must be 1 in a block that is repeated, "
                               "residual, dilated or not separable.")
        if not self.separable and (self.kernel > 1 or self.dilation > 1):
            raise NetworkError(f"kernel of a block that is not separable is {self.kernel}, its dilation "
                               f"{self.dilation}; both must be 1 in a QuartzNet.")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuartzNetConfig:
    """The shape of a QuartzNet without its decoder."""

    num_mels: int = 64
    """Features per frame."""
    blocks: tuple[BlockConfig, ...]
    """From the features to the decoder."""

    def __post_init__(self) -> None:
        if self.num_mels < 1:
            raise NetworkError(f"num_mels is {self.num_mels}; it must be at least 1.")
        if not self.blocks:
            raise NetworkError("blocks is empty; a network has at least one block.")

    @property
    def num_channels(self) -> int:
        """Output channels of the encoder."""
        return self.blocks[-1].filters

    @property
    def stride(self) -> int:
        """Feature frames per frame of log-probabilities."""
        stride = 1
        for block in self.blocks:
            stride *= block.stride
        return stride


def _published(repeats_of_block: int) -> tuple[BlockConfig, ...]:
    """The paper's C1, B1 to B5 (each `repeats_of_block` times, 5 sub-blocks), C2 and C3."""
    widths_and_kernels = ((256, 33), (256, 39), (512, 51), (512, 63), (512, 75))
    body = [BlockConfig(filters=filters, repeat=5, kernel=kernel)
            for filters, kernel in widths_and_kernels for _ in range(repeats_of_block)]
    return (BlockConfig(filters=256, kernel=33, stride=2, residual=False), *body,
            BlockConfig(filters=512, kernel=87, dilation=2, residual=False),
            BlockConfig(filters=1024, kernel=1, residual=False, separable=False))


def _narrow() -> tuple[BlockConfig, ...]:
    """A network for an hour of speech and two CPU cores; widths are multiples of 64, so bfloat16 is safe."""
    body = [BlockConfig(filters=filters, repeat=2, kernel=kernel)
            for filters, kernel in ((128, 9), (128, 11), (192, 13), (192, 15))]
    return (BlockConfig(filters=128, kernel=15, stride=2, residual=False), *body,
            BlockConfig(filters=192, kernel=17, dilation=2, residual=False),
            BlockConfig(filters=256, kernel=1, residual=False, separable=False))


_NETWORKS = {"15x5": _published(3), "10x5": _published(2), "5x5": _published(1), "narrow": _narrow()}


def named_network(name: str, num_mels: int = 64) -> QuartzNetConfig:
    """A QuartzNet of the paper (15x5, 10x5, 5x5), or `narrow` for small data on a CPU.

    Raises:
        NetworkError: there is no network of this name.
    """
    if name not in _NETWORKS:
        raise NetworkError(f"network is {name!r}; it must be one of {', '.join(_NETWORKS)}.")
    return QuartzNetConfig(num_mels=num_mels, blocks=_NETWORKS[name])


class _NormalisedConvolution(nn.Module):
    """Depthwise (where separable), pointwise convolution and BatchNorm: (batch, frames, in) to (batch, frames, out)."""

    def __init__(self, in_channels: int, block: BlockConfig, *, separable: bool) -> None:
        super().__init__()
        self.stride, self.dilation = (block.stride, block.dilation) if separable else (1, 1)
        self.depthwise = nn.Parameter(torch.empty(in_channels, 1, block.kernel)) if separable else None
        self.pointwise = nn.Parameter(torch.empty(block.filters, in_channels))
        self.norm: BatchNorm | None = BatchNorm(block.filters)
        self.bias: nn.Parameter | None = None
        for weight in (self.depthwise, self.pointwise):
            if weight is not None:
                nn.init.xavier_uniform_(weight)

    def forward(self, frames: Tensor, padding: Padding, residual: Tensor | None = None,
                activate: bool = True, dropout: float = 0.0) -> Tensor:
        """`frames` are zero in the padding; with `activate`, for ReLU and dropout, so is the result."""
        adapts = self.norm is not None and not self.norm.is_affine
        pointwise, bias = (self.pointwise, None) if adapts else self._affine()
        frames = separable_convolution(frames, self.depthwise, pointwise, bias, padding, self.stride, self.dilation)
        after = padding.strided(self.stride)
        if self.norm is not None and adapts:
            return self.norm(frames, residual, after, activate, dropout)  # type: ignore[no-any-return]
        return relu_and_mask(frames, residual, after, dropout) if activate else frames

    def fold(self, dtype: torch.dtype) -> None:
        """Fold BatchNorm's scale and shift into a bias and the pointwise weight, which is stored in `dtype`."""
        pointwise, bias = self._affine()
        self.pointwise = nn.Parameter(pointwise.to(dtype), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.norm = None

    def _affine(self) -> tuple[Tensor, Tensor | None]:
        """The pointwise weight and bias with BatchNorm and its running statistics folded in."""
        if self.norm is None:
            return self.pointwise, self.bias
        scale, shift = self.norm.scale_and_shift()
        return self.pointwise * scale[:, None], shift


class _Block(nn.Module):
    def __init__(self, in_channels: int, block: BlockConfig) -> None:
        super().__init__()
        widths = [in_channels] + [block.filters] * (block.repeat - 1)
        self.layers = nn.ModuleList(
            _NormalisedConvolution(width, block, separable=block.separable) for width in widths)
        self.residual = _NormalisedConvolution(in_channels, block, separable=False) if block.residual else None
        self.stride = block.stride
        self.dropout = block.dropout

    def forward(self, frames: Tensor, padding: Padding) -> tuple[Tensor, Padding]:
        residual = self.residual(frames, padding, activate=False) if self.residual is not None else None
        dropout = self.dropout if self.training else 0.0
        for layer in self.layers[:-1]:
            frames = layer(frames, padding, dropout=dropout)
        return self.layers[-1](frames, padding, residual, dropout=dropout), padding.strided(self.stride)


class QuartzNet(nn.Module):
    """The encoder: (batch, mels, frames) log-mel features to (batch, channels, frames after the stride)."""

    def __init__(self, config: QuartzNetConfig) -> None:
        super().__init__()
        self.config = config
        self.precision: torch.dtype | None = None
        """What a folded network computes in; None follows autocast and the features."""
        widths = [config.num_mels] + [block.filters for block in config.blocks]
        self.blocks = nn.ModuleList(_Block(width, block) for width, block in zip(widths, config.blocks, strict=False))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to (batch, channels, frames'), (batch,); zero past the lengths."""
        frames = features.transpose(1, 2)
        padding = Padding(lengths, frames.shape[1])
        frames = frames.masked_fill(padding.mask, 0.0).to(self.precision or compute_dtype(frames)).contiguous()
        for block in self.blocks:
            frames, padding = block(frames, padding)
        return frames.transpose(1, 2), padding.lengths

    def set_dropout(self, dropout: float) -> None:
        """Set the dropout rate after every ReLU in training."""
        if not 0 <= dropout < 1:
            raise NetworkError(f"dropout is {dropout}; it must be in [0, 1).")
        for block in self.blocks:
            cast(_Block, block).dropout = dropout

    def freeze_convolutions(self, is_frozen: bool) -> None:
        """Freeze or free every weight but BatchNorm's."""
        for module in self.modules():
            if isinstance(module, _NormalisedConvolution):
                for weight in module.parameters(recurse=False):
                    weight.requires_grad_(not is_frozen)

    def set_batchnorm_mode(self, mode: BatchNormMode) -> None:
        """`adapt` normalises with each batch in training, `keep` with the running statistics, unchanged."""
        if mode not in ("adapt", "keep"):
            raise NetworkError(f"batchnorm is {mode!r}; it must be adapt or keep.")
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.mode = mode


class CtcDecoder(nn.Module):
    """(batch, channels, frames) to log-probabilities (batch, frames, labels) in float32; blank is the last label."""

    def __init__(self, channels: int, num_labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_labels, channels)))
        self.bias = nn.Parameter(torch.empty(num_labels).uniform_(-1, 1) * channels**-0.5)

    def forward(self, encoded: Tensor) -> Tensor:
        """`num_labels` counts the blank."""
        frames, bias = encoded.transpose(1, 2), self.bias.to(encoded.dtype)
        return F.linear(frames, self.weight.to(encoded.dtype), bias).float().log_softmax(-1)


class AcousticModel(nn.Module):
    """Encoder and CTC decoder; `num_labels` counts the blank, which is the last label."""

    def __init__(self, config: QuartzNetConfig, num_labels: int) -> None:
        super().__init__()
        self.encoder = QuartzNet(config)
        self.decoder = CtcDecoder(config.num_channels, num_labels)

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters, decoder included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to float32 log-probabilities (batch, frames', labels), (batch,)."""
        encoded, lengths = self.encoder(features, lengths)
        return self.decoder(encoded), lengths


def folded(model: AcousticModel, dtype: torch.dtype = torch.float32) -> AcousticModel:
    """A copy for inference only, with each BatchNorm folded into the weights before it, stored in `dtype`."""
    copy = deepcopy(model).eval()
    for layer in copy.modules():
        if isinstance(layer, _NormalisedConvolution):
            layer.fold(dtype)
    copy.encoder.precision = dtype
    copy.decoder.weight = nn.Parameter(copy.decoder.weight.to(dtype), requires_grad=False)
    return copy


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC loss of each utterance (batch,), blank last; for an infeasible one, loss and gradient are zero.

    `log_probs` is (batch, frames, labels), `targets` (batch, longest target).
    """
    return F.ctc_loss(log_probs.transpose(0, 1), targets, lengths, target_lengths, blank=log_probs.shape[-1] - 1,
                      reduction="none", zero_infinity=True)
