"""Utterances, and the manifests that list them: read, checked, written, split."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

SPLITS = ("train", "dev", "test")
"""Names of the splits, in reading order."""
_HELD_OUT_SHARE = 0.1
"""Share of the speakers for dev, and for test."""
MAX_LINE_BYTES = 1 << 20
"""A row of a table or a line of a manifest is a few hundred bytes."""
_MAX_SECONDS = 366 * 24 * 3600
"""A year of audio."""
_MAX_MESSAGE = 2000


def one_line(message: str) -> str:
    """Escape line breaks, control and unprintable characters, which names in a corpus may hold, and shorten."""
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE // 2]} … {message[-_MAX_MESSAGE // 2:]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in message)


class CorpusError(ValueError):
    """A corpus that cannot be read; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ManifestError(CorpusError):
    """A manifest that cannot be read; the message names file and line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One stretch of speech and its transcript."""

    id: str
    """Names the utterance in reports."""
    audio: str
    """Path of a file, or the member's name inside a tarball; "" if the corpus names none."""
    duration_s: float | None
    """Seconds of audio, None if the corpus does not say."""
    text: str
    """The transcript as in the corpus, not normalised."""
    speaker: str = ""
    """The speaker, "" if unknown."""
    offset_s: float = 0.0
    """Seconds into the audio where the utterance starts."""
    split: str = ""
    """The split as a manifest's line spells it, "" if it has none."""


class Manifest(Sequence[Utterance]):
    """An immutable list of utterances."""

    def __init__(self, utterances: Iterable[Utterance] = ()) -> None:
        self._utterances = tuple(utterances)

    def __len__(self) -> int:
        return len(self._utterances)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> "Manifest": ...
    def __getitem__(self, index: int | slice) -> "Utterance | Manifest":
        return Manifest(self._utterances[index]) if isinstance(index, slice) else self._utterances[index]

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._utterances)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self._utterances == other._utterances

    def __hash__(self) -> int:
        return hash(self._utterances)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} utterances)"

    @classmethod
    def load(cls, path: str | Path, *, needs_text: bool = True) -> "Manifest":
        """Read a NeMo manifest: one JSON object per line, audio relative to the manifest or absolute.

        Without `needs_text` a line may lack its text, as in a list of clips to transcribe.

        Raises:
            ManifestError: the file is missing, is not UTF-8 or holds no utterance, or a line is not an utterance.
        """
        path = Path(path).absolute()
        try:
            if path.exists() and not path.is_file():
                raise ManifestError(f"{path}: is not a regular file. Give the path of a NeMo manifest.")
            with path.open("rb") as lines:
                utterances = list(_read_lines(path, lines, needs_text))
        except OSError as error:
            raise ManifestError(
                f"{path}: cannot be read ({error.strerror}). Give the path of a NeMo manifest."
            ) from error
        if not utterances:
            raise ManifestError(f"{path}: holds 0 utterances; it must hold at least 1. Write one JSON object per line.")
        return cls(utterances)

    def split_by_speaker(self, held_out: Sequence[str] = ("dev", "test")) -> dict[str, "Manifest"]:
        """Split into train, dev and test (a tenth each) with no speaker in two of them, by a fixed hash of the speaker.

        Splits that are not to be held out stay in train.

        An utterance without a speaker counts as its own speaker. A speaker's split does not depend on other speakers,
        except that a split that the hash leaves empty gets the speaker with the least speech of the largest one. With
        fewer speakers than splits, all are train; an empty split is left out.
        """
        wanted = [split for split in SPLITS if split == "train" or split in held_out]
        num_utterances = Counter(_speaker(utterance) for utterance in self)
        if len(num_utterances) < len(wanted):
            return {"train": self} if self else {}
        split_of = {name: _split_by_hash(name, wanted) for name in num_utterances}
        _fill_empty_splits(split_of, num_utterances, wanted)
        return {
            split: Manifest(utterance for utterance in self if split_of[_speaker(utterance)] == split)
            for split in wanted
        }


