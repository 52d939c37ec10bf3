"""A LibriSpeech folder to utterances."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from corpora.manifest import CorpusError, Manifest, Utterance

SPLITS = ("train", "dev", "test")
_LAYOUT = "LibriSpeech holds <split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt beside the .flac files"


def find_subsets(path: Path) -> list[Path]:
    """Return LibriSpeech's subset folders (train-clean-100, dev-other and so on) at, in, or one below a folder."""
    for root in (path, path / "LibriSpeech"):
        if root.is_dir():
            found = sorted(subset for subset in root.iterdir() if _split_of(subset) and subset.is_dir())
            if found:
                return found
    return [path] if _split_of(path) and next(path.glob("*/*/*.trans.txt"), None) else []


def read_folder(path: Path) -> tuple[dict[str, Manifest], bytes]:
    """Read the transcripts of every subset; train-* is joined to train, dev-* to dev, test-* to test.

    Returns: the splits that hold an utterance, and a digest of the transcripts.

    Raises:
        CorpusError: no transcript is found, or one is not UTF-8.
    """
    utterances: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    digest = hashlib.sha256()
    for subset in find_subsets(path):
        for transcript in sorted(subset.glob("*/*/*.trans.txt")):
            content = transcript.read_bytes()
            digest.update(f"{subset.name}/{transcript.name}\n".encode() + content)
            utterances[_split_of(subset)].extend(_read_transcript(transcript, content))
    splits = {split: Manifest(found) for split, found in utterances.items() if found}
    if not splits:
        raise CorpusError(f"{path}: holds 0 transcripts; {_LAYOUT}. Give the folder that the archive unpacks to.")
    return splits, digest.digest()


def _split_of(subset: Path) -> str:
    """The split of a subset's folder, "" where its name is not a subset's."""
    split, hyphen, rest = subset.name.partition("-")
    return split if split in SPLITS and hyphen and rest else ""


def _read_transcript(transcript: Path, content: bytes) -> Iterator[Utterance]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{transcript}: byte {error.start} is not UTF-8. Unpack the archive again.") from error
    for line in lines:
        name, _, text = line.strip().partition(" ")
        if name:
            yield Utterance(
                id=name,
                audio=str(transcript.parent / f"{Path(name).name}.flac"),
                duration_s=None,
                text=text,
                speaker=transcript.parent.parent.name,
            )
