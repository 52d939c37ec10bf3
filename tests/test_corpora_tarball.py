"""Tarballs that are made to do harm: each is one clear line or a counted clip, at once and in little memory."""

import gzip
import struct
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corpora import common_voice, tarball
from corpora.audio import AudioError
from corpora.corpus import open_corpus
from corpora.manifest import CorpusError

pytestmark = pytest.mark.timeout(60)

RELEASE = "cv-corpus-1.0/es"
CLIPS = {f"{split}_{i}": f"sound {split} {i}".encode() for split in ("train", "dev", "test") for i in range(2)}
FAR = 1 << 60
"""Bytes that no disk holds."""


def table(split: str) -> bytes:
    rows = "".join(f"s\t{name}.mp3\tfrase {name}\n" for name in CLIPS if name.startswith(split))
    return ("client_id\tpath\tsentence\n" + rows).encode()


FILES = {f"{RELEASE}/{split}.tsv": table(split) for split in ("train", "dev", "test")} | {
    f"{RELEASE}/clips/{name}.mp3": sound for name, sound in CLIPS.items()
}


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header, with any size: tarfile itself would not write them all."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def tar(files: dict[str, bytes], first: bytes = b"", last: bytes = b"") -> bytes:
    return first + b"".join(member(name, content) for name, content in files.items()) + last + bytes(1024)


def heard(path: Path) -> dict[str, bytes | str]:
    """What comes of each row: the sound's bytes, or the reason why not."""
    corpus = open_corpus(path)
    clips = [(found.id, clip) for _, found, clip in corpus.clips(corpus.splits)]
    assert len({name for name, _ in clips}) == len(clips)
    assert not any(isinstance(clip, Path) for _, clip in clips)
    return {name: clip.reason if isinstance(clip, AudioError) else clip for name, clip in clips}  # type: ignore[misc]


def refusal(path: Path, content: bytes) -> str:
    """The one line that refuses the tarball, plain and zipped, within seconds and 100 MB."""
    said = []
    for name, packed in (("x.tar", content), ("x.tar.gz", gzip.compress(content, 1))):
        (path / name).write_bytes(packed)
        with little(), pytest.raises(CorpusError) as error:
            heard(path / name)
        assert str(error.value).startswith(f"{path / name}: ")
        assert str(error.value).isprintable()
        said.append(str(error.value).removeprefix(f"{path / name}: "))
    assert said[0] == said[1]
    return said[0]


@contextmanager
def little(most_s: float = 20.0, most_mb: float = 100.0) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before_mb, start = peak_mb(), time.process_time()
    yield
    assert peak_mb() - before_mb < most_mb
    assert time.process_time() - start < most_s


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_gzip_cut_at_every_byte_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(tar(FILES))
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(whole)
    assert heard(path) == CLIPS
    for num_bytes in range(len(whole)):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(CorpusError, match=r"cut\.tar\.gz: (is damaged or cut off|is empty|is not a tarball)"):
            heard(path)


def test_plain_tarball_cut_at_every_block_and_around_is_refused_until_all_clips_are_in_it(tmp_path: Path) -> None:
    whole = tar(FILES)
    path = tmp_path / "cut.tar"
    for block in range(0, len(whole), 512):
        for num_bytes in (block, block + 1, block + 511):
            path.write_bytes(whole[:num_bytes])
            if num_bytes >= len(whole) - 512:
                assert heard(path) == CLIPS
            else:
                with pytest.raises(CorpusError):
                    heard(path)


def test_flip_of_any_byte_of_a_gzip_never_changes_a_sound_or_a_sentence(tmp_path: Path) -> None:
    # Stored, not deflated: the flip of a byte is a flip in a sound or a sentence, and only the checksum tells.
    whole = gzip.compress(tar(FILES), 0)
    path = tmp_path / "flipped.tar.gz"
    num_refused = 0
    places = range(0, len(whole), 13)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert heard(path) == CLIPS
        except CorpusError:
            num_refused += 1
    assert num_refused > 0.98 * len(places)


def test_damage_of_a_sound_is_told_however_much_follows_it(tmp_path: Path) -> None:
    others = {f"{RELEASE}/clips/other_{number}.mp3": bytes(1 << 20) for number in range(4)}
    whole = bytearray(gzip.compress(tar({**FILES, **others}), 0))
    whole[whole.index(CLIPS["train_0"])] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(whole)
    with pytest.raises(CorpusError, match=r"is damaged or cut off at .*CRC check failed"):
        heard(tmp_path / "x.tar.gz")


