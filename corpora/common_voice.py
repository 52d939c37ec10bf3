"""Read a Common Voice release of any version, as a tarball or a folder, into utterances."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from corpora.audio import AudioError
from corpora.manifest import MAX_LINE_BYTES, SPLITS, CorpusError, Manifest, Utterance
from corpora.storage import Location
from corpora.tarball import open_tarball

MAX_CLIP_BYTES = 64 << 20
"""A clip is one sentence; a larger member is not read into memory."""
_MAX_ROWS = 10_000_000
"""Spanish, among the largest, has two million clips."""
_MAX_QUOTED_HEADER = 120
_TABLES = {f"{split}.tsv": split for split in SPLITS}
_NEEDED = ("path", "sentence")
_COLUMNS = (*_NEEDED, "client_id")
_LAYOUT = "a Common Voice release holds <name>/<language>/train.tsv, dev.tsv, test.tsv and clips/"


def read_tarball(path: Location) -> tuple[dict[str, Manifest], bytes]:
    """Read the tables of a release in a tarball, stopping at the last of train, dev and test.

    Each utterance's `audio` is the member's name in the tarball.

    Returns: the splits with utterances, and a digest of their tables.

    Raises:
        CorpusError: the tarball is damaged, cut off or holds something else, or a table lacks a column.
    """
    tables: dict[str, dict[str, _Table]] = {}
    num_files, first = 0, ""
    with open_tarball(path) as tarball:
        for member in tarball.files():
            name = PurePosixPath(member.name)
            folder, where = str(name.parent), f"{path}: {member.name}"
            num_files, first = num_files + 1, first or member.name
            if name.name in _TABLES:
                release = tables.setdefault(folder, {})
                if _TABLES[name.name] in release:
                    raise _twice(path, member.name)
                release[_TABLES[name.name]] = _read_table(tarball.content(member), where)
                if len(release) == len(SPLITS):
                    break
    if not tables:
        found = f"{num_files} files, the first {first!r}" if num_files else "no file"
        raise CorpusError(
            f"{path}: holds {found}, but no train.tsv, dev.tsv or test.tsv; {_LAYOUT}. Give such a tarball."
        )
    folder = _only_release(path, [name for name, read in tables.items() if len(read) == len(SPLITS)] or list(tables))
    return _to_splits(path, tables[folder], str(PurePosixPath(folder) / "clips"))


def read_folder(path: Path) -> tuple[dict[str, Manifest], bytes]:
    """Read the tables of a release in a folder: the language's, the release's, or the one above it.

    Returns: the splits with utterances, and a digest of their tables.

    Raises:
        CorpusError: there are several releases, or a table lacks a column.
    """
    folder = Path(_only_release(path, [str(found) for found in find_releases(path)]))
    tables = {}
    for name, split in _TABLES.items():
        if (folder / name).is_file():
            with (folder / name).open("rb") as lines:
                tables[split] = _read_table(lines, str(folder / name))
    return _to_splits(path, tables, str(folder / "clips"))


def find_releases(path: Path) -> list[Path]:
    """Return the folders with a release's tables: the folder itself, or up to two levels below it."""
    for pattern in ("", "*/", "*/*/"):
        found = {table.parent for name in _TABLES for table in path.glob(pattern + name) if table.is_file()}
        if found:
            return sorted(found)
    return []


def stream_clips(
    path: Location, wanted: Mapping[str, Sequence[tuple[str, Utterance]]]
) -> Iterator[tuple[str, Utterance, bytes | AudioError]]:
    """Yield the clips of a tarball in its order, in one pass to the end, where gzip's checksum is.

    A clip that is too large or missing is yielded with an AudioError instead of its bytes; missing ones come last.
    Clips yielded before an error may be damaged too.

    Raises:
        CorpusError: the tarball is damaged or cut off, or holds a wanted clip twice.
    """
    left = dict(wanted)
    with open_tarball(path) as tarball:
        for member in tarball.files() if left else ():
            name = str(PurePosixPath(member.name))
            utterances = left.pop(name, ())
            if not utterances:
                if name in wanted:
                    raise _twice(path, member.name)
                continue
            clip: bytes | AudioError
            if member.size > MAX_CLIP_BYTES:
                clip = AudioError(
                    f"{member.name}: is {member.size:,} bytes; a clip is at most {MAX_CLIP_BYTES:,}. Cut or drop it.",
                    reason="too_long",
                )
            else:
                clip = tarball.content(member).read()
            for split, utterance in utterances:
                yield split, utterance, clip
    for name, utterances in left.items():
        for split, utterance in utterances:
            message = f"{name or utterance.id}: is not in {PurePosixPath(path).name}."
            yield split, utterance, AudioError(message, reason="missing")


