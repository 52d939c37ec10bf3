"""Open corpora, join them and turn them into a FeatureStore, once for all studies of the same content."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from corpora.corpus import Corpus, clips_key_of, open_corpus
from corpora.features import FeatureStore, finish_store
from corpora.manifest import CorpusError
from corpora.splits import decide_splits
from corpora.text import NORMALISER_VERSION
from models.frontend import FrontendConfig
from models.nemo import SourceModel
from models.quartznet import QuartzNetConfig, named_network
from search.speech.retry import alone
from search.speech.shards import CHUNK_BYTES, SHARD_BYTES, ClipLimits, all_clips, make_shards
from search.wording import counted

STORE_VERSION = 3

CONTENTS = "contents"
"""Folder in the cache that remembers the keys of clips."""

MIN_CLIPS = {"train": 8, "dev": 1}
"""With fewer usable clips in a split, the study stops."""

@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a study."""

    sources: Mapping[str, SourceModel]
    """By their names in recipes, all of one shape and front end; none to train from random weights."""
    corpora: list[Corpus]

    @property
    def source(self) -> SourceModel | None:
        """The first one, whose shape and front end all have."""
        return next(iter(self.sources.values()), None)

    @property
    def frontend(self) -> FrontendConfig:
        """The source's front end, or NeMo's current one."""
        return self.source.frontend if self.source else FrontendConfig()

    def network(self, space: ModuleType) -> QuartzNetConfig:
        """The network that the space's recipes train."""
        return self.source.network if self.source else named_network(space.SOURCE_NETWORK)


def join_corpora(paths: Sequence[str], given: Sequence[str] = (), cache: Path | None = None) -> list[Corpus]:
    """Open the corpora and decide the splits: train joined from all, dev and test from those that have them.

    `given` is the split of each manifest that was named as one, "" for the others. `cache` remembers the keys of clips.

    Raises:
        CorpusError: a corpus cannot be opened, or there is no split to train or to tune on.
    """
    memory = cache / CONTENTS if cache else None
    return decide_splits([open_corpus(path, memory) for path in paths], given or [""] * len(paths))


def prepare_features(corpora: Sequence[Corpus], limits: ClipLimits, cache: Path) -> FeatureStore:
    """The joined corpora's FeatureStore: opened if it exists, otherwise made or completed by Ray tasks.

    Raises:
        CorpusError: a corpus cannot be read to its end, or has too few usable clips.
    """
    folder = cache / "features" / store_key(corpora, limits)
    index = folder / "index.parquet"
    with contextlib.nullcontext() if index.exists() else alone(folder, "makes"):
        if not index.exists():
            _make_store(corpora, limits, folder, cache)
    store = FeatureStore(folder)
    _check_enough(store, corpora, limits.language.code)
    return store


def _make_store(corpora: Sequence[Corpus], limits: ClipLimits, folder: Path, cache: Path) -> None:
    num_clips = sum(len(manifest) for corpus in corpora for manifest in corpus.splits.values())
    try:
        num_shards = make_shards(all_clips(corpora), num_clips, folder, limits, _state_of(corpora))
        _check_unchanged(corpora, cache)
    except CorpusError:  # a repaired corpus may have the same key, which samples a tarball
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finish_store(folder, num_shards, {"num_clips": num_clips, "key": folder.name})


def _state_of(corpora: Sequence[Corpus]) -> str:
    """Size and date of local tarballs: damage in one is found at its end, and its replacement may have the same key."""
    files = [os.stat(corpus.archive) for corpus in corpora if isinstance(corpus.archive, Path)]
    return ",".join(f"{file.st_size}@{file.st_mtime_ns}" for file in files)


def _check_unchanged(corpora: Sequence[Corpus], cache: Path) -> None:
    for corpus in corpora:
        if clips_key_of(corpus, cache / CONTENTS) != corpus.clips_key:
            raise CorpusError(f"{corpus.path}: its clips changed while they were read, so the features would be "
                              "of both versions. Run it again when they are in place.")


def store_key(corpora: Sequence[Corpus], limits: ClipLimits) -> str:
    """A hash of the corpora's content, their splits, and everything that turns a clip into frames and text."""
    content = [STORE_VERSION, NORMALISER_VERSION, SHARD_BYTES, CHUNK_BYTES, asdict(limits),
               [corpus.fingerprint for corpus in corpora]]
    digest = hashlib.sha256(json.dumps(content).encode())
    for number, corpus in enumerate(corpora):
        for split, manifest in sorted(corpus.splits.items()):
            for utterance in manifest:
                digest.update(f"{number}\0{split}\0{utterance.id}\n".encode())
    return digest.hexdigest()[:16]


def _check_enough(store: FeatureStore, corpora: Sequence[Corpus], language: str) -> None:
    bad: dict[str, int] = store.facts["bad_by_reason"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in bad.items()) or "none was left out"
    wrong = f" {language!r} may not be their language; name it with --language." if "foreign_letters" in bad else ""
    for split, least in MIN_CLIPS.items():
        count = len(store.split(split))
        if count < least:
            paths = ", ".join(str(corpus.path) for corpus in corpora)
            raise CorpusError(f"{paths}: {counted(count, 'usable clip')} in {split}; a study needs at least {least}. "
                              f"Left out: {reasons}.{wrong} Names are in {store.folder / 'bad_clips.jsonl'}.")
