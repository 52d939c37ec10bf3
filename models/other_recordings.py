"""Clips as if recorded elsewhere, made from their features: over noise, fading, through a telephone's band."""

import math

import torch
from torch import Tensor, nn

from corpora.speed import mel_centres_hz
from models.frontend import normalise, within

SPREAD_NATS = 3.2
"""Standard deviation of a mel's log-energy over a clip, the mean over mels of real Spanish and English clips: features
are normalised, so their own is not known."""

SNR_DB = (5.0, 40.0)
"""Speech's mean energy over the noise's, drawn uniformly: from a street to a quiet room."""

TILT_NATS = 2.0
"""The noise's spectrum is speech's average one, tilted over all mels by at most so much each way."""

FLUTTER_NATS = 0.6
"""Standard deviation of a stationary noise's log-energy in a mel from frame to frame."""

FADE_NATS = 1.5
"""Speech grows louder or softer over a clip by at most twice as much: somebody turns away, or a gain control works."""

TELEPHONE_SHARE = 0.25
"""Part of the changed clips that pass a telephone's band."""

TELEPHONE_HZ = (300.0, 3400.0)
"""A telephone's band (ITU-T G.712)."""

STOP_BAND_NATS = 10.0
"""What lies outside the band is softer by so much, 43 dB, and mostly below the noise."""


class OtherRecordings(nn.Module):
    """Change the recording of a random `share` of the clips, in training.

    Log-mel features are turned into log-energies by one deviation for all mels. Speech fades and is limited to a band,
    a noise is added to its energies, and the sum is normalised again. A constant gain would vanish in that.
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share = share
        self.generator = generator

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, mels, frames) normalised, (batch,) to the same shape; the input is not changed."""
        if not self.training or not self.share:
            return features
        [rows] = torch.nonzero(self._draw(len(features)) < self.share, as_tuple=True)
        if not len(rows):
            return features
        at = rows.to(features.device)
        changed = features.clone()
        changed[at] = self._changed(features[at], lengths[at])
        return changed

    def _changed(self, features: Tensor, lengths: Tensor) -> Tensor:
        num_clips, num_mels, num_frames = features.shape
        speech = SPREAD_NATS * features
        valid = within(features[:, 0], lengths)[:, None]
        loudness = speech.masked_fill(~valid, -math.inf).logsumexp(-1) - lengths[:, None].clamp(min=1).log()

        fade = self._draw(num_clips, 1, 1, low=-FADE_NATS, high=FADE_NATS) * torch.linspace(-1, 1, num_frames)
        centres = torch.from_numpy(mel_centres_hz(num_mels))
        outside = (centres < TELEPHONE_HZ[0]) | (centres > TELEPHONE_HZ[1])
        is_telephone = self._draw(num_clips, 1, 1) < TELEPHONE_SHARE
        speech = speech + (fade - STOP_BAND_NATS * (is_telephone & outside[:, None])).to(speech)

        snr_nats = self._draw(num_clips, 1, 1, low=SNR_DB[0], high=SNR_DB[1]) * math.log(10) / 10
        tilt = self._draw(num_clips, 1, 1, low=-TILT_NATS, high=TILT_NATS) * torch.linspace(-1, 1, num_mels)[:, None]
        flutter = FLUTTER_NATS * torch.randn(features.shape, generator=self.generator)
        noise = loudness.mean(1)[:, None, None] + (tilt + flutter - snr_nats).to(speech)
        return normalise(torch.logaddexp(speech, noise), lengths)

    def _draw(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)
