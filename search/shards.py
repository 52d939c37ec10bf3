"""Clips -> shards of log-mel frames, as Ray tasks; what cannot be used is counted by reason and named."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from corpora.audio import SAMPLE_RATE_HZ, AudioError, decode
from corpora.corpus import SPLITS, Corpus
from corpora.features import FeatureRow, is_shard_whole, write_shard
from corpora.manifest import Utterance
from corpora.text import Language, TextChanges, normalise, why_unusable
from models.frontend import FrontendConfig, LogMel

CLIPS_PER_SHARD = 128
"""At most 20 s each, a shard stays under 33 MB of frames."""

Clip = tuple[str, Utterance, bytes | Path | AudioError]


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Which clips are taken, and how their frames are made."""

    language: Language
    min_duration_s: float
    max_duration_s: float
    frontend: FrontendConfig


def all_clips(corpora: Sequence[Corpus]) -> Iterator[Clip]:
    """All clips in a fixed order, their ids made distinct by their corpus."""
    for number, corpus in enumerate(corpora):
        for split, utterance, clip in corpus.clips(SPLITS):
            # A manifest's duration cuts a segment out of a file; a release's only tells how long the file is.
            duration_s = utterance.duration_s if corpus.kind == "manifest" else None
            yield split, replace(utterance, id=f"{number}/{utterance.id}", duration_s=duration_s), clip


def make_shards(clips: Iterator[Clip], num_clips: int, folder: Path, limits: ClipLimits) -> int:
    """Turn clips into shards, a Ray task each; at most two for each CPU are under way, so memory stays bounded."""
    num_shards, running = 0, {}
    most_running = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    columns = (TextColumn("features"), BarColumn(), TextColumn("{task.completed}/{task.total} clips"),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("features", total=num_clips)
        for number, chunk in enumerate(_chunks(clips)):
            num_shards = number + 1
            if is_shard_whole(folder, number):
                progress.advance(bar, len(chunk))
                continue
            running[_make_shard.remote(folder, number, chunk, limits)] = len(chunk)
            if len(running) >= most_running:
                _wait_for_one(running, progress, bar)
        while running:
            _wait_for_one(running, progress, bar)
    return num_shards


def _chunks(clips: Iterator[Clip]) -> Iterator[list[Clip]]:
    chunk: list[Clip] = []
    for clip in clips:
        chunk.append(clip)
        if len(chunk) == CLIPS_PER_SHARD:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _wait_for_one(running: dict[ray.ObjectRef, int], progress: Progress, bar: Any) -> None:
    done, _ = ray.wait(list(running), num_returns=1)
    ray.get(done[0])
    progress.advance(bar, running.pop(done[0]))


@ray.remote(num_cpus=1)
def _make_shard(folder: Path, number: int, clips: Sequence[Clip], limits: ClipLimits) -> None:
    """Decode the clips, make their frames and write one shard."""
    torch.set_num_threads(1)
    frontend = LogMel(limits.frontend).eval()
    rows: list[FeatureRow] = []
    bad: list[dict[str, str]] = []
    changes = TextChanges(limits.language)
    for split, utterance, clip in clips:
        try:
            rows.append(_feature_row(split, utterance, clip, limits, frontend))
            changes.see(utterance.text, rows[-1].text)
        except AudioError as error:
            bad.append({"id": utterance.id, "split": split, "reason": str(error.reason), "detail": str(error)})
        except _LeftOut as left_out:
            bad.append({"id": utterance.id, "split": split, "reason": left_out.reason, "detail": str(left_out)})
    write_shard(folder, number, rows, bad, changes.facts())


class _LeftOut(Exception):
    """A clip that decodes but is not taken."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _feature_row(split: str, utterance: Utterance, clip: bytes | Path | AudioError, limits: ClipLimits,
                 frontend: LogMel) -> FeatureRow:
    text = normalise(utterance.text, limits.language)
    if why := why_unusable(utterance.text, text, limits.language):
        raise _LeftOut(*why)
    waveform = decode(clip, utterance.offset_s, utterance.duration_s)
    duration_s = len(waveform) / SAMPLE_RATE_HZ
    if not limits.min_duration_s <= duration_s <= limits.max_duration_s:
        reason = "too_short" if duration_s < limits.min_duration_s else "too_long"
        raise _LeftOut(reason, f"{duration_s:.2f} s; the limits are {limits.min_duration_s} to "
                               f"{limits.max_duration_s} s")
    with torch.inference_mode():
        features, lengths = frontend(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    frames = features[0, :, : int(lengths[0])].T.numpy()
    return FeatureRow(id=utterance.id, split=split, speaker=utterance.speaker, text=text, duration_s=duration_s,
                      features=frames)
