"""Read a folder with a manifest per split, as NeMo's scripts write it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from corpora.manifest import MAX_LINE_BYTES, Manifest, Utterance
from corpora.split_names import named_split

MANIFEST_NAMES = (".jsonl", ".json", ".manifest")


def find_manifests(folder: Path) -> list[Path]:
    """The manifests in a folder; if there is none, those in its subfolders."""
    for pattern in ("*", "*/*"):
        found = [path for path in sorted(folder.glob(pattern)) if _is_manifest(path)]
        if found:
            return found
    return []


def _is_manifest(path: Path) -> bool:
    """By its name and its first line, because other JSON files may be next to manifests."""
    if path.name.startswith(".") or not path.name.lower().endswith(MANIFEST_NAMES) or not path.is_file():
        return False
    with path.open("rb") as lines:
        first = lines.readline(MAX_LINE_BYTES)
    try:
        return "audio_filepath" in json.loads(first.decode("utf-8-sig"))
    except (TypeError, ValueError, RecursionError):
        return False


def read_folder(folder: Path) -> tuple[Manifest, bytes, dict[str, str]]:
    """All utterances, each in the split that its line names, or else its file, or else its folder; a digest of the
    manifests; and the files of each split.

    Raises:
        ManifestError: a manifest cannot be read, or its name contains two splits.
    """
    digest, utterances, files = hashlib.sha256(), list[Utterance](), dict[str, list[str]]()
    for path in find_manifests(folder):
        name = str(path.relative_to(folder))
        split = named_split(path.name.partition(".")[0])
        if not split and path.parent != folder:
            split = named_split(path.parent.name)
        files.setdefault(split, []).append(name)
        digest.update(f"{name}\0".encode(errors="surrogateescape") + hashlib.sha256(path.read_bytes()).digest())
        utterances += (replace(utterance, id=f"{name}:{utterance.id}", split=utterance.split or split)
                       for utterance in Manifest.load(path))
    origins = {split: f"{', '.join(names)} in it" for split, names in files.items() if split}
    return Manifest(utterances), digest.digest(), origins
