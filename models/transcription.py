"""Transcripts of clips of any length, with times and confidence by word."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from corpora.audio import MIN_SAMPLES, SAMPLE_RATE_HZ, AudioError, decode_blocks
from corpora.clips import Clip
from models.decoding import Word, spell
from models.frontend import HOP, LogMel
from models.segmentation import PAUSE_DB, PAUSE_S, Segment, cut, levels_db
from models.vocabulary import Vocabulary

AudioSource = str | os.PathLike[str] | Clip | npt.NDArray[np.floating] | Tensor
"""A file of any format, a stretch of one, or its 16 kHz mono samples (num_samples,)."""

BATCH_AUDIO_S = 120.0
"""Padded seconds per batch; a 15x5 then stays under 1 GB in float32."""
WAITING_AUDIO_S = 1200.0
"""Seconds of audio that are decoded and sorted by length together: 77 MB."""
NOISE_POSTERIOR = 0.6
"""A segment whose labels have a lower mean posterior, and that is as far below the clip's loudest 20 ms as a pause,
holds no speech: normalisation made noise as loud as speech. Labels in noise have 0.2 to 0.5, those of words 0.8 to 1.
"""


class Network(Protocol):
    """What computes log-probabilities: an AcousticModel in PyTorch, or the same network in another runtime."""

    def __call__(self, features: Tensor, lengths: Tensor, /) -> tuple[Tensor, Tensor]:
        """(batch, mels, frames), (batch,) to float32 (batch, frames', labels + blank), (batch,).

        A network that includes the front end takes (batch, samples) instead of features.
        """


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The transcript of a clip."""

    duration_s: float
    """Seconds of audio."""
    words: tuple[Word, ...]
    """In spoken order."""

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


@dataclass
class _Heard:
    """A segment; once the network has run, with the likeliest label of each frame (frames,) and its posterior."""

    start: int
    is_joined: bool
    loudest_db: float
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    posteriors: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def part(self, frames: slice) -> "_Heard":
        """A range of its frames."""
        return replace(self, start=self.start + (frames.start or 0), labels=self.labels[frames],
                       posteriors=self.posteriors[frames])


@dataclass
class _Listening:
    """A clip in progress."""

    segments: list[_Heard] = field(default_factory=list)
    num_samples: int = 0
    num_waiting: int = 0
    is_read: bool = False
    error: AudioError | None = None

    @property
    def is_done(self) -> bool:
        return self.is_read and not self.num_waiting


class Transcriber:
    """Transcribes many clips with a front end, network and vocabulary; no clip's result depends on the others."""

    def __init__(self, frontend: LogMel | None, network: Network, vocabulary: Vocabulary, stride: int) -> None:
        """`stride` is feature frames per frame of log-probabilities. Without `frontend`, the network includes it."""
        self._frontend = frontend
        self._network = network
        self._vocabulary = vocabulary
        self._frame_samples = HOP * stride

    def transcribe(self, sources: Iterable[AudioSource | AudioError],
                   on_heard: Callable[[float], None] = lambda seconds: None) -> Iterator[Transcript | AudioError]:
        """Yield the transcript of each source, in order, or the AudioError that says why it cannot be transcribed.

        Such an error is yielded, not raised, so that the rest continues: check `isinstance(given, AudioError)`.
        Segments of similar length share a batch, across clips. `on_heard` is called with the seconds of each batch.
        Memory does not grow with the length of a clip, except for its words. Times count from the start of the source.

        Raises:
            TypeError: a single source instead of a list.
        """
        is_waveform = isinstance(sources, np.ndarray | Tensor) and sources.ndim < 2
        if isinstance(sources, str | bytes | os.PathLike | Clip) or is_waveform:
            what = "this waveform" if is_waveform else repr(sources)
            raise TypeError(f"transcribe takes a list of files or waveforms; put {what} in a list.")
        return self._transcribe(sources, on_heard)

    def _transcribe(self, sources: Iterable[AudioSource | AudioError],
                    on_heard: Callable[[float], None]) -> Iterator[Transcript | AudioError]:
        clips: deque[_Listening] = deque()
        waiting: list[tuple[Segment, _Heard, _Listening]] = []
        num_samples = 0
        for index, source in enumerate(sources):
            clip = _Listening()
            clips.append(clip)
            try:
                for segment in cut(_blocks(source, index, clip), self._frame_samples):
                    loudest_db = levels_db(segment.waveform.numpy(), self._frame_samples).max(initial=-np.inf)
                    heard = _Heard(segment.start, segment.is_joined, float(loudest_db))
                    clip.segments.append(heard)
                    clip.num_waiting += 1
                    waiting.append((segment, heard, clip))
                    num_samples += len(segment.waveform)
                    if num_samples > WAITING_AUDIO_S * SAMPLE_RATE_HZ:
                        yield from self._hear(waiting, clips, on_heard)
                        waiting, num_samples = [], 0
            except AudioError as error:
                clip.error = error
            clip.is_read = True
            yield from self._done(clips)
        yield from self._hear(waiting, clips, on_heard)

    def _hear(self, waiting: list[tuple[Segment, _Heard, _Listening]], clips: deque[_Listening],
              on_heard: Callable[[float], None]) -> Iterator[Transcript | AudioError]:
        """Run the network on the waiting segments, and yield the clips that are finished."""
        for batch in _batches_by_length([len(segment.waveform) for segment, _, _ in waiting]):
            waveforms = [waiting[index][0].waveform for index in batch]
            for index, (labels, posteriors) in zip(batch, self._labels_of(waveforms), strict=True):
                _, heard, clip = waiting[index]
                heard.labels, heard.posteriors = labels, posteriors
                clip.num_waiting -= 1
            on_heard(sum(len(waveform) for waveform in waveforms) / SAMPLE_RATE_HZ)
            yield from self._done(clips)

    def _done(self, clips: deque[_Listening]) -> Iterator[Transcript | AudioError]:
        while clips and clips[0].is_done:
            yield self._result(clips.popleft())

    def _result(self, clip: _Listening) -> Transcript | AudioError:
        if clip.error is not None:
            return clip.error
        loudest_db = max(segment.loudest_db for segment in clip.segments)
        for segment in clip.segments:
            spoken = segment.posteriors[segment.labels != self._vocabulary.blank]
            if segment.loudest_db < loudest_db - PAUSE_DB and len(spoken) and spoken.mean() < NOISE_POSTERIOR:
                segment.labels = np.full_like(segment.labels, self._vocabulary.blank)
        duration_s = clip.num_samples / SAMPLE_RATE_HZ
        frame_s = self._frame_samples / SAMPLE_RATE_HZ
        # The last frame may extend past the last sample.
        words = [replace(word, end_s=min(word.end_s, duration_s))
                 for stretch in _stretches(clip.segments, self._vocabulary.blank, round(PAUSE_S / frame_s))
                 for word in spell(stretch.labels, stretch.posteriors, self._vocabulary, stretch.start, frame_s)]
        return Transcript(duration_s=duration_s, words=tuple(words))

    @torch.inference_mode()
    def _labels_of(self, waveforms: list[Tensor]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        log_probs, lengths = self._network(*self._inputs_of(waveforms))
        if log_probs.shape[-1] != self._vocabulary.size + 1:
            raise ValueError(f"log_probs has {log_probs.shape[-1]} labels; the vocabulary has {self._vocabulary.size}, "
                             "and one more for the blank.")
        likeliest, labels = (tensor.cpu() for tensor in log_probs.max(dim=-1))
        posteriors = likeliest.exp().numpy()
        return [(labels[row, :length].numpy().copy(), posteriors[row, :length].copy())
                for row, length in enumerate(lengths.tolist())]

    def _inputs_of(self, waveforms: list[Tensor]) -> tuple[Tensor, Tensor]:
        if self._frontend is None:
            lengths = torch.tensor([len(waveform) for waveform in waveforms])
            return nn.utils.rnn.pad_sequence(waveforms, batch_first=True), lengths
        # Clip by clip, as for training: with a front end that pads by reflection, the end of a clip would depend on
        # its batch.
        device = cast(Tensor, self._frontend.window).device
        pairs = [self._frontend(waveform[None].to(device), torch.tensor([len(waveform)], device=device))
                 for waveform in waveforms]
        frames = nn.utils.rnn.pad_sequence([features[0].T for features, _ in pairs], batch_first=True)
        return frames.transpose(1, 2), torch.cat([lengths for _, lengths in pairs])


def _stretches(segments: Sequence[_Heard], blank: int, pause: int) -> list[_Heard]:
    """Join overlapping segments; between two stretches is a pause, where a word ends.

    Two overlapping segments are joined in the middle of the longest run of frames on which both agree, so no label is
    lost or doubled there. A quarter of the overlap at each end, where one of them has little context, is ignored. If
    they meet in `pause` frames of blanks, that was a pause, although a network at its edge shows no end of a word.
    """
    stretches: list[_Heard] = []
    for segment in segments:
        if not segment.is_joined:
            stretches.append(segment)
            continue
        before = stretches[-1]
        overlap = before.start + len(before.labels) - segment.start
        meeting = _middle_of_agreement(before.labels[len(before.labels) - overlap:], segment.labels[:overlap])
        kept = segment.start + meeting - before.start
        around = np.concatenate([before.labels[:kept][-pause // 2:], segment.labels[meeting:][:pause // 2]])
        before, after = before.part(slice(kept)), segment.part(slice(meeting, None))
        stretches[-1:] = [before, after] if (around == blank).all() else [replace(
            before, labels=np.concatenate([before.labels, after.labels]),
            posteriors=np.concatenate([before.posteriors, after.posteriors]))]
    return stretches


def _middle_of_agreement(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> int:
    """The middle of the longest run in which both (frames,) are equal, or the middle of all if none is."""
    edge = len(left) // 4
    is_equal = np.zeros(len(left) + 2, bool)
    is_equal[1 + edge:len(left) + 1 - edge] = (left == right)[edge:len(left) - edge]
    borders = np.flatnonzero(is_equal[1:] != is_equal[:-1])
    if not len(borders):
        return len(left) // 2
    starts, ends = borders[::2], borders[1::2]
    longest = int((ends - starts).argmax())
    return int(starts[longest] + ends[longest]) // 2


def _blocks(source: AudioSource | AudioError, index: int, clip: _Listening) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of 16 kHz mono audio; `clip` counts the samples."""
    if isinstance(source, AudioError):
        raise source
    if isinstance(source, Clip):
        blocks = decode_blocks(source.path, source.offset_s, source.duration_s)
    elif isinstance(source, str | os.PathLike):
        blocks = decode_blocks(Path(source))
    else:
        if isinstance(source, np.ndarray):  # PyTorch refuses read-only and reversed arrays and other byte orders
            source = source.astype(source.dtype.newbyteorder("="), order="C")
        try:
            waveform = torch.as_tensor(source)
        except (TypeError, ValueError, RuntimeError) as error:
            raise AudioError(f"waveform {index} is of type {type(source).__name__}; it must be a path, or 16 kHz mono "
                             "floating-point samples.", reason="bad_samples") from error
        blocks = iter([_checked(waveform, index)])
    for block in blocks:
        clip.num_samples += len(block)
        yield block


def _checked(waveform: Tensor, index: int) -> npt.NDArray[np.float32]:
    if waveform.ndim != 1 or not waveform.is_floating_point() or waveform.layout != torch.strided or waveform.is_meta:
        raise AudioError(f"waveform {index} is {waveform.dtype} of shape {tuple(waveform.shape)}; it must be 16 kHz "
                         "mono floating-point samples, (num_samples,) in [-1, 1].", reason="bad_samples")
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(f"waveform {index} is {1000 * len(waveform) / SAMPLE_RATE_HZ:.1f} ms; it must be 20 ms or "
                         "more.", reason="too_short")
    samples: npt.NDArray[np.float32] = waveform.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(samples).all():
        raise AudioError(f"waveform {index} holds samples that are not finite numbers.", reason="bad_samples")
    return samples


def _batches_by_length(num_samples: list[int]) -> list[list[int]]:
    """Indices in batches of similar length and at most BATCH_AUDIO_S padded seconds, ordered by their first index."""
    batches: list[list[int]] = []
    for index in sorted(range(len(num_samples)), key=lambda index: -num_samples[index]):
        if batches and (len(batches[-1]) + 1) * num_samples[batches[-1][0]] <= BATCH_AUDIO_S * SAMPLE_RATE_HZ:
            batches[-1].append(index)
        else:
            batches.append([index])
    return sorted(batches, key=min)
