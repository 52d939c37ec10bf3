"""A small release, mutated thousands of ways, read in a process of its own, and a judge of what comes out.

A seeded loop and not hypothesis: a variant may kill the process that reads it (the decoders are C), the seed alone says
which one it was, and any one is read again by `python tests/hostile_release.py SEED 1`.
"""

import faulthandler
import gzip
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from corpora.audio import AudioError, decode
from corpora.corpus import open_corpus
from corpora.languages import language
from corpora.manifest import CorpusError
from corpora.text import foreign_letters, normalise

RELEASE = "cv-corpus-25.0-2026-03-09/es"
COLUMNS = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tlocale"
FORMATS = (("MP3", 48_000, None), ("MP3", 24_000, None), ("OGG", 48_000, "OPUS"), ("OGG", 16_000, "VORBIS"),
           ("FLAC", 16_000, None), ("WAV", 16_000, "PCM_16"))
"""Two clips of each split."""
SPLIT_OF = ("train", "train", "dev", "dev", "test", "test")
FORMS = ("gzip", "tarball", "table", "clip", "folder", "manifest")
"""What is mutated: the release zipped, or plain; a table or a clip in it; one in a folder; a manifest's lines."""
SECONDS = 20
"""A variant takes milliseconds; on a busy machine a hundred times that."""
MORE_BYTES = 1 << 30
"""Address space beside what the libraries take."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Clips and the rows that name them, by number."""

    names: tuple[str, ...]
    sounds: tuple[bytes, ...]
    texts: tuple[str, ...]
    lines: tuple[bytes, ...]
    """The row of each clip, without its line end."""
    files: dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A mutated release as it lies on the disk, and which clips and rows the mutation left as they were."""

    path: Path
    whole_clips: frozenset[int]
    whole_rows: frozenset[int]
    any_change_is_told: bool = False
    """Whether a checksum covers all, so that nothing but the original may come out."""


@dataclass(kw_only=True)
class Findings:
    """What became of the variants read."""

    counts: Counter[str] = field(default_factory=Counter)
    """Of variants: `read` and `refused`; of their clips: `paired`, and the reasons of those that are not used."""
    wrong: list[str] = field(default_factory=list)
    """Seed and finding: another exception, a wrong sentence, a process that died."""


@cache
def release() -> Release:
    """The release that is mutated: six sounds of a quarter of a second, each with a sentence of its own."""
    noise = np.random.default_rng(0)
    sounds = []
    for number, (form, rate_hz, subtype) in enumerate(FORMATS):
        time_s = np.arange(rate_hz // 4) / rate_hz
        sound = 0.4 * np.sin(2 * np.pi * (300 + 100 * number) * time_s) + 0.01 * noise.standard_normal(len(time_s))
        file = io.BytesIO()
        soundfile.write(file, sound.astype(np.float32), rate_hz, format=form, subtype=subtype)
        sounds.append(file.getvalue())
    names = tuple(f"common_voice_es_{10 + number}.mp3" for number in range(len(sounds)))
    texts = ("Érase una vez.", 'Dijo "hola" y se fue.', "Quedan 21 días, ¿no?", "L'Hospitalet está lejos.",
             "El precio es 3,50 €.", "Mañana lloverá en A Coruña.")
    lines = tuple(f"speaker{number}\t{name}\tid{number}\t{text}\t\t2\t0\t\tes".encode()
                  for number, (name, text) in enumerate(zip(names, texts, strict=True)))
    files = {}
    for split in dict.fromkeys(SPLIT_OF):
        rows = [line for line, own in zip(lines, SPLIT_OF, strict=True) if own == split]
        files[f"{RELEASE}/{split}.tsv"] = b"\n".join([COLUMNS.encode(), *rows, b""])
    files |= {f"{RELEASE}/clips/{name}": sound for name, sound in zip(names, sounds, strict=True)}
    return Release(names=names, sounds=tuple(sounds), texts=texts, lines=lines, files=files)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to three changes of the bytes: bits flipped, a part cut out, doubled, moved, overwritten, or the end cut.

    One change in three is in the first 128 bytes, for there are the headers. Text gets whole rows that are elsewhere.
    """
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        if not changed:
            break
        reach = draw.choice((128, len(changed), len(changed)))
        unit = draw.choice((1, 1, 8, 64, 512))
        start, end = sorted(unit * draw.randint(0, min(reach, len(changed)) // unit) for _ in range(2))
        end = min(end, start + unit * draw.choice((1, 2, 8, 64)))
        part, to = changed[start:end], unit * draw.randint(0, min(reach, len(changed)) // unit)
        kind = draw.randrange(9)
        if kind < 2:
            for _ in range(draw.choice((1, 2, 16))):
                changed[draw.randrange(min(reach, len(changed)))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del changed[start:end]
        elif kind == 3:
            changed[to:to] = part
        elif kind == 4:
            changed[to : to + len(part)] = part
        elif kind == 5:
            changed[start:end] = draw.choice((b"\0", b"\xff", b"\n", b"\t", b'"', b"9")) * (end - start)
        elif kind == 6:
            changed[to:to] = draw.choice((draw.randbytes(unit), b"\t", b"\n", b"\r\n", b'"', b"\0", b"\xef\xbb\xbf"))
        elif kind == 7:
            del changed[draw.randrange(len(changed)) :]
        else:
            after = changed.find(b"\n", draw.randrange(len(changed))) + 1
            changed[after:after] = draw.choice(release().lines) + b"\n"
    return bytes(changed)


def tarball(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def members() -> list[bytes]:
    """Each clip in a tarball: its header and its bytes up to the next member."""
    found = []
    for name, sound in zip(release().names, release().sounds, strict=True):
        packed = tarball({f"{RELEASE}/clips/{name}": sound})
        found.append(packed[: 512 + (len(sound) + 511) // 512 * 512])
    return found


def rows_in(content: bytes) -> frozenset[int]:
    """The rows that stand in the tables as they were, as whole lines."""
    return frozenset(number for number, line in enumerate(release().lines) if b"\n" + line + b"\n" in content)


def make_variant(seed: int, folder: Path) -> Variant:
    """Write the variant of a seed into an empty folder."""
    draw, files = random.Random(seed), dict(release().files)
    form = FORMS[seed % len(FORMS)]
    everything = frozenset(range(len(release().names)))
    if form == "gzip":
        zipped = gzip.compress(tarball(files), draw.choice((0, 1, 9)), mtime=0)
        (folder / "x.tar.gz").write_bytes(mutated(zipped, draw))
        return Variant(path=folder / "x.tar.gz", whole_clips=everything, whole_rows=everything, any_change_is_told=True)
    if form == "tarball":
        changed = mutated(tarball(files), draw)
        (folder / "x.tar").write_bytes(changed)
        whole = frozenset(number for number, member in enumerate(members()) if member in changed)
        return Variant(path=folder / "x.tar", whole_clips=whole, whole_rows=rows_in(changed))
    if form == "manifest":
        return manifest_variant(draw, folder)
    wanted = ".tsv" if form == "table" or (form == "folder" and draw.random() < 0.5) else ".mp3"
    name = draw.choice([name for name in files if name.endswith(wanted)])
    files[name] = mutated(files[name], draw)
    whole = frozenset(number for number in everything if not name.endswith(release().names[number]))
    rows = rows_in(b"".join(content for name, content in files.items() if name.endswith(".tsv")))
    path = folder / "x.tar.gz"
    if form == "folder":
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        path = folder / RELEASE
    else:
        path.write_bytes(gzip.compress(tarball(files), 1))
    return Variant(path=path, whole_clips=whole, whole_rows=rows)


def manifest_variant(draw: random.Random, folder: Path) -> Variant:
    """A NeMo manifest of the same clips whose lines are mutated."""
    (folder / "audio").mkdir()
    lines = []
    for name, sound, text in zip(release().names, release().sounds, release().texts, strict=True):
        (folder / "audio" / name).write_bytes(sound)
        record = {"audio_filepath": f"audio/{name}", "duration": 0.25, "text": text, "speaker": name}
        lines.append(json.dumps(record, ensure_ascii=draw.random() < 0.5).encode())
    changed = mutated(b"\n".join([*lines, b""]), draw)
    (folder / "train.jsonl").write_bytes(changed)
    rows = frozenset(number for number, line in enumerate(lines) if b"\n" + line + b"\n" in b"\n" + changed)
    return Variant(path=folder / "train.jsonl", whole_clips=frozenset(range(len(lines))), whole_rows=rows)


def judge(variant: Variant, pairs: Iterable[tuple[str, bytes, str]]) -> list[str]:
    """Say what is wrong with the pairs of split, sound and sentence that came out.

    A sound that is a clip's must have that clip's sentence, and a sentence that is a row's that row's sound, unless the
    mutation touched that clip or that row. No sound may come out in two splits.
    """
    wrong = []
    split_of: dict[bytes, str] = {}
    for split, sound, text in pairs:
        if split_of.setdefault(sound, split) != split:
            wrong.append(f"a sound is in {split_of[sound]} and {split}")
        of_sound = release().sounds.index(sound) if sound in release().sounds else None
        of_text = release().texts.index(text) if text in release().texts else None
        if of_sound == of_text and of_sound is not None:
            continue
        if variant.any_change_is_told:
            wrong.append(f"changed without a word: clip {of_sound}, sentence {of_text} ({text!r})")
        for number in {of_sound, of_text} - {None}:
            if number in variant.whole_clips and number in variant.whole_rows:
                wrong.append(f"untouched {number}: clip {of_sound} with sentence {of_text} ({text!r})")
    return wrong


@lru_cache(maxsize=64)
def decoded(sound: bytes) -> str:
    """The reason why a sound cannot be used, "" where it can."""
    try:
        waveform: npt.NDArray[np.float32] = decode(sound)
    except AudioError as error:
        return str(error.reason)
    assert waveform.ndim == 1 and waveform.dtype == np.float32 and np.isfinite(waveform).all()
    return ""


def read(variant: Variant, counts: Counter[str]) -> list[tuple[str, bytes, str]]:
    """Read a variant as a study does; a tarball whose pass ends in an error has given nothing."""
    pairs = []
    found: Counter[str] = Counter()
    try:
        corpus = open_corpus(variant.path)
        num_rows = sum(map(len, corpus.splits.values()))
        for split, utterance, clip in corpus.clips(corpus.splits):
            sound = clip.read_bytes() if isinstance(clip, Path) else clip
            text = normalise(utterance.text, language("es"))
            reason = str(sound.reason) if isinstance(sound, AudioError) else decoded(sound)
            if not reason and (foreign_letters(utterance.text, language("es")) or not text):
                reason = "text"
            found[reason or "paired"] += 1
            if not reason and isinstance(sound, bytes):
                pairs.append((split, sound, utterance.text))
        assert sum(found.values()) == num_rows, f"{num_rows} rows, of which came {found}"
    except CorpusError as error:
        assert str(error).isprintable() and len(str(error)) < 4000, repr(error)
        counts["refused"] += 1
        return []
    counts["read"] += 1
    counts.update(found)
    return pairs


def read_here(seed: int, folder: Path, findings: Findings) -> None:
    """Read one variant in this process and judge what comes out."""
    variant = make_variant(seed, folder)
    before = sorted(folder.rglob("*"))
    try:
        findings.wrong += [f"{seed}: {said}" for said in judge(variant, read(variant, findings.counts))]
    except Exception as error:
        findings.wrong.append(f"{seed}: {type(error).__name__}: {error}")
    if sorted(folder.rglob("*")) != before:
        findings.wrong.append(f"{seed}: wrote into the corpus")


def read_apart(first_seed: int, num_variants: int, script: Path = Path(__file__)) -> Findings:
    """Read variants in a process of its own, and in a new one after each that kills it."""
    findings, seed = Findings(), first_seed
    tests = Path(__file__).resolve().parent
    environment = os.environ | {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    while seed < first_seed + num_variants:
        command = [sys.executable, str(script), str(seed), str(first_seed + num_variants - seed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
        records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for record in records:
            findings.counts.update(record["counts"])
            findings.wrong += record["wrong"]
        seed += len(records)
        if done.returncode:
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
            findings.wrong.append(f"{seed}: {how}: {done.stderr[-2000:]}")
            seed += 1
    return findings


def main(first_seed: int, num_variants: int) -> None:
    """Read the variants of seeds from the first on, a line of JSON each, under a watch of time and memory."""
    # Libraries are loaded, and take their address space, before it is limited.
    normalise("Quedan 21 días.", language("es"))
    assert not any(decoded(sound) for sound in release().sounds)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, used + MORE_BYTES))
    for seed in range(first_seed, first_seed + num_variants):
        findings = Findings()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        with tempfile.TemporaryDirectory() as folder:
            read_here(seed, Path(folder), findings)
        print(json.dumps({"counts": findings.counts, "wrong": findings.wrong}), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
