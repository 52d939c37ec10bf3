"""Corpora opened, joined and turned into a FeatureStore, once for all studies of the same content."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from corpora.corpus import Corpus, open_corpus
from corpora.features import FeatureStore, finish_store
from corpora.manifest import CorpusError
from corpora.text import NORMALISER_VERSION
from models.frontend import FrontendConfig
from models.nemo import SourceModel
from models.quartznet import QuartzNetConfig, named_network
from search.attempts import alone
from search.shards import CHUNK_BYTES, SHARD_BYTES, ClipLimits, all_clips, make_shards

STORE_VERSION = 3

MIN_CLIPS = {"train": 8, "dev": 1}
"""Fewer usable clips in a split stop the study."""

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
    folder = cache / "features" / store_key(corpora, limits)
    index = folder / "index.parquet"
    with contextlib.nullcontext() if index.exists() else alone(folder, "makes"):
        if not index.exists():
            _make_store(corpora, limits, folder)
    store = FeatureStore(folder)
    _check_enough(store, corpora)
    return store


def _make_store(corpora: Sequence[Corpus], limits: ClipLimits, folder: Path) -> None:
    num_clips = sum(len(manifest) for corpus in corpora for manifest in corpus.splits.values())
    try:
        num_shards = make_shards(all_clips(corpora), num_clips, folder, limits)
    except CorpusError:  # a mended corpus may have the same key, which samples a tarball
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finish_store(folder, num_shards, {"num_clips": num_clips, "key": folder.name})


def store_key(corpora: Sequence[Corpus], limits: ClipLimits) -> str:
    """A hash of the corpora's content, their splits, and all that turns a clip into frames and text."""
    content = [STORE_VERSION, NORMALISER_VERSION, SHARD_BYTES, CHUNK_BYTES, asdict(limits),
               [corpus.fingerprint for corpus in corpora]]
    digest = hashlib.sha256(json.dumps(content).encode())
    for number, corpus in enumerate(corpora):
        for split, manifest in sorted(corpus.splits.items()):
            for utterance in manifest:
                digest.update(f"{number}\0{split}\0{utterance.id}\n".encode())
    return digest.hexdigest()[:16]


def _check_enough(store: FeatureStore, corpora: Sequence[Corpus]) -> None:
    bad: dict[str, int] = store.facts["bad_by_reason"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in bad.items()) or "none was left out"
    for split, least in MIN_CLIPS.items():
        count = len(store.split(split))
        if count < least:
            paths = ", ".join(str(corpus.path) for corpus in corpora)
            raise CorpusError(f"{paths}: {count} usable clips in {split}; a study needs at least {least}. "
                              f"Left out: {reasons}. Names are in {store.folder / 'bad_clips.jsonl'}.")