def _twice(path: Location, name: str) -> CorpusError:
    """Unpacking would keep the last one, a single pass the first: neither is known to be right."""
    return CorpusError(f"{path}: holds {name} twice, and which one is right is unknown. Download the release again.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """The columns of a table that are used, for one row."""

    line: int
    path: str
    sentence: str
    speaker: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """One tsv: its rows, and a digest of all of it."""

    rows: list[_Row]
    digest: bytes


def _read_table(table: IO[bytes], where: str) -> _Table:
    """The named columns of each row; a speaker is "" if the table does not say.

    All columns of a row with more or fewer fields than the first line are "": they cannot be matched.
    """
    digest = hashlib.sha256()
    rows: list[_Row] = []
    indices: list[int | None] | None = None
    num_columns = 0
    for number, line in enumerate(iter(lambda: table.readline(MAX_LINE_BYTES + 1), b""), start=1):
        if number > _MAX_ROWS:
            raise CorpusError(
                f"{where}: has more than {_MAX_ROWS:,} lines; this is not a table of a release. Download it again."
            )
        digest.update(line)
        fields = _split_line(line, f"{where}:{number}")
        if indices is None:
            fields[0] = fields[0].removeprefix("\ufeff")
            indices = _find_columns(fields, where)
            num_columns = len(fields)
        elif fields != [""]:
            is_whole = len(fields) == num_columns
            path, sentence, speaker = (fields[i] if i is not None and is_whole else "" for i in indices)
            # A speaker's 128 characters are shared by all of their rows.
            rows.append(_Row(line=number, path=path, sentence=sentence, speaker=sys.intern(speaker)))
    if indices is None:
        raise CorpusError(
            f"{where}: is empty (0 bytes); it must start with a line of column names. Download the release again."
        )
    return _Table(rows=rows, digest=digest.digest())


def _find_columns(header: list[str], where: str) -> list[int | None]:
    missing = [column for column in _NEEDED if column not in header]
    if missing:
        found = ", ".join(header)
        found = found if len(found) <= _MAX_QUOTED_HEADER else found[:_MAX_QUOTED_HEADER] + "…"
        raise CorpusError(
            f"{where}: has no column `{'`, `'.join(missing)}`; its first line is {found!r}, and must name "
            f"`{'`, `'.join(_NEEDED)}`, separated by tabs. Fix the first line or get the release again."
        )
    doubled = [column for column in _COLUMNS if header.count(column) > 1]
    if doubled:
        raise CorpusError(
            f"{where}: has {header.count(doubled[0])} columns `{doubled[0]}`; it must have 1. Fix the first line."
        )
    return [header.index(column) if column in header else None for column in _COLUMNS]


def _split_line(line: bytes, where: str) -> list[str]:
    """Split at tabs, then unquote fields that are quoted as a whole: some releases quote, others write raw quotes."""
    if len(line) > MAX_LINE_BYTES:
        raise CorpusError(
            f"{where}: is longer than {MAX_LINE_BYTES:,} bytes; this is not a table of a release. Download it again."
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: byte {error.start} is not UTF-8. Save the table as UTF-8.") from error
    fields = text.rstrip("\r\n").split("\t")
    return [_unquoted(field) for field in fields] if '"' in text else fields


def _unquoted(field: str) -> str:
    if len(field) < 2 or field[0] != '"' or field[-1] != '"':
        return field
    inner = field[1:-1]
    is_csv_quoted = '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_csv_quoted else field


def _only_release(path: Location, folders: list[str]) -> str:
    if not folders:
        raise CorpusError(f"{path}: holds no train.tsv, dev.tsv or test.tsv; {_LAYOUT}. Give such a folder.")
    if len(folders) > 1:
        names = ", ".join(sorted(folders))
        raise CorpusError(f"{path}: holds {len(folders)} releases ({names}); it must hold 1. Give one of them.")
    return folders[0]


def _to_splits(path: Location, tables: Mapping[str, _Table], clips: str) -> tuple[dict[str, Manifest], bytes]:
    splits: dict[str, Manifest] = {}
    digest = hashlib.sha256()
    for split in SPLITS:
        if split in tables:
            table = tables[split]
            digest.update(split.encode() + table.digest)
            if table.rows:
                splits[split] = Manifest(_to_utterance(row, split, clips) for row in table.rows)
    if not splits:
        raise CorpusError(f"{path}: its tables hold 0 rows; there must be at least 1. Download the release again.")
    return splits, digest.digest()


def _to_utterance(row: _Row, split: str, clips: str) -> Utterance:
    # All clips are in one folder: a path that leads elsewhere is not followed. The first releases leave ".mp3" out.
    name = PurePosixPath(row.path).name
    if name and "." not in name:
        name += ".mp3"
    return Utterance(
        id=name.rpartition(".")[0] or f"{split}.tsv:{row.line}",
        audio=f"{clips}/{name}" if name else "",
        duration_s=None,
        text=row.sentence,
        speaker=row.speaker,
    )
