"""Common Voice releases whose clips are noise, as files, tarball and folder."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HEADER = "client_id\tpath\tsentence\n"
RELEASE = "cv-corpus-1.0/es"


def release_files(num_clips: int = 3, header: str = HEADER) -> dict[str, bytes]:
    """A release whose clips are noise: what they hold matters to nobody here."""
    noise = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for split in ("train", "dev", "test"):
        rows = "".join(f"speaker {split}\t{split}_{i}.mp3\tfrase {i}\n" for i in range(num_clips))
        files[f"{RELEASE}/{split}.tsv"] = (header + rows).encode()
    for split in ("train", "dev", "test", "other"):
        for i in range(num_clips):
            files[f"{RELEASE}/clips/{split}_{i}.mp3"] = noise.bytes(3000)
    return files


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unpack(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
