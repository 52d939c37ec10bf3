"""A recogniser for inference in a few basic operations that every exporter and runtime supports.

The frames of a batch are an image (batch, channels, 1, frames) throughout, channels last in memory, the layout that
runtimes optimise most. A trace depends on no length, batch size or device.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.frontend import FFT_SIZE, HOP, LOG_FLOOR, WINDOW, LogMel, emphasised, normalise, within
from models.quartznet import AcousticModel, folded


class PortableFrontEnd(nn.Module):
    """`LogMel` in inference, with the Fourier transform as a convolution.

    An FFT in float32 spreads the rounding of loud frequencies onto silent ones, where the logarithm shows it; a sum
    over the window is more exact than PyTorch's and ONNX Runtime's.
    """

    def __init__(self, frontend: LogMel) -> None:
        super().__init__()
        self.config = frontend.config
        self.register_buffer("fourier", _fourier(cast(Tensor, frontend.window).cpu()))
        self.register_buffer("filters", cast(Tensor, frontend.filters).cpu().clone())

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples), (batch,) samples to (batch, mels, frames), (batch,) valid frames, as `LogMel` does."""
        reflects = self.config.padding == "reflect"
        waveforms = emphasised(waveforms, lengths, self.config.padding)[:, None]
        # The FFT is wider than its window, but the rest is multiplied by zeros: half a window at both ends is enough.
        waveforms = F.pad(waveforms, (WINDOW // 2, WINDOW // 2), mode="reflect" if reflects else "constant")
        parts = F.conv1d(waveforms, cast(Tensor, self.fourier), stride=HOP)
        real, imaginary = parts.square().chunk(2, dim=1)
        features = torch.log(cast(Tensor, self.filters) @ (real + imaginary) + LOG_FLOOR)
        frames = torch.div(lengths, HOP, rounding_mode="floor") + (1 if reflects else 0)
        features = normalise(features, frames)
        if self.config.pad_to:
            features = F.pad(features, (0, -features.shape[-1] % self.config.pad_to))
        return features, frames


class PortableNetwork(nn.Module):
    """An `AcousticModel` with BatchNorm folded, in float32."""

    def __init__(self, acoustic: AcousticModel) -> None:
        super().__init__()
        network = folded(acoustic).cpu()
        self.blocks = nn.ModuleList(_Block(block) for block in network.encoder.blocks)
        self.decoder_weight = _fixed(network.decoder.weight[:, :, None, None])
        self.decoder_bias = _fixed(network.decoder.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to log-probabilities (batch, frames', labels), (batch,) valid frames'."""
        valid = within(features[:, 0], lengths).to(features.dtype)[:, None, None]
        frames = (features[:, :, None] * valid).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            frames, valid = block(frames, valid)
        scores = F.conv2d(frames, self.decoder_weight, self.decoder_bias)
        return scores[:, :, 0].transpose(1, 2).log_softmax(-1), valid[:, 0, 0].sum(-1).long()


class PortableRecognizer(nn.Module):
    """Front end and network: (batch, samples) at 16 kHz, (batch,) to log-probabilities and their lengths."""

    def __init__(self, frontend: LogMel, acoustic: AcousticModel) -> None:
        super().__init__()
        self.frontend = PortableFrontEnd(frontend)
        self.network = PortableNetwork(acoustic)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples), (batch,) samples to log-probabilities (batch, frames', labels), (batch,) valid frames'."""
        features, frames = self.frontend(waveforms, lengths)
        log_probs, lengths = self.network(features, frames)
        return log_probs, lengths


class _Convolution(nn.Module):
    """A folded separable or only pointwise convolution of (batch, channels, 1, frames)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.depthwise = None if layer.depthwise is None else _fixed(layer.depthwise[:, :, None])
        self.pointwise = _fixed(layer.pointwise[:, :, None, None])
        self.bias = _fixed(layer.bias)
        self.stride, self.dilation = layer.stride, layer.dilation

    def forward(self, frames: Tensor) -> Tensor:
        """`frames` are zero past the lengths."""
        if self.depthwise is not None:
            channels, _, _, kernel = self.depthwise.shape
            frames = F.conv2d(frames, self.depthwise, stride=(1, self.stride), dilation=(1, self.dilation),
                              padding=(0, self.dilation * (kernel - 1) // 2), groups=channels)
        return F.conv2d(frames, self.pointwise, self.bias)


class _Block(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Convolution(layer) for layer in block.layers)
        self.residual = None if block.residual is None else _Convolution(block.residual)
        self.stride = block.stride

    def forward(self, frames: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """`valid` (batch, 1, 1, frames) is one in the clips and zero past them; the result is zero there too.

        The padding between the depthwise and the pointwise half may hold anything: no operation between there and the
        mask mixes frames.
        """
        residual = None if self.residual is None else self.residual(frames)
        valid = valid[..., ::self.stride]
        for layer in self.layers[:-1]:
            frames = F.relu(layer(frames)) * valid
        frames = self.layers[-1](frames)
        return F.relu(frames if residual is None else frames + residual) * valid, valid


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), requires_grad=False)


def _fourier(window: Tensor) -> Tensor:
    """(2 x frequencies, 1, samples): the cosines of a discrete Fourier transform of FFT_SIZE, then its sines."""
    turns = torch.outer(torch.arange(FFT_SIZE // 2 + 1), torch.arange(WINDOW)) % FFT_SIZE
    angles = turns.double() * (2 * math.pi / FFT_SIZE)
    return (torch.cat((angles.cos(), angles.sin())) * window.double()).float()[:, None]
