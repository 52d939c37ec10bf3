"""The embedded default: a small corpus of spoken commands, made with eSpeak NG and laid out as a Common Voice release.

eSpeak NG is GPL and comes only with the extra `demo`. Clips are FLAC at 16 kHz: for 2.6 s of speech, which eSpeak
makes in 2 ms, libsndfile needs 0.7 ms to write FLAC and 15 ms to write MP3.
"""

import ctypes
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile

import installation
from corpora.grammars import GRAMMARS, draw_sentences
from corpora.manifest import SPLITS, CorpusError
from files.atomic import rename

_VERSION = 1
"""Raised whenever the same parameters would give another corpus, so that old ones are not reused."""
_NUM_PROCESSES = 2
"""Fixed, whatever the number of cores: eSpeak keeps state from clip to clip, so the division affects the samples."""

_RANDOM_SEED = 1
"""eSpeak seeds its own draws (breath, flutter) from the clock unless a seed is set."""

_ESPEAK_RATE_HZ = 22_050
_CLIP_RATE_HZ = 16_000
_VOICES = {"en": ("en-us",), "es": ("es", "es-419"), "it": ("it",)}
_ACCENTS = {"en-us": "United States English", "es": "España: Norte peninsular", "es-419": "México",
            "it": "Italiano"}
_FEMALE = (
    "f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "grandma", "linda",
    "shelby", "steph", "steph2", "steph3",
)  # fmt: skip
_MALE = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene", "Gene2", "Henrique",
    "Hugo", "Jacky", "Lee", "Mario", "Michael", "Mike", "Nguyen", "RicishayMax", "Storm", "adam", "announcer",
    "antonio", "benjamin", "boris", "caleb", "david", "ed", "edward", "edward2", "grandpa", "gustave", "ian",
    "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "marcelo", "max", "michel", "miguel", "norbert",
    "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "travis", "victor", "zac",
)  # fmt: skip
_VARIANTS = _FEMALE + _MALE
"""eSpeak's voice variants except whispers, robots and monsters."""
_HELD_OUT_SHARE = 0.12
"""Share of the variants only in dev, and again only in test."""
_SPEAKERS_PER_VARIANT = 2

_COLUMNS = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
    "accents", "variant", "locale", "segment",
)  # fmt: skip
_AGES = ("twenties", "thirties", "fourties", "fifties", "sixties")  # Common Voice's own spelling


