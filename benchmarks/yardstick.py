"""The yardstick: QuartzNet as it is usually written, in eager `Conv1d` on (batch, channels, frames).

It masks before every convolution, depthwise and pointwise, as NeMo's `MaskedConv1d` does, and leaves the rest to
autograd. It shares no code with `models.quartznet`, only the weights.
"""

from typing import Self

import torch
from torch import Tensor, nn

from models.batchnorm import BATCHNORM_EPS, BATCHNORM_MOMENTUM
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig


class MaskedConv1d(nn.Module):
    """`Conv1d` that silences the padding of its input first."""

    def __init__(self, in_channels: int, filters: int, block: BlockConfig, *, depthwise: bool) -> None:
        super().__init__()
        kernel, stride, dilation = (block.kernel, block.stride, block.dilation) if depthwise else (1, 1, 1)
        self.conv = nn.Conv1d(in_channels, filters, kernel, stride=stride, dilation=dilation,
                              padding=dilation * (kernel - 1) // 2, groups=in_channels if depthwise else 1, bias=False)
        self.stride = stride

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, channels, frames), (batch,) to (batch, filters, frames after the stride), (batch,)."""
        positions = torch.arange(frames.shape[-1], device=frames.device)
        frames = frames.masked_fill((positions >= lengths[:, None])[:, None], 0.0)
        return self.conv(frames), (lengths - 1) // self.stride + 1


class Layer(nn.Module):
    """Depthwise (where separable), pointwise, BatchNorm."""

    def __init__(self, in_channels: int, block: BlockConfig, *, separable: bool) -> None:
        super().__init__()
        self.depthwise = MaskedConv1d(in_channels, in_channels, block, depthwise=True) if separable else None
        self.pointwise = MaskedConv1d(in_channels, block.filters, block, depthwise=False)
        self.norm = nn.BatchNorm1d(block.filters, eps=BATCHNORM_EPS, momentum=BATCHNORM_MOMENTUM)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, channels, frames), (batch,) to the same after this layer."""
        if self.depthwise is not None:
            frames, lengths = self.depthwise(frames, lengths)
        frames, lengths = self.pointwise(frames, lengths)
        return self.norm(frames), lengths


class Block(nn.Module):
    """Layers with a ReLU after each, and a residual before the last one."""

    def __init__(self, in_channels: int, block: BlockConfig) -> None:
        super().__init__()
        widths = [in_channels] + [block.filters] * (block.repeat - 1)
        self.layers = nn.ModuleList(Layer(width, block, separable=block.separable) for width in widths)
        self.residual = Layer(in_channels, block, separable=False) if block.residual else None
        self.activation = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(block.dropout))

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, channels, frames), (batch,) to the same after this block."""
        output, after = frames, lengths
        for index, layer in enumerate(self.layers):
            output, after = layer(output, after)
            if index < len(self.layers) - 1:
                output = self.activation(output)
        if self.residual is not None:
            output = output + self.residual(frames, lengths)[0]
        return self.activation(output), after


class Yardstick(nn.Module):
    """Encoder and CTC decoder of a QuartzNet."""

    def __init__(self, config: QuartzNetConfig, num_labels: int) -> None:
        super().__init__()
        widths = [config.num_mels] + [block.filters for block in config.blocks]
        self.blocks = nn.ModuleList(Block(width, block) for width, block in zip(widths, config.blocks, strict=False))
        self.decoder = nn.Conv1d(config.num_channels, num_labels, 1)

    @classmethod
    def with_weights_of(cls, model: AcousticModel) -> Self:
        """The same network, numbers and all."""
        yardstick = cls(model.encoder.config, len(model.decoder.bias))
        ours, theirs = model.state_dict(), yardstick.state_dict()
        for source, place in zip(ours.values(), theirs.values(), strict=True):  # both list a layer's tensors alike
            place.copy_(source.reshape(place.shape))
        return yardstick

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to log-probabilities (batch, frames', labels), (batch,)."""
        frames = features
        for block in self.blocks:
            frames, lengths = block(frames, lengths)
        return self.decoder(frames).transpose(1, 2).float().log_softmax(-1), lengths

