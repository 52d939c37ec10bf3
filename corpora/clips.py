"""Find the clips in files, folders, lists of paths and manifests."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpora.audio import AudioError
from corpora.manifest import CorpusError, Manifest
from corpora.sound import is_apple_double

STANDARD_INPUT = "-"
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})
MANIFEST_SUFFIXES = frozenset({".json", ".jsonl"})
SOUND_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".al", ".amr", ".ape", ".au", ".avi", ".awb", ".caf",
    ".flac", ".g722", ".gsm", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpga", ".nist",
    ".oga", ".ogg", ".opus", ".rf64", ".sln", ".snd", ".sph", ".spx", ".tta", ".ul", ".voc", ".w64", ".wav", ".wave",
    ".weba", ".webm", ".wma", ".wv",
})


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A stretch of an audio file to transcribe."""

    path: str
    """As given on the command line, and shown in the output."""
    offset_s: float = 0.0
    """Seconds into the file where the stretch starts."""
    duration_s: float | None = None
    """Its length in seconds; None reads to the end of the file."""


def find_clips(arguments: Iterable[str]) -> Iterator[Clip | AudioError]:
    """The clips that the arguments name, in order; for what cannot be read, the error is yielded.

    A folder stands for all its audio files at any depth, sorted by path, without macOS's `._NAME` files. A `.txt`,
    `.lst` or `.list` file holds a path per line; a `.json` or `.jsonl` file is a NeMo manifest, whose `text` may be
    absent; in both, relative paths start from the file's folder. `-` reads a path per line from standard input. Any
    other argument is an audio file.
    """
    for argument in arguments:
        path = Path(argument)
        try:
            if argument == STANDARD_INPUT:
                yield from _listed(sys.stdin, Path())
            elif path.is_dir():
                yield from _in_folder(path)
            elif path.suffix.lower() in LIST_SUFFIXES:
                with path.open(encoding="utf-8-sig") as lines:
                    yield from _listed(lines, path.parent)
            elif path.suffix.lower() in MANIFEST_SUFFIXES:
                for utterance in Manifest.load(path, needs_text=False):
                    yield Clip(path=utterance.audio, offset_s=utterance.offset_s, duration_s=utterance.duration_s)
            else:
                yield Clip(path=argument)
        except CorpusError as error:
            yield AudioError(str(error), reason="missing")
        except OSError as error:
            yield AudioError(f"{argument}: cannot be read ({error.strerror}). Check the path and its permissions.",
                             reason="missing")
        except UnicodeDecodeError as error:
            yield AudioError(f"{argument}: byte {error.start} is not UTF-8. A list of clips has a path per line.",
                             reason="missing")


def is_single(argument: str) -> bool:
    """Whether an argument is a single audio file, not a folder, list, manifest or standard input."""
    path = Path(argument)
    return argument != STANDARD_INPUT and not path.is_dir() and (
        path.suffix.lower() not in LIST_SUFFIXES | MANIFEST_SUFFIXES)


def _listed(lines: Iterable[str], folder: Path) -> Iterator[Clip]:
    for line in lines:
        if path := line.rstrip("\r\n"):
            yield Clip(path=str(folder / path))


def _in_folder(folder: Path) -> Iterator[Clip | AudioError]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and not path.is_dir()
                   and not is_apple_double(path))
    if not found:
        yield AudioError(f"{folder}: holds no audio file at any depth. Give a folder that does, or the files.",
                         reason="missing")
    for path in found:
        yield Clip(path=str(path))
