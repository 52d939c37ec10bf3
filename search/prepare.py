"""Corpora -> FeatureStore and vocabularies, as Ray tasks; what was left out, in a report."""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from corpora.audio import SAMPLE_RATE_HZ, AudioError, decode
from corpora.corpus import SPLITS, Corpus, open_corpus
from corpora.features import FeatureRow, FeatureStore, finish_store, is_shard_whole, write_shard
from corpora.manifest import CorpusError, Utterance
from corpora.text import NORMALISER_VERSION, foreign_letters, language, normalise
from models.frontend import FrontendConfig, LogMel
from models.nemo import SourceModel
from models.quartznet import QuartzNetConfig, named_network
from models.vocabulary import (
    Vocabulary,
    VocabularyError,
    is_feasible,
    train_vocabulary,
    vocabulary_from_bytes,
    vocabulary_to_bytes,
)
from search.record import write_json
from spaces.recipe import VocabularyRecipe

CLIPS_PER_SHARD = 128
"""At most 20 s each, a shard stays under 33 MB of frames."""

STORE_VERSION = 1

MIN_CLIPS = {"train": 8, "dev": 1}
"""Fewer usable clips in a split stop the study."""

Clip = tuple[str, Utterance, bytes | Path | AudioError]


@dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Which clips are taken, and how their frames are made."""

    language: str
    min_duration_s: float
    max_duration_s: float
    frontend: FrontendConfig


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a study starts from."""

    source: SourceModel | None
    corpora: list[Corpus]

    @property
    def frontend(self) -> FrontendConfig:
        """The source's front end, or NeMo's present one."""
        return self.source.frontend if self.source else FrontendConfig()

    def network(self, space: ModuleType) -> QuartzNetConfig:
        """The network that the space's recipes train."""
        return self.source.network if self.source else named_network(space.SOURCE_NETWORK)


def join_corpora(paths: Sequence[str]) -> list[Corpus]:
    """Open the corpora and decide the splits: train joined from all, dev and test from those that have them.

    Where no corpus has a dev split, those without splits are split by speaker, by a fixed hash.

    Raises:
        CorpusError: a corpus that cannot be opened, or no split to train or to tune on.
    """
    corpora = [open_corpus(path) for path in paths]
    has_dev = any("dev" in corpus.splits for corpus in corpora)
    for corpus in corpora:
        if "" in corpus.splits:
            whole = corpus.splits.pop("")
            corpus.splits.update({"train": whole} if has_dev else whole.split_by_speaker())
    for split in ("train", "dev"):
        if not any(len(corpus.splits.get(split, ())) for corpus in corpora):
            raise CorpusError(f"{', '.join(map(str, paths))}: no {split} split. Add a corpus that has one, or give a "
                              "manifest of at least three speakers, which is then split by speaker.")
    return corpora


def prepare_features(corpora: Sequence[Corpus], limits: ClipLimits, cache: Path) -> FeatureStore:
    """The joined corpora's FeatureStore: opened where it was made before, else made or gone on with by Ray tasks.

    Raises:
        CorpusError: a corpus that cannot be read to its end, or too few usable clips.
    """
    key = store_key(corpora, limits)
    folder = cache / "features" / key
    if not (folder / "index.parquet").exists():
        num_clips = sum(len(manifest) for corpus in corpora for manifest in corpus.splits.values())
        num_shards = _make_shards(_clips(corpora), num_clips, folder, limits)
        finish_store(folder, num_shards, {"num_clips": num_clips, "key": key})
    store = FeatureStore(folder)
    _check_enough(store, corpora)
    return store


