"""The log-mel front end, numerically NeMo's."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
import torchaudio.functional as audio_functional
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000
HOP = SAMPLE_RATE_HZ // 100  # 10 ms
WINDOW = SAMPLE_RATE_HZ // 50  # 20 ms
FFT_SIZE = 512
PREEMPHASIS = 0.97
LOG_FLOOR = 2.0**-24
STD_FLOOR = 1e-5
MAX_PAD_TO = 4_096
"""41 s; every clip takes at least that much memory."""

FrontEndPadding = Literal["zeros", "reflect"]


class FrontendError(ValueError):
    """A field of a front end outside its limits, or audio too short for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontendConfig:
    """The settings in which NeMo's log-mel front ends differ."""

    num_mels: int = 64
    """Number of Slaney mel filters, from 0 to 8 kHz."""
    padding: FrontEndPadding = "zeros"
    """`zeros` is NeMo's since 2.5; `reflect` is what came before, and what the published QuartzNets were trained with.

    With `reflect`, the last frames of a clip depend on how far its batch is padded, as in NeMo.
    """
    dither: float = 1e-5
    """Standard deviation of the noise added to the samples in training."""
    pad_to: int = 16
    """Frames are padded with zeros to a multiple of this; 0 does not pad."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_mels <= FFT_SIZE // 2:
            raise FrontendError(f"num_mels is {self.num_mels}; it must be in [1, {FFT_SIZE // 2}].")
        if self.padding not in ("zeros", "reflect"):
            raise FrontendError(f"padding is {self.padding!r}; it must be zeros or reflect.")
        if not 0 <= self.dither < 1:
            raise FrontendError(f"dither is {self.dither}; it must be in [0, 1).")
        if not 0 <= self.pad_to <= MAX_PAD_TO:
            raise FrontendError(f"pad_to is {self.pad_to}; it must be in [0, {MAX_PAD_TO}].")


class LogMel(nn.Module):
    """Turn 16 kHz mono audio into log-mel energies, normalised per clip and mel.

    `generator` draws the dither.

    Source: NVIDIA NeMo's AudioToMelSpectrogramPreprocessor, whose numbers it matches.
    """

    def __init__(self, config: FrontendConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.generator = generator
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False))
        self.register_buffer("filters", mel_filters(config.num_mels))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples), (batch,) samples to (batch, mels, frames) float32, (batch,) valid frames.

        Without `pad_to` there are 1 + samples // 160 frames.

        Raises:
            FrontendError: the batch is shorter than a hop, or with `reflect` than half an FFT.
        """
        shortest = FFT_SIZE // 2 + 1 if self.config.padding == "reflect" else HOP
        if waveforms.shape[-1] < shortest:
            raise FrontendError(f"the batch holds {waveforms.shape[-1]} samples; it must hold at least {shortest} "
                                f"({1000 * shortest / SAMPLE_RATE_HZ:.1f} ms). Leave such clips out.")
        with torch.autocast(waveforms.device.type, enabled=False):
            features = self._log_energies(emphasised(self._dithered(waveforms.float()), lengths, self.config.padding))
            frames = lengths // HOP + (1 if self.config.padding == "reflect" else 0)
            features = normalise(features, frames)
        if self.config.pad_to:
            features = F.pad(features, (0, -features.shape[-1] % self.config.pad_to))
        return features, frames

    def _dithered(self, waveforms: Tensor) -> Tensor:
        if not self.training or not self.config.dither:
            return waveforms
        noise = torch.empty_like(waveforms).normal_(generator=self.generator)
        return waveforms + self.config.dither * noise

    def _log_energies(self, waveforms: Tensor) -> Tensor:
        spectrum = torch.stft(waveforms, FFT_SIZE, HOP, WINDOW, cast(Tensor, self.window), center=True,
                              pad_mode="constant" if self.config.padding == "zeros" else "reflect",
                              return_complex=True)
        # Summing over a last dimension of two takes four times as long.
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(cast(Tensor, self.filters) @ power + LOG_FLOOR)


def mel_filters(num_mels: int) -> Tensor:
    """Slaney's mel filters with unit area, (mels, FFT_SIZE // 2 + 1)."""
    filters: Tensor = audio_functional.melscale_fbanks(
        FFT_SIZE // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, num_mels, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney")
    return filters.T.contiguous()


def emphasised(waveforms: Tensor, lengths: Tensor, padding: FrontEndPadding) -> Tensor:
    """Pre-emphasis of (batch, samples), (batch,); with `zeros`, the result is zero past the lengths."""
    waveforms = torch.cat((waveforms[:, :1], waveforms[:, 1:] - PREEMPHASIS * waveforms[:, :-1]), dim=1)
    return waveforms if padding == "reflect" else waveforms.masked_fill(~within(waveforms, lengths), 0.0)


def within(rows: Tensor, lengths: Tensor) -> Tensor:
    """(batch, size) and (batch,) to (batch, size): true in the first `lengths` places of each row.

    Uses `cumsum`, because a trace would hold the device of an `arange`.
    """
    return torch.ones_like(rows, dtype=torch.long).cumsum(1) <= lengths[:, None]


def normalise(features: Tensor, lengths: Tensor) -> Tensor:
    """Normalise each clip and mel of (batch, mels, frames) to mean 0 and deviation 1 over valid frames, 0 past them.

    A clip of fewer than two frames has no deviation and becomes zeros.
    """
    valid = within(features[:, 0], lengths)[:, None]
    count = lengths[:, None, None]
    mean = (features * valid).sum(-1, keepdim=True) / count.clamp(min=1)
    centred = (features - mean) * valid
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + STD_FLOOR)
