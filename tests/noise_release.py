"""A Common Voice release of half-second clips of noise, each of which says the same sentence."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

RELEASE = "cv-corpus-1.0/es"
NUM_CLIPS = {"train": 12, "dev": 2, "test": 2}
SENTENCE = "enciende la luz de la cocina"
ENDS = {"train": "", "dev": " ya", "test": " hoy"}
"""A sentence of test that is in train too is an error."""
NO_ENDS = dict.fromkeys(ENDS, "")


def sound(seed: int, num_samples: int = 8000) -> bytes:
    """Half a second of noise, or as many samples at 16 kHz, as a WAV file's bytes."""
    content = io.BytesIO()
    soundfile.write(content, np.random.default_rng(seed).normal(0, 0.1, num_samples), 16_000, format="WAV")
    return content.getvalue()


def release(sentence: str = SENTENCE, header: str = "client_id\tpath\tsentence",
            ends: Mapping[str, str] = ENDS) -> dict[str, bytes]:
    """A whole Common Voice release of noise, as file name and content; each split ends the sentence in its own way."""
    files = {}
    for split, count in NUM_CLIPS.items():
        rows = "".join(f"speaker-{split}\t{split}{i}.wav\t{sentence}{ends[split]}\n" for i in range(count))
        files[f"{RELEASE}/{split}.tsv"] = f"{header}\n{rows}".encode()
    for number, (split, i) in enumerate((split, i) for split, count in NUM_CLIPS.items() for i in range(count)):
        files[f"{RELEASE}/clips/{split}{i}.wav"] = sound(number)
    return files


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