def test_name_that_leads_elsewhere_is_no_clip_and_nothing_is_written(tmp_path: Path) -> None:
    climbing = f"{RELEASE}/clips/../../../escaped.mp3"
    for number, name in enumerate(("../../../escaped.mp3", "/tmp/escaped.mp3", climbing, f"/{RELEASE}/clips/new.mp3")):
        path = tmp_path / f"{number}" / "x.tar.gz"
        path.parent.mkdir()
        extra = f"s\t{name}\tfrase\n".encode()
        files = {**FILES, f"{RELEASE}/train.tsv": table("train") + extra, name: b"evil"}
        path.write_bytes(gzip.compress(tar(files)))
        found = heard(path)
        assert found == {**CLIPS, Path(name).stem: "missing"}
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"x.tar.gz"}
    assert not Path("/tmp/escaped.mp3").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_link_device_or_pipe_in_place_of_a_clip_is_missing_and_not_followed(tmp_path: Path, kind: bytes) -> None:
    clip = tarfile.TarInfo(f"{RELEASE}/clips/dev_1.mp3")
    clip.type, clip.linkname, clip.devmajor, clip.devminor = kind, "/etc/passwd", 1, 5
    files = {name: content for name, content in FILES.items() if name != clip.name}
    (tmp_path / "x.tar").write_bytes(tar(files, first=clip.tobuf()))
    assert heard(tmp_path / "x.tar") == {**CLIPS, "dev_1": "missing"}
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar"]


def test_link_in_place_of_a_table_is_no_table(tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"{RELEASE}/train.tsv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert "but no train.tsv" in refusal(tmp_path, link.tobuf() + bytes(1024))


def pax(**records: str) -> bytes:
    content = b""
    for key, value in records.items():
        record = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        content += str(length).encode() + record
    return member("pax", content, tarfile.XHDTYPE)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (header(f"{RELEASE}/clips/big.mp3", FAR), "says it is 1,152,921,504,606,846,976 bytes"),
        (header(f"{RELEASE}/clips/big.mp3", 1 << 80, b"Z"), "says it is 1,208,925,819,614,629,174,706,176 bytes"),
        (header(f"{RELEASE}/clips/less.mp3", -512), "says it is -512 bytes"),
        (header(f"{RELEASE}/clips/less.mp3", -FAR, tarfile.DIRTYPE), "bytes; the limit is"),
        (header("long", 1 << 32, tarfile.GNUTYPE_LONGNAME), "the limit is 262,144"),
        (header("long", -1, tarfile.GNUTYPE_LONGLINK), "the limit is 262,144"),
        (header("pax", 1 << 32, tarfile.XHDTYPE), "the limit is 262,144"),
        (header("pax", 1 << 32, tarfile.XGLTYPE), "the limit is 262,144"),
        (pax(size=str(FAR)) + member("x", b"x"), "says it is 1,152,921,504,606,846,976 bytes"),
        (pax(size="-512") + member("x", b"x"), "says it is -512 bytes"),
        (header("sparse", 512, tarfile.GNUTYPE_SPARSE) + bytes(512), "'sparse' is a sparse file"),
        (pax(GNU_sparse_size=str(FAR), GNU_sparse_numblocks="0") + member("x", b""), "sparse|says it is"),
        (pax(GNU_sparse_map="0,1,2", GNU_sparse_size="9") + member("x", b"x"), "is a sparse file"),
        (pax(GNU_sparse_map="one,two") + member("x", b"x"), "a header cannot be read: ValueError"),
        (pax(GNU_sparse_major="1", GNU_sparse_minor="0") + member("x", bytes(512)), "'x' is a sparse file"),
        (member("long", b"a" * 300, tarfile.GNUTYPE_LONGNAME) * 2000, "a header cannot be read: RecursionError"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:30],
)
def test_header_that_lies_is_refused_at_once(tmp_path: Path, first: bytes, said: str) -> None:
    found = refusal(tmp_path, tar(FILES, first=first))
    assert any(part in found for part in said.split("|")), found


def test_table_or_clip_that_says_it_is_terabytes_is_refused(tmp_path: Path) -> None:
    lies = header(f"{RELEASE}/train.tsv", 10 << 40) + FILES[f"{RELEASE}/train.tsv"]
    assert "says it is 10,995,116,277,760 bytes" in refusal(tmp_path, lies + bytes(9000))
    short = header(f"{RELEASE}/clips/train_1.mp3", 8 << 30)
    tables = {name: content for name, content in FILES.items() if name.endswith(".tsv")}
    assert "unexpected end of data" in refusal(tmp_path, tar(tables)[:-1024] + short + bytes(99_000))


def zipped(parts: Iterator[bytes], path: Path) -> Path:
    """A gzip file of any length, made in little memory; one megabyte of the same is deflated only once."""
    checksum, num_bytes, deflate = 0, 0, zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        for part in parts:
            file.write(deflate.compress(part))
            checksum, num_bytes = zlib.crc32(part, checksum), num_bytes + len(part)
        file.write(deflate.flush())
    assert struct.unpack("<I", path.read_bytes()[-4:])[0] == num_bytes % (1 << 32)
    return path


