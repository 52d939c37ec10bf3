"""Recognizer: front end, network and vocabulary together; from audio files or waveforms to text."""

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
    """Turns 16 kHz mono speech into text; the result for a clip does not depend on the other clips.

    `transcribe` computes in `precision`; `auto` is bfloat16 where the hardware supports it. `log_probs` is always in
    float32, for exact comparisons.
    """

    def __init__(self, frontend: FrontendConfig, acoustic: AcousticModel, vocabulary: Vocabulary,
                 precision: Precision = "auto") -> None:
        prepare_forks()
        self.frontend = LogMel(frontend).eval()
        self.acoustic = acoustic.eval()
        self.vocabulary = vocabulary
        self.precision = precision
        choose_precision(precision, self.device)  # refuses an unknown word at once

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu",
             precision: Precision = "auto") -> Self:
        """Read a `.nemo` file of Cuarzo's or NeMo's.

        `path` may also be a run's folder, for its best model, or the name of a model that is already in the cache (see
        `models.named.model_file`).

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
        """Write a `.nemo` file that `load` and NeMo can read; it is written aside and renamed."""
        write_nemo(path, self.frontend.config, self.acoustic.encoder.config, self.vocabulary,
                   self.acoustic.state_dict())

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return self.acoustic.decoder.weight.device

    @torch.inference_mode()
    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) at 16 kHz and (batch,) to log-mel features (batch, mels, frames) and (batch,)."""
        features, feature_lengths = self.frontend(waveforms.to(self.device, torch.float32), lengths.to(self.device))
        return features, feature_lengths

    @torch.inference_mode()
    def log_probs(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) at 16 kHz and (batch,) to (batch, frames, labels + blank) and (batch,), 20 ms per frame."""
        log_probs, frame_lengths = self.acoustic(*self.features(waveforms, lengths))
        return log_probs, frame_lengths

    @functools.cached_property
    def transcriber(self) -> Transcriber:
        """The Transcriber behind `transcribe`; it yields transcripts with times and confidence, one by one.

        For a clip that cannot be read, its `transcribe` yields the AudioError instead of a Transcript.
        """
        network = folded(self.acoustic, choose_precision(self.precision, self.device))
        return Transcriber(self.frontend, network, self.vocabulary, self.acoustic.encoder.config.stride)

    def transcribe(self, sources: Iterable[AudioSource]) -> list[str]:
        """The text of each file or waveform, in the order given; clips of similar length share a batch.

        Clips longer than 30 s are transcribed in segments, cut at pauses (`models/segmentation.py`).

        Raises:
            AudioError: a file cannot be decoded, or a waveform is not one-dimensional, not all finite, or shorter than
                20 ms.
            TypeError: a single path or waveform instead of a list.
        """
        texts = []
        for transcript in self.transcriber.transcribe(sources):
            if isinstance(transcript, AudioError):
                raise transcript
            texts.append(transcript.text)
        return texts
