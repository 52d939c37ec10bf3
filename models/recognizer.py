"""Recognizer: front end, network and vocabulary in one; audio files or waveforms to text."""

import functools
import os
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from corpora.audio import AudioError
from models.forks import prepare_forks
from models.frontend import FrontendConfig, LogMel
from models.named import model_file
from models.nemo import read_nemo, write_nemo
from models.precision import Precision, choose_precision
from models.quartznet import AcousticModel, folded
from models.transcription import AudioSource, Transcriber
from models.vocabulary import Vocabulary


class Recognizer:
    """Turns 16 kHz mono speech into text; what it gives for a clip does not depend on the clips beside it.

    `transcribe` computes in `precision`: for `auto` in bfloat16 where the hardware multiplies it. `log_probs` are in
    float32 always, to be compared to the digit.
    """

    def __init__(self, frontend: FrontendConfig, acoustic: AcousticModel, vocabulary: Vocabulary,
                 precision: Precision = "auto") -> None:
        prepare_forks()
        self.frontend = LogMel(frontend).eval()
        self.acoustic = acoustic.eval()
        self.vocabulary = vocabulary
        self.precision = precision
        choose_precision(precision, self.device)  # a wrong word is refused at once

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu",
             precision: Precision = "auto") -> Self:
        """Read a `.nemo` file, Cuarzo's or NeMo's, as `models.named.model_file` finds it.

        `path` may also be a run's folder, for its best model, or the name of a model that is in the cache already.

        Raises:
            NemoFileError: no such file, or not a QuartzNet that NeMo or Cuarzo saved.
            ValueError: a precision other than auto, float32 and bf16.
        """
        model = read_nemo(model_file(path))
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

    @functools.cached_property
    def transcriber(self) -> Transcriber:
        """What `transcribe` works with: transcripts with times and confidence, one after the other.

        For a clip that cannot be heard its `transcribe` gives the AudioError in the place of a Transcript.
        """
        network = folded(self.acoustic, choose_precision(self.precision, self.device))
        return Transcriber(self.frontend, network, self.vocabulary, self.acoustic.encoder.config.stride)

    def transcribe(self, sources: Iterable[AudioSource]) -> list[str]:
        """The text of each file or waveform, in the order given; clips of like length share a batch.

        What is longer than 30 s is heard in pieces, cut in pauses (`models/segmentation.py`).

        Raises:
            AudioError: a file that cannot be decoded, a waveform that is not one-dimensional, holds other than finite
                numbers or is shorter than 20 ms.
            TypeError: one path or waveform in the place of a list.
        """
        texts = []
        for transcript in self.transcriber.transcribe(sources):
            if isinstance(transcript, AudioError):
                raise transcript
            texts.append(transcript.text)
        return texts
