"""One interface to a corpus of any known kind: its splits, its clips, and a key of its content."""

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from corpora import common_voice, librispeech, manifest_folder
from corpora.audio import AudioError
from corpora.content import content_key, content_keys
from corpora.manifest import SPLITS, CorpusError, Manifest, Utterance
from corpora.storage import Location, is_uri, num_bytes_of, open_file

Kind = Literal["common_voice", "librispeech", "manifest"]

_TARBALL_NAMES = (".tar.gz", ".tgz", ".tar")
_MAX_NAMED_ROWS = 4
_MAX_CHARACTERS = 36_000
"""Half an hour at 20 per second; Unicode normalisation takes minutes for a million marks on one letter."""
_SAMPLE_BYTES = 1 << 20
"""Bytes read at a tarball's start, middle and end for its key."""
_GZIP_MAGIC = b"\x1f\x8b"
_KNOWN = ("a tarball (.tar.gz) or folder of Common Voice or LibriSpeech, or a NeMo manifest (.jsonl, .json) or a "
          "folder of them")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Utterances by split, and access to their clips."""

    path: Location
    """Where the corpus was opened from."""
    kind: Kind
    splits: dict[str, Manifest]
    """Some of train, dev and test, none of them empty; a manifest has no splits, so its utterances are under ""."""
    fingerprint: str
    """Hexadecimal key of the content: equal for a copy elsewhere or with other dates."""
    clips_key: str = ""
    """The part of the fingerprint that covers the clips."""
    archive: Location | None = None
    """The tarball that holds the clips; None if they are files."""
    origins: dict[str, str] = field(default_factory=dict)
    """What determined each split, set by `decide_splits`, or earlier for a folder of manifests; empty for a release."""

    @property
    def key(self) -> str:
        """The fingerprint, with the splits of a manifest, which depend on its name and on the other manifests."""
        if self.kind != "manifest":
            return self.fingerprint
        sizes = ",".join(f"{split}:{len(manifest)}" for split, manifest in sorted(self.splits.items()))
        return hashlib.sha256(f"{self.fingerprint} {sizes}".encode()).hexdigest()

    @property
    def language(self) -> str | None:
        """The language code that the corpus states; None if it states none."""
        if self.kind == "librispeech":
            return "en"
        audio = next((utterance.audio for split in self.splits.values() for utterance in split if utterance.audio), "")
        found = re.search(r"(?:^|/)cv-corpus-[^/]+/([a-z]+)[^/]*/clips/", audio)
        return found[1] if found else None

    def clips(self, splits: Collection[str]) -> Iterator[tuple[str, Utterance, bytes | Path | AudioError]]:
        """Yield split, utterance and clip of the wanted splits; a clip is bytes from a tarball, or the path of a file.

        A tarball is read in one pass, in its own order, one clip at a time. A missing or too large clip is yielded as
        the AudioError that `decode` will raise. So are, before all others, unusable rows: those without a clip or with
        too long a text, and those whose clip another row of any split names.

        Raises:
            CorpusError: the tarball is damaged or cut off, or holds a wanted clip twice.
        """
        unusable = _unusable_rows(self.splits)
        wanted: list[tuple[str, Utterance]] = []
        refused: list[tuple[str, Utterance, AudioError]] = []
        for split in splits:
            for row, utterance in enumerate(self.splits.get(split, ())):
                error = unusable.get((split, row))
                if error:
                    refused.append((split, utterance, error))
                else:
                    wanted.append((split, utterance))
        if self.archive is None:
            return chain(refused, ((split, utterance, _file_of(utterance)) for split, utterance in wanted))
        by_member = {utterance.audio: [(split, utterance)] for split, utterance in wanted}
        return chain(refused, common_voice.stream_clips(self.archive, by_member))


def open_corpus(path: str | Path, memory: Path | None = None) -> Corpus:
    """Open a tarball, by path or URI, or a folder of Common Voice or LibriSpeech, or a NeMo manifest.

    The folder `memory` remembers the keys of clips, so that next time only changed clips are read.

    Raises:
        CorpusError: the path holds none of these, or it is damaged; the message is one line.
    """
    where = str(path) if is_uri(path) else Path(os.path.expanduser(path)).absolute()
    try:
        corpus = _open_uri(where) if isinstance(where, str) else _open_path(where)
        clips_key = clips_key_of(corpus, memory)
        fingerprint = hashlib.sha256((corpus.fingerprint + clips_key).encode()).hexdigest()
        return replace(corpus, fingerprint=fingerprint, clips_key=clips_key)
    except OSError as error:
        raise CorpusError(
            f"{error.filename or where}: cannot be read ({error.strerror or error}). "
            "Check the path and its permissions."
        ) from error


def _open_uri(uri: str) -> Corpus:
    if not uri.lower().endswith(_TARBALL_NAMES):
        raise CorpusError(
            f"{uri}: is not a tarball by its name; at a URI a corpus is one file ({', '.join(_TARBALL_NAMES)}). Give a "
            "Common Voice tarball, or the path of anything else."
        )
    return _open_tarball(uri)


def _open_path(path: Path) -> Corpus:
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CorpusError(f"{path}: there is no such file or folder. Give the path of {_KNOWN}.")
    if path.name.lower().endswith(_TARBALL_NAMES):
        return _open_tarball(path)
    if path.name.lower().endswith(manifest_folder.MANIFEST_NAMES):
        return _open_manifest(path)
    raise CorpusError(f"{path}: the name ends in {path.suffix!r}, which is not a corpus. Give {_KNOWN}.")


def _open_tarball(location: Location) -> Corpus:
    kind: Kind = "librispeech" if librispeech.is_tarball(location) else "common_voice"
    splits, digest = (librispeech if kind == "librispeech" else common_voice).read_tarball(location)
    fingerprint = _fingerprint(kind, digest)
    return Corpus(path=location, kind=kind, splits=splits, fingerprint=fingerprint, archive=location)


def _open_folder(path: Path) -> Corpus:
    kind: Kind
    if common_voice.find_releases(path):
        kind, (splits, digest) = "common_voice", common_voice.read_folder(path)
    elif librispeech.find_subsets(path):
        kind, (splits, digest) = "librispeech", librispeech.read_folder(path)
    elif manifest_folder.find_manifests(path):
        whole, digest, origins = manifest_folder.read_folder(path)
        return Corpus(path=path, kind="manifest", splits={"": whole}, origins=origins,
                      fingerprint=_fingerprint("manifest", digest))
    else:
        raise CorpusError(f"{path}: this folder holds neither train.tsv nor train-*/ nor a manifest. Give {_KNOWN}.")
    fingerprint = _fingerprint(kind, digest)
    return Corpus(path=path, kind=kind, splits=splits, fingerprint=fingerprint)


def _open_manifest(path: Path) -> Corpus:
    splits = {"": Manifest.load(path)}
    fingerprint = _fingerprint("manifest", hashlib.sha256(path.read_bytes()).digest())
    return Corpus(path=path, kind="manifest", splits=splits, fingerprint=fingerprint)


def _unusable_rows(splits: dict[str, Manifest]) -> dict[tuple[str, int], AudioError]:
    """The rows without a clip or with too long a text, and those whose clip another row names, by split and number.

    A clip is identified by its file and its start. If its rows agree on the sentence, one of them is used: the first of
    test, else of dev, else of train, so that no test clip is trained on. If they disagree, none is used.
    """
    held_out_first = sorted(splits, key=lambda split: SPLITS[::-1].index(split) if split in SPLITS else len(SPLITS))
    once: set[tuple[str, float]] = set()
    repeated: set[tuple[str, float]] = set()
    for clip in (_clip_of(utterance) for split in held_out_first for utterance in splits[split]):
        (repeated if clip in once else once).add(clip)
    rows: dict[tuple[str, float], list[tuple[str, int]]] = {}
    unusable: dict[tuple[str, int], AudioError] = {}
    for split in held_out_first:
        for row, utterance in enumerate(splits[split]):
            if not utterance.audio:
                message = f"{utterance.id}: has no clip, or more or fewer fields than the first line. Fix or drop it."
                unusable[split, row] = AudioError(message, reason="bad_row")
            elif len(utterance.text) > _MAX_CHARACTERS:
                message = f"{utterance.id}: has {len(utterance.text):,} characters; the limit is {_MAX_CHARACTERS:,}."
                unusable[split, row] = AudioError(message, reason="bad_row")
            elif _clip_of(utterance) in repeated:
                rows.setdefault(_clip_of(utterance), []).append((split, row))
    for (audio, _), found in rows.items():
        texts = {splits[split][row].text for split, row in found}
        where = ", ".join(f"{split or 'row'} {row + 1}" for split, row in found[:_MAX_NAMED_ROWS])
        said = "one sentence" if len(texts) == 1 else f"{len(texts)} sentences, and which one is spoken is unknown"
        for place in found[1:] if len(texts) == 1 else found:
            message = f"{audio}: is in {len(found)} rows ({where}) with {said}. Drop all rows but one."
            unusable[place] = AudioError(message, reason="duplicate")
    return unusable


def _clip_of(utterance: Utterance) -> tuple[str, float]:
    return os.path.normpath(utterance.audio), utterance.offset_s


def _file_of(utterance: Utterance) -> Path | AudioError:
    # os.path, because pathlib raises for a name that is too long.
    if os.path.isfile(utterance.audio):
        return Path(utterance.audio)
    return AudioError(f"{utterance.audio}: there is no such file.", reason="missing")


def _fingerprint(kind: Kind, tables: bytes) -> str:
    return hashlib.sha256(kind.encode() + tables).hexdigest()


def clips_key_of(corpus: Corpus, memory: Path | None = None) -> str:
    """A key of the content of all clips as they are now.

    Files and uncompressed tarballs are read in full. gzip ends in a checksum of everything, so for a gzipped tarball
    the start, the middle and the end are enough; reading 52 GB would take minutes. An uncompressed tarball at a URI is
    read to its end each time, because nothing shows whether it has changed.
    """
    where = os.fsencode(str(corpus.path))
    kept = memory / f"{hashlib.sha256(where).hexdigest()[:16]}.keys" if memory else None
    if corpus.archive is None:
        return _files_key(corpus, kept)
    with open_file(corpus.archive) as file:
        num_bytes = num_bytes_of(file)
        digest = hashlib.sha256(f"{num_bytes}\n".encode())
        samples = []
        for start in (0, num_bytes // 2, max(0, num_bytes - _SAMPLE_BYTES)):
            file.seek(start)
            samples.append(file.read(_SAMPLE_BYTES))
        digest.update(b"".join(samples))
        if not samples[0].startswith(_GZIP_MAGIC):
            digest.update(content_key(file) if is_uri(corpus.archive) else
                          content_keys([str(corpus.archive)], kept, is_whole=True)[0])
    return digest.hexdigest()


def _files_key(corpus: Corpus, kept: Path | None) -> str:
    """A key of the name, relative to the corpus, and the content of every clip."""
    root = os.path.dirname(corpus.path) if os.path.isfile(corpus.path) else corpus.path
    named = sorted({utterance.audio for manifest in corpus.splits.values() for utterance in manifest})
    digest = hashlib.sha256()
    for audio, key in zip(named, content_keys(named, kept), strict=True):
        digest.update(os.fsencode(f"{os.path.relpath(audio, root) if audio else ''}\0") + key.hex().encode() + b"\n")
    return digest.hexdigest()
