"""Read LibriSpeech, as a folder or a tarball, into utterances."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

from corpora.manifest import SPLITS, CorpusError, Manifest, Utterance
from corpora.storage import Location
from corpora.tarball import APPLE_DOUBLE, open_tarball

_TRANSCRIPT = ".trans.txt"
_MAX_TRANSCRIPT_BYTES = 1 << 20
"""A chapter's transcript has about ten thousand bytes; a larger member is not read into memory."""
_FILES_TO_KNOW = 16
"""OpenSLR's tarballs start with five files about the corpus; the first chapter follows."""
_LAYOUT = "LibriSpeech holds <split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt next to the .flac files"


def find_subsets(path: Path) -> list[Path]:
    """Return LibriSpeech's subset folders (train-clean-100, dev-other and so on), up to two levels below a folder."""
    for root in (path, path / "LibriSpeech"):
        if root.is_dir():
            found = sorted(subset for subset in root.iterdir() if _split_of(subset) and subset.is_dir())
            if found:
                return found
    return [path] if _split_of(path) and next(path.glob("*/*/*.trans.txt"), None) else []


def read_folder(path: Path) -> tuple[dict[str, Manifest], bytes]:
    """Read the transcripts of every subset; train-* is joined to train, dev-* to dev, test-* to test.

    Returns: the splits with utterances, and a digest of the transcripts.

    Raises:
        CorpusError: there is no transcript, or one is not a regular file, too large, or not UTF-8.
    """
    transcripts: dict[PurePath, bytes] = {}
    for subset in find_subsets(path):
        transcripts |= {found: _content(found) for found in sorted(subset.glob(f"*/*/*{_TRANSCRIPT}"))
                        if not found.name.startswith(APPLE_DOUBLE)}
    return _to_splits(path, transcripts, "")


def is_tarball(path: Location) -> bool:
    """Whether a tarball starts like LibriSpeech's.

    Raises:
        CorpusError: it is not a tarball, or is damaged.
    """
    with open_tarball(path) as tarball:
        return any(_is_of_chapter(PurePosixPath(member.name)) for member in islice(tarball.files(), _FILES_TO_KNOW))


def read_tarball(path: Location) -> tuple[dict[str, Manifest], bytes]:
    """Read the transcripts of a tarball in one pass to its end; they may come before or after their clips.

    Each utterance's `audio` is the member's name in the tarball.

    Returns: the splits with utterances, and a digest of the transcripts.

    Raises:
        CorpusError: the tarball is damaged or cut off, holds no transcript, or one is not UTF-8 or too large.
    """
    transcripts: dict[PurePath, bytes] = {}
    with open_tarball(path) as tarball:
        for member in tarball.files():
            name = PurePosixPath(member.name)
            if not (_is_of_chapter(name) and name.name.endswith(_TRANSCRIPT)):
                continue
            if member.size > _MAX_TRANSCRIPT_BYTES:
                raise CorpusError(
                    f"{path}: {member.name} is {member.size:,} bytes; a chapter's transcript is at most "
                    f"{_MAX_TRANSCRIPT_BYTES:,}. Download it again."
                )
            transcripts[name] = tarball.content(member).read()
    return _to_splits(path, dict(sorted(transcripts.items())), f"{path}: ")


def _is_of_chapter(name: PurePosixPath) -> bool:
    """Whether a member is a clip or a transcript: <subset>/<speaker>/<chapter>/ under any folders."""
    return name.name.endswith((".flac", _TRANSCRIPT)) and len(name.parts) >= 4 and _split_of(name.parents[2]) != ""


def _to_splits(path: Location, transcripts: Mapping[PurePath, bytes], where: str) -> tuple[dict[str, Manifest], bytes]:
    utterances: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    digest = hashlib.sha256()
    for transcript, content in transcripts.items():
        subset = transcript.parents[2]
        digest.update(os.fsencode(f"{subset.name}/{transcript.name}\n") + content)
        utterances[_split_of(subset)].extend(_read_transcript(transcript, content, where))
    splits = {split: Manifest(found) for split, found in utterances.items() if found}
    if not splits:
        raise CorpusError(
            f"{path}: holds 0 transcripts; {_LAYOUT}. Give a tarball of LibriSpeech, or the folder that it unpacks to."
        )
    return splits, digest.digest()


def _split_of(subset: PurePath) -> str:
    """The split of a subset's folder, "" if its name is not a subset's."""
    split, hyphen, rest = subset.name.partition("-")
    return split if split in SPLITS and hyphen and rest else ""


def _content(transcript: Path) -> bytes:
    if not transcript.is_file() or transcript.stat().st_size > _MAX_TRANSCRIPT_BYTES:
        raise CorpusError(f"{transcript}: is not a regular file of at most {_MAX_TRANSCRIPT_BYTES:,} bytes; {_LAYOUT}. "
                          "Unpack the archive again.")
    return transcript.read_bytes()


def _read_transcript(transcript: PurePath, content: bytes, where: str) -> Iterator[Utterance]:
    try:
        # Not splitlines: it also splits at U+2028 and its like, and the rest of a sentence would be lost.
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}{transcript}: byte {error.start} is not UTF-8. Download the archive "
                          "again.") from error
    speaker = transcript.parent.parent.name
    if not speaker.isprintable():
        raise CorpusError(f"{where}{transcript}: the speaker's folder is {speaker!r}, which cannot be printed. Rename "
                          "it.")
    for line in lines:
        name, _, text = line.strip().partition(" ")
        if name:
            yield Utterance(
                id=name,
                audio=str(transcript.parent / f"{Path(name).name}.flac"),
                duration_s=None,
                text=text,
                speaker=speaker,
            )