def _read_lines(path: Path, lines: IO[bytes], needs_text: bool) -> Iterator[Utterance]:
    for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), start=1):
        where = f"{path}:{number}"
        if len(line) > MAX_LINE_BYTES:
            raise ManifestError(f"{where}: is longer than {MAX_LINE_BYTES:,} bytes. Write one JSON object per line.")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            record = json.loads(text) if text else None
        except UnicodeDecodeError as error:
            raise ManifestError(f"{where}: byte {error.start} is not UTF-8. Save the manifest as UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{where}: {_shortened(text)} is not JSON ({error}). A NeMo manifest holds one JSON object per line; "
                "fix or drop the line."
            ) from error
        if text:
            yield _to_utterance(record, path.parent, where, needs_text)


def _to_utterance(record: Any, folder: Path, where: str, needs_text: bool) -> Utterance:
    if not isinstance(record, dict):
        raise ManifestError(
            f"{where}: is a JSON {type(record).__name__}; it must be an object with audio_filepath, duration and text. "
            "Write one object a line."
        )
    audio = _field(record, "audio_filepath", str, where)
    if not audio or "\0" in audio:
        raise ManifestError(f"{where}: audio_filepath is {audio!r}; it must be a path. Fix or drop the line.")
    text = _field(record, "text", str, where) if needs_text or "text" in record else ""
    offset_s = _seconds(record.get("offset"), "offset", where)
    duration_s = _seconds(record.get("duration"), "duration", where)
    if duration_s == 0:
        raise ManifestError(f"{where}: duration is 0 s; it must be above 0. Fix or drop the line.")
    default_id = os.path.splitext(audio)[0] + (f"@{offset_s:g}" if offset_s else "")
    return Utterance(
        id=_name(record, "id", where) or default_id,
        audio=str(folder / audio),
        duration_s=duration_s,
        text=text,
        speaker=_name(record, "speaker", where),
        offset_s=offset_s or 0.0,
        split=record["split"] if isinstance(record.get("split"), str) else "",
    )


def _field(record: dict[str, Any], name: str, kind: type[str], where: str) -> str:
    if name not in record:
        fields = ", ".join(map(str, record)) or "no field"
        raise ManifestError(f"{where}: has {fields}, but no `{name}`. Add `{name}` to the line.")
    if not isinstance(record[name], kind):
        raise ManifestError(f"{where}: {name} is {_shortened(repr(record[name]))}; it must be a string. Fix the line.")
    return _checked(record[name], name, where)


def _name(record: dict[str, Any], name: str, where: str) -> str:
    """A string or a whole number; "" if there is none. 0 is a name too."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ManifestError(
            f"{where}: {name} is {value!r:.80}; it must be a string or a whole number. Fix the line."
        )
    return _checked(str(value), name, where)


def _checked(value: str, name: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(f"{where}: {name} holds half a character ({value!r}). Fix or drop the line.") from error
    return value


def _seconds(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _MAX_SECONDS:
        raise ManifestError(
            f"{where}: {name} is {value!r:.80}; it must be a number of seconds in [0, {_MAX_SECONDS:,}]. "
            "Fix the line."
        )
    return float(value)


def _speaker(utterance: Utterance) -> str:
    return f"speaker:{utterance.speaker}" if utterance.speaker else f"utterance:{utterance.id}"


def _hash_share(name: str) -> float:
    """A fixed, evenly distributed number in [0, 1) for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _split_by_hash(name: str, wanted: Sequence[str]) -> str:
    share = _hash_share(name)
    split = "test" if share < _HELD_OUT_SHARE else "dev" if share < 2 * _HELD_OUT_SHARE else "train"
    return split if split in wanted else "train"


def _fill_empty_splits(split_of: dict[str, str], num_utterances: Counter[str], wanted: Sequence[str]) -> None:
    for split in wanted:
        if split not in split_of.values():
            donor = Counter(split_of.values()).most_common(1)[0][0]
            movable = (name for name, own in split_of.items() if own == donor)
            split_of[min(movable, key=lambda name: (num_utterances[name], _hash_share(name)))] = split


def _shortened(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