@dataclass(frozen=True, kw_only=True)
class _Speaker:
    voice: str
    variant: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    age: str

    @property
    def client_id(self) -> str:
        return hashlib.sha512(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One clip to speak."""

    clip: str
    sentence: str
    speaker: _Speaker
    peak: float
    """Largest sample, relative to full scale."""
    noise_db: float
    """White noise, relative to the speech's mean power."""
    seed: int


def write_synthetic(
    folder: str | os.PathLike[str], language: Literal["en", "es", "it"], num_utterances: Mapping[str, int], seed: int
) -> Path:
    """Speak a corpus of home-assistant commands and return its release folder, `cv-corpus-synthetic-…`.

    The same arguments give the same bytes. An existing corpus is returned as it is; an interrupted one never gets its
    final name. Speakers, voices and sentences are disjoint between the splits.

    Args:
        num_utterances: number of clips in each of `train`, `dev`, `test`; a split left out is not written.

    Raises:
        CorpusError: eSpeak NG is not installed or fails, the language or a split is unknown, or the grammar has too few
            sentences.
    """
    _check_request(language, num_utterances)
    release = Path(folder) / release_name(language, num_utterances, seed)
    if release.is_dir():
        return release
    release.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{release.name}.", suffix=".part", dir=release.parent))
    try:
        aside.chmod(0o755)
        _write_release(aside / language, language, _plan(language, num_utterances, seed))
        os.sync()  # once for thousands of small files
        rename(aside, release)
    except OSError as error:
        if not release.is_dir():  # otherwise another process was first, with the same bytes
            raise CorpusError(f"{release}: cannot write the synthetic corpus ({error}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return release


def release_name(language: str, num_utterances: Mapping[str, int], seed: int) -> str:
    """Name a corpus after everything that determines its content."""
    request = json.dumps([_VERSION, language, sorted(num_utterances.items()), seed])
    return f"cv-corpus-synthetic-{language}-{hashlib.sha256(request.encode()).hexdigest()[:10]}"


def _check_request(language: str, num_utterances: Mapping[str, int]) -> None:
    if language not in GRAMMARS:
        raise CorpusError(f"language is {language!r}; the synthetic corpus is spoken in {', '.join(sorted(GRAMMARS))}.")
    for split, number in num_utterances.items():
        if split not in SPLITS or number < 1:
            raise CorpusError(f"num_utterances has {split!r}: {number}; splits are {', '.join(SPLITS)}, of at least 1.")
    if importlib.util.find_spec("espeakng_loader") is None:
        raise CorpusError(
            "The embedded default speaks its own corpus with eSpeak NG, which is not installed. "
            f"Install it with `{installation.command('demo')}`, or name a --corpus."
        )


def _plan(language: str, num_utterances: Mapping[str, int], seed: int) -> dict[str, list[_Line]]:
    """Decide the sentence, speaker and loudness of every clip of every split."""
    random = Random(f"{seed} {language}")
    try:
        sentences = iter(draw_sentences(GRAMMARS[language], sum(num_utterances.values()), random))
    except ValueError as error:
        raise CorpusError(f"num_utterances is too large for the {language!r} grammar: {error}") from error
    speakers = _draw_speakers(language, random)
    lines: dict[str, list[_Line]] = {}
    for split in (s for s in SPLITS if s in num_utterances):
        lines[split] = [
            _Line(
                clip=f"synthetic_{language}_{split}_{index:05d}.flac",
                sentence=next(sentences),
                speaker=speakers[split][index % len(speakers[split])],
                peak=10 ** (random.uniform(-15, -1) / 20),
                noise_db=random.uniform(20, 45),
                seed=random.getrandbits(32),
            )
            for index in range(num_utterances[split])
        ]
    return lines


def _draw_speakers(language: str, random: Random) -> dict[str, list[_Speaker]]:
    """Deal the voice variants to the splits, then make speakers of different pitch and pace from each."""
    variants = random.sample(_VARIANTS, len(_VARIANTS))
    held_out = round(_HELD_OUT_SHARE * len(variants))
    dealt = {"dev": variants[:held_out], "test": variants[held_out : 2 * held_out], "train": variants[2 * held_out :]}
    return {
        split: [
            _Speaker(
                voice=_VOICES[language][turn % len(_VOICES[language])],
                variant=variant,
                words_per_minute=random.randint(165, 205),
                pitch=random.randint(35, 65),
                pitch_range=random.randint(35, 65),
                age=random.choice(_AGES),
            )
            for turn in range(_SPEAKERS_PER_VARIANT)
            for variant in names
        ]
        for split, names in dealt.items()
    }


def _write_release(root: Path, language: str, lines: Mapping[str, Sequence[_Line]]) -> None:
    clips = root / "clips"
    clips.mkdir(parents=True)
    durations_s = _speak_all([line for split in lines.values() for line in split], clips)
    rows = {split: [_row(line, language) for line in of_split] for split, of_split in lines.items()}
    for name, table in (rows | {"validated": [row for of_split in rows.values() for row in of_split]}).items():
        _write_table(root / f"{name}.tsv", _COLUMNS, table)
    _write_table(
        root / "clip_durations.tsv",
        ["clip", "duration[ms]"],
        [[clip, str(round(1000 * duration_s))] for clip, duration_s in sorted(durations_s.items())],
    )


def _row(line: _Line, language: str) -> list[str]:
    speaker = line.speaker
    sentence_id = hashlib.sha256(line.sentence.encode()).hexdigest()
    gender = "female_feminine" if speaker.variant in _FEMALE else "male_masculine"
    return [speaker.client_id, line.clip, sentence_id, line.sentence, "", "2", "0", speaker.age, gender,
            _ACCENTS[speaker.voice], "", language, ""]  # fmt: skip


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")


def _speak_all(lines: Sequence[_Line], clips: Path) -> dict[str, float]:
    """Speak the lines in separate processes and return each clip's duration in seconds.

    The processes run this file by name: `multiprocessing` would import the caller's main module, with Ray, in each.
    """
    parts = [part for index in range(_NUM_PROCESSES) if (part := lines[index::_NUM_PROCESSES])]
    with ThreadPoolExecutor(_NUM_PROCESSES) as pool:
        spoken = pool.map(lambda part: _speak_in_process(part, clips), parts)
        return {clip: duration_s for part in spoken for clip, duration_s in part.items()}


def _speak_in_process(lines: Sequence[_Line], clips: Path) -> dict[str, float]:
    job = json.dumps({"clips": str(clips.resolve()), "lines": [asdict(line) for line in lines]})
    done = subprocess.run(
        [sys.executable, "-m", "corpora.synthetic"],
        cwd=Path(__file__).resolve().parents[1],
        input=job,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise CorpusError(f"eSpeak NG could not speak the synthetic corpus: {reason}")
    durations_s: dict[str, float] = json.loads(done.stdout)
    return durations_s


def _speak_part(job: Mapping[str, Any]) -> dict[str, float]:
    voice = _Espeak()
    durations_s = {}
    for values in job["lines"]:
        line = _Line(**(values | {"speaker": _Speaker(**values["speaker"])}))
        samples = _colour(_resample(voice.speak(line.sentence, line.speaker)), line)
        sound = io.BytesIO()  # libsndfile is slower on a path, because of many small writes
        soundfile.write(sound, samples, _CLIP_RATE_HZ, format="FLAC", subtype="PCM_16")
        (Path(job["clips"]) / line.clip).write_bytes(sound.getbuffer())
        durations_s[line.clip] = len(samples) / _CLIP_RATE_HZ
    return durations_s


def _resample(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Resample from 22.05 to 16 kHz by cutting the spectrum: 441 samples become 320."""
    blocks = -(-len(samples) // 441)
    blocks += blocks % 2  # an even number of samples has a bin at half the rate
    spectrum = np.fft.rfft(np.pad(samples, (0, 441 * blocks - len(samples))))
    resampled = np.fft.irfft(spectrum[: 160 * blocks + 1], 320 * blocks)[: len(samples) * 320 // 441]
    return np.asarray(resampled * (320 / 441), dtype=np.float32)


def _colour(samples: npt.NDArray[np.float32], line: _Line) -> npt.NDArray[np.float32]:
    """Add a little noise and set the loudness, to imitate rooms and microphones."""
    level = float(np.sqrt(np.mean(samples**2))) * 10 ** (-line.noise_db / 20)
    noise = np.random.default_rng(line.seed).standard_normal(len(samples), dtype=np.float32)
    noisy = samples + level * noise
    scaled: npt.NDArray[np.float32] = noisy * np.float32(line.peak / max(float(np.abs(noisy).max()), 1e-6))
    return scaled


class _Espeak:
    """eSpeak NG's library through ctypes. It has one state for the whole process."""

    _SYNCHRONOUS, _UTF8 = 2, 1  # espeak_AUDIO_OUTPUT, espeakCHARS_UTF8 of speak_lib.h
    _RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER

    def __init__(self) -> None:
        import espeakng_loader

        data = Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate_hz = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, os.fsencode(data.parent), 0)
        if rate_hz != _ESPEAK_RATE_HZ:
            raise CorpusError(f"espeak_Initialize gave {rate_hz}; it must give {_ESPEAK_RATE_HZ} Hz. Data at {data}.")
        self._library.espeak_ng_SetRandSeed(_RANDOM_SEED)
        self._chunks: list[bytes] = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = callback(self._collect)  # kept alive: the library holds no Python reference
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: int | None, num_samples: int, _events: int | None) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # continue

    def speak(self, sentence: str, speaker: _Speaker) -> npt.NDArray[np.float32]:
        """Speak one sentence; samples (N,) at 22.05 kHz in [-1, 1].

        Raises:
            CorpusError: the voice does not exist or nothing was spoken.
        """
        voice = f"{speaker.voice}+{speaker.variant}"
        self._chunks.clear()
        status = self._library.espeak_SetVoiceByName(voice.encode())
        for parameter, value in (
            (self._RATE, speaker.words_per_minute), (self._PITCH, speaker.pitch), (self._RANGE, speaker.pitch_range)
        ):  # fmt: skip
            status |= self._library.espeak_SetParameter(parameter, value, 0)
        text = sentence.encode() + b"\0"
        status |= self._library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, self._UTF8, None, None)
        if status or not self._chunks:
            raise CorpusError(f"eSpeak NG could not say {sentence!r} as {voice!r} (status {status}).")
        samples = np.frombuffer(b"".join(self._chunks), dtype=np.int16)
        return np.asarray(samples / 32_768, dtype=np.float32)


if __name__ == "__main__":
    json.dump(_speak_part(json.load(sys.stdin)), sys.stdout)