@pytest.mark.parametrize(
    ("first", "fill", "said"),
    [
        (header(f"{RELEASE}/clips/big.mp3", 8 << 30), b"\0", "unpack to more than 67,108,864, which is not audio"),
        (header(f"{RELEASE}/train.tsv", 8 << 30), b"\0", "train.tsv:1: is longer than 1,048,576 bytes"),
        (header(f"{RELEASE}/train.tsv", 8 << 30), b"\n", "has no column|train.tsv:1: has more than"),
        (header(f"{RELEASE}/train.tsv", 8 << 30) + table("train"), b"\n", "has more than 100,000 lines"),
        (header(f"{RELEASE}/train.tsv", 8 << 30) + table("train"), b"x\n", "has more than 100,000 lines"),
        (header(f"{RELEASE}/train.tsv", 8 << 30), b"\xff", "is longer than 1,048,576 bytes"),
        (b"", b"\0", "unpack to more than 67,108,864, which is not audio"),
        (pax(GNU_sparse_major="1", GNU_sparse_minor="0") + header("x", 8 << 30), b"\0", "is a sparse file"),
    ],
)
def test_bomb_of_gzip_ends_early_and_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, fill: bytes, said: str
) -> None:
    monkeypatch.setattr(tarball, "_FREE_BYTES", 64 << 20)
    monkeypatch.setattr(common_voice, "_MAX_ROWS", 100_000)
    chunk = fill * ((1 << 20) // len(fill))
    path = zipped((part for part in [first, *[chunk] * 100]), tmp_path / "bomb.tar.gz")
    assert path.stat().st_size < 1 << 20
    with little(), pytest.raises(CorpusError) as error:
        common_voice.read_tarball(path)
    assert any(part in str(error.value) for part in said.split("|")), str(error.value)
    with little(), pytest.raises(CorpusError, match="unpack to more than 67,108,864|is a sparse file"):
        heard(path)


def test_global_headers_and_long_names_do_not_pile_up(tmp_path: Path) -> None:
    comments = b"".join(
        member("g", f"70010 {number:06}={'x' * 69_996}\n".encode(), tarfile.XGLTYPE) + member(f"{number}", b"x")
        for number in range(600)
    )
    (tmp_path / "x.tar").write_bytes(tar(FILES, first=comments))
    with little(most_mb=20):
        assert heard(tmp_path / "x.tar") == CLIPS


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "shift-jis"])
def test_odd_encodings_of_names_are_read_and_said_in_one_printable_line(tmp_path: Path, encoding: str) -> None:
    odd = "se\x1b[31m\nñal".encode(encoding, "replace").replace(b"\0", b"")
    elsewhere = renamed(b"notes", odd, {"notes/a.txt": b""})
    assert "holds 1 files, the first " in refusal(tmp_path, elsewhere)
    without_column = renamed(b"folder", odd, {"folder/train.tsv": b"client_id\tpath\n"})
    assert "has no column `sentence`" in refusal(tmp_path, without_column)
    (tmp_path / "x.tar").write_bytes(renamed(RELEASE.encode(), odd + b"/es", FILES))
    assert heard(tmp_path / "x.tar") == CLIPS


def renamed(old: bytes, new: bytes, files: dict[str, bytes]) -> bytes:
    """A tarball whose names hold other bytes than any encoding would give, with right checksums."""
    packed = b""
    for name, content in files.items():
        head = bytearray(header(name, len(content)))
        head[:100] = name.encode().replace(old, new).ljust(100, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        packed += bytes(head) + content + bytes(-len(content) % 512)
    return packed + bytes(1024)


@pytest.mark.parametrize("name", ["clips/dev_1.mp3", "dev.tsv"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_same_name_twice_is_refused_wherever_the_second_is(tmp_path: Path, name: str, prefix: str) -> None:
    again = member(f"{prefix}{RELEASE}/{name}", FILES[f"{RELEASE}/{name}"].replace(b"frase", b"falso") + b"x")
    assert f"{RELEASE}/{name} twice, and which one is right is unknown" in refusal(tmp_path, tar(FILES, first=again))
    if name.startswith("clips"):
        assert f"{RELEASE}/{name} twice" in refusal(tmp_path, tar(FILES, last=again))


def test_unwanted_names_may_come_twice(tmp_path: Path) -> None:
    other = member(f"{RELEASE}/clips/other.mp3", b"x") * 2 + member("LICENSE", b"x") * 2
    (tmp_path / "x.tar").write_bytes(tar(FILES, first=other))
    assert heard(tmp_path / "x.tar") == CLIPS


def test_stream_of_a_tarball_is_held_in_little_memory(tmp_path: Path) -> None:
    clips = {f"{RELEASE}/clips/other_{i}.mp3": bytes(16 << 20) for i in range(6)}
    (tmp_path / "x.tar").write_bytes(tar({**FILES, **clips}))
    del clips
    with little(most_mb=40):
        assert heard(tmp_path / "x.tar") == CLIPS
