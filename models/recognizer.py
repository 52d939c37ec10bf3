"""Recognizer: front end, network and vocabulary in one; audio files or waveforms to text."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from corpora.audio import MIN_SAMPLES, SAMPLE_RATE_HZ, AudioError, decode
from models.decoding import greedy
from models.frontend import FrontendConfig, LogMel
from models.nemo import read_nemo, write_nemo
from models.precision import Precision, choose_precision
from models.quartznet import AcousticModel, folded
from models.vocabulary import Vocabulary

AudioSource = str | os.PathLike[str] | npt.NDArray[np.floating] | Tensor
"""A file of any format, or its 16 kHz mono samples (num_samples,)."""

BATCH_AUDIO_S = 120.0
"""Padded seconds that are transcribed at once; a 15x5 then stays under 1 GB in float32."""
CLIPS_IN_MEMORY = 512
"""Clips that are decoded, and sorted by length, at once."""


class Recognizer:
    """Turns 16 kHz mono speech into text; what it gives for a clip does not depend on the clips beside it.

    `transcribe` computes in `precision`: for `auto` in bfloat16 where the hardware multiplies it. `log_probs` are in
    float32 always, to be compared to the digit.
    """

    def __init__(self, frontend: FrontendConfig, acoustic: AcousticModel, vocabulary: Vocabulary,
                 precision: Precision = "auto") -> None:
        self.frontend = LogMel(frontend).eval()
        self.acoustic = acoustic.eval()
        self.vocabulary = vocabulary
        self.precision = precision
        choose_precision(precision, self.device)  # a wrong word is refused at once

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu",
             precision: Precision = "auto") -> Self:
        """Read a `.nemo` file, Cuarzo's or NeMo's.

        Raises:
            NemoFileError: no such file, or not a QuartzNet that NeMo or Cuarzo saved.
            ValueError: a precision other than auto, float32 and bf16.
        """
        model = read_nemo(path)
        acoustic = AcousticModel(model.network, model.vocabulary.size + 1)
        acoustic.load_state_dict(model.state)
        recognizer = cls(model.frontend, acoustic, model.vocabulary, precision)
        recognizer.frontend.to(device)
        recognizer.acoustic.to(device)
        return recognizer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.nemo` file that `load` and NeMo read, aside first and then renamed."""
        write_nemo(path, self.frontend.config, self.acoustic.encoder.config, self.vocabulary,
                   self.acoustic.state_dict())

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.acoustic.decoder.weight.device

    @functools.cached_property
    def _inference(self) -> AcousticModel:
        """The network that `transcribe` runs."""
        return folded(self.acoustic, choose_precision(self.precision, self.device))

    @torch.inference_mode()
    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) at 16 kHz and (batch,) to log-mel features (batch, mels, frames) and (batch,)."""
        features, feature_lengths = self.frontend(waveforms.to(self.device, torch.float32), lengths.to(self.device))
        return features, feature_lengths

    @torch.inference_mode()
    def log_probs(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) at 16 kHz and (batch,) to (batch, frames, labels + blank) and (batch,), 20 ms a frame."""
        log_probs, frame_lengths = self.acoustic(*self.features(waveforms, lengths))
        return log_probs, frame_lengths

    def transcribe(self, sources: Sequence[AudioSource]) -> list[str]:
        """The text of each file or waveform, in the order given; clips of like length share a batch.

        Raises:
            AudioError: a file that cannot be decoded, a waveform that is not one-dimensional, holds other than finite
                numbers or is shorter than 20 ms.
            TypeError: one path in the place of a list.
        """
        if isinstance(sources, str | os.PathLike):
            raise TypeError(f"transcribe takes a list of files or waveforms; put {str(sources)!r} in one.")
        texts: list[str] = []
        for start in range(0, len(sources), CLIPS_IN_MEMORY):
            texts += self._transcribe_decoded([_samples(source, start + index) for index, source in
                                               enumerate(sources[start:start + CLIPS_IN_MEMORY])])
        return texts

    def _transcribe_decoded(self, waveforms: list[Tensor]) -> list[str]:
        texts = [""] * len(waveforms)
        for batch in _batches_by_length([len(waveform) for waveform in waveforms]):
            log_probs, lengths = self._log_probs_of([waveforms[index] for index in batch])
            for index, text in zip(batch, greedy(log_probs, lengths, self.vocabulary), strict=True):
                texts[index] = text
        return texts

    @torch.inference_mode()
    def _log_probs_of(self, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
        # Clip by clip, as the features for training are made: a front end that pads by reflection would let the end
        # of a clip depend on its batch.
        pairs = [self.features(waveform[None], torch.tensor([len(waveform)])) for waveform in waveforms]
        frames = nn.utils.rnn.pad_sequence([features[0].T for features, _ in pairs], batch_first=True)
        log_probs, lengths = self._inference(frames.transpose(1, 2), torch.cat([lengths for _, lengths in pairs]))
        return log_probs, lengths


def _samples(source: AudioSource, index: int) -> Tensor:
    if isinstance(source, str | os.PathLike):
        return torch.from_numpy(decode(Path(source)))
    waveform = torch.as_tensor(source)
    if waveform.ndim != 1 or not waveform.is_floating_point():
        raise AudioError(f"waveform {index} is {waveform.dtype} of shape {tuple(waveform.shape)}; it must be 16 kHz "
                         "mono floating-point samples, (num_samples,) in [-1, 1].", reason="bad_samples")
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(f"waveform {index} is {1000 * len(waveform) / SAMPLE_RATE_HZ:.1f} ms; it must be 20 ms or "
                         "more.", reason="too_short")
    if not bool(torch.isfinite(waveform).all()):
        raise AudioError(f"waveform {index} holds samples that are not finite numbers.", reason="bad_samples")
    return waveform.detach().to("cpu", torch.float32)


def _batches_by_length(num_samples: list[int]) -> Iterator[list[int]]:
    """Indices in batches of at most BATCH_AUDIO_S padded seconds, the longest clips first."""
    batch: list[int] = []
    for index in sorted(range(len(num_samples)), key=lambda index: -num_samples[index]):
        if batch and (len(batch) + 1) * num_samples[batch[0]] > BATCH_AUDIO_S * SAMPLE_RATE_HZ:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