def store_key(corpora: Sequence[Corpus], limits: ClipLimits) -> str:
    """A hash of the corpora's content, their splits, and all that turns a clip into frames and text."""
    splits = [[(u.id, name) for name, manifest in sorted(corpus.splits.items()) for u in manifest]
              for corpus in corpora]
    content = [STORE_VERSION, NORMALISER_VERSION, CLIPS_PER_SHARD, asdict(limits), splits,
               [corpus.fingerprint for corpus in corpora]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def corpus_report(store: FeatureStore, reports: Sequence["VocabularyReport"]) -> dict[str, Any]:
    """What a study sees of its corpora: splits, the clips left out by reason and name, and each vocabulary."""
    facts = store.facts
    splits = {}
    for name in SPLITS:
        split = store.split(name)
        splits[name] = {"clips": len(split), "hours": round(split.duration_s / 3600, 4),
                        "speakers": len(set(split.speakers)),
                        "characters": "".join(sorted(set("".join(split.texts))))}
    bad = facts["bad_clips"]
    return {"splits": splits, "clips_found": facts["num_clips"], "clips_left_out": len(bad),
            "left_out_by_reason": dict(Counter(row["reason"] for row in bad)), "left_out": bad,
            "vocabularies": [asdict(report) for report in reports], "features": str(store.folder)}


# --- features -------------------------------------------------------------------------------------------------------


def _clips(corpora: Sequence[Corpus]) -> Iterator[Clip]:
    """All clips in a fixed order, their ids made distinct by their corpus."""
    for number, corpus in enumerate(corpora):
        for split, utterance, clip in corpus.clips(SPLITS):
            # A manifest's duration cuts a segment out of a file; a release's only tells how long the file is.
            duration_s = utterance.duration_s if corpus.kind == "manifest" else None
            yield split, replace(utterance, id=f"{number}/{utterance.id}", duration_s=duration_s), clip


def _make_shards(clips: Iterator[Clip], num_clips: int, folder: Path, limits: ClipLimits) -> int:
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
    for split, utterance, clip in clips:
        try:
            rows.append(_feature_row(split, utterance, clip, limits, frontend))
        except AudioError as error:
            bad.append({"id": utterance.id, "split": split, "reason": str(error.reason), "detail": str(error)})
        except _LeftOut as left_out:
            bad.append({"id": utterance.id, "split": split, "reason": left_out.reason, "detail": str(left_out)})
    write_shard(folder, number, rows, bad)


class _LeftOut(Exception):
    """A clip that decodes but is not taken."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _feature_row(split: str, utterance: Utterance, clip: bytes | Path | AudioError, limits: ClipLimits,
                 frontend: LogMel) -> FeatureRow:
    spoken = language(limits.language)
    text = normalise(utterance.text, spoken)
    if foreign := foreign_letters(utterance.text, spoken):
        raise _LeftOut("foreign_letters", f"{utterance.text[:80]!r} holds {foreign!r}, which {limits.language!r} "
                                          "cannot spell")
    if not text:
        raise _LeftOut("no_text", f"{utterance.text[:80]!r} holds no character of the alphabet of {limits.language!r}")
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


def _check_enough(store: FeatureStore, corpora: Sequence[Corpus]) -> None:
    bad = Counter(row["reason"] for row in store.facts["bad_clips"])
    reasons = ", ".join(f"{count} {reason}" for reason, count in bad.most_common()) or "none was left out"
    for split, least in MIN_CLIPS.items():
        count = len(store.split(split))
        if count < least:
            paths = ", ".join(str(corpus.path) for corpus in corpora)
            raise CorpusError(f"{paths}: {count} usable clips in {split}; a study needs at least {least}. "
                              f"Left out: {reasons}. Names are in {store.folder / 'facts.json'}.")


# --- vocabularies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """Whether a vocabulary can be used on this corpus, before any trial tries."""

    kind: str
    size: int
    """As the recipe names it; 0 for characters."""
    num_labels: int
    infeasible_share: float
    """Share of the training clips that CTC cannot align."""
    error: str | None
    """Why it could not be made."""


def vocabulary_path(folder: Path, recipe: VocabularyRecipe) -> Path:
    """Where the vocabulary of a recipe is kept."""
    return folder / f"{recipe.kind}-{recipe.size}.json"


def load_vocabulary(folder: Path, recipe: VocabularyRecipe) -> Vocabulary:
    """Read a vocabulary that `prepare_vocabularies` made."""
    return vocabulary_from_bytes(vocabulary_path(folder, recipe).read_bytes())


def prepare_vocabularies(store: FeatureStore, recipes: Sequence[VocabularyRecipe], language_code: str,
                         stride: int) -> tuple[Path, dict[VocabularyRecipe, VocabularyReport]]:
    """Train every vocabulary of a space on the training text alone, as Ray tasks; kept beside the features.

    Returns the folder of the vocabularies, and what each is good for at an encoder of this stride.
    """
    folder = store.folder / f"vocabularies-{stride}"
    folder.mkdir(exist_ok=True)
    tasks = [_make_vocabulary.remote(store.folder, recipe, language_code, stride, folder) for recipe in recipes]
    return folder, dict(zip(recipes, ray.get(tasks), strict=True))


@ray.remote(num_cpus=1)
def _make_vocabulary(store_folder: Path, recipe: VocabularyRecipe, language_code: str, stride: int,
                     folder: Path) -> VocabularyReport:
    path = vocabulary_path(folder, recipe)
    report = path.with_suffix(".report.json")
    if report.exists():
        return VocabularyReport(**json.loads(report.read_text()))
    result = _train_and_check(FeatureStore(store_folder), recipe, language_code, stride, path)
    write_json(report, asdict(result))
    return result


def _train_and_check(store: FeatureStore, recipe: VocabularyRecipe, language_code: str, stride: int,
                     path: Path) -> VocabularyReport:
    train = store.split("train")
    try:
        vocabulary = train_vocabulary(recipe, train.texts, language(language_code).alphabet)
    except VocabularyError as error:
        return VocabularyReport(kind=recipe.kind, size=recipe.size, num_labels=0, infeasible_share=1.0,
                                error=str(error))
    aside = path.with_suffix(".part")
    aside.write_bytes(vocabulary_to_bytes(vocabulary))
    os.replace(aside, path)
    num_infeasible = sum(not is_feasible(vocabulary.encode(text), (int(frames) - 1) // stride + 1)
                         for text, frames in zip(train.texts, train.num_frames, strict=True))
    return VocabularyReport(kind=recipe.kind, size=recipe.size, num_labels=vocabulary.size,
                            infeasible_share=num_infeasible / max(1, len(train)), error=None)
