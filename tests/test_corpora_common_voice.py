"""Common Voice releases of every make, whole and broken, as tarball and folder."""

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest
from release_files import HEADER, RELEASE, pack, release_files, unpack

from corpora import common_voice
from corpora.audio import AudioError
from corpora.corpus import open_corpus
from corpora.manifest import CorpusError

pytestmark = pytest.mark.timeout(60)


def sentences(table: bytes, folder: Path) -> list[str]:
    unpack(folder, {"train.tsv": table})
    return [utterance.text for utterance in open_corpus(folder).splits["train"]]


def read_all(path: Path) -> dict[str, bytes]:
    corpus = open_corpus(path)
    return {utterance.audio: clip for _, utterance, clip in corpus.clips(corpus.splits) if isinstance(clip, bytes)}


@pytest.mark.parametrize("name", ["release.tar.gz", "release.tgz", "release.tar"])
def test_tarball_gives_every_clip_of_the_wanted_splits_once(tmp_path: Path, name: str) -> None:
    files = release_files()
    corpus = open_corpus(pack(tmp_path / name, files))
    clips = list(corpus.clips(["dev", "train"]))
    assert [split for split, _, _ in clips] == ["train"] * 3 + ["dev"] * 3
    assert all(files[utterance.audio] == clip for _, utterance, clip in clips)
    assert corpus.splits["train"][0].speaker == "speaker train"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_tables_behind_the_clips_and_a_leading_dot_change_nothing(tmp_path: Path) -> None:
    files = release_files()
    behind = {f"./{name}": files[name] for name in reversed(files)}
    first, second = pack(tmp_path / "first.tar.gz", files), pack(tmp_path / "second.tar.gz", behind)
    assert open_corpus(first).splits == open_corpus(second).splits
    assert read_all(first) == read_all(second)


@pytest.mark.parametrize("start", ["", "cv-corpus-1.0", RELEASE])
def test_folder_is_found_from_the_language_the_release_or_above(tmp_path: Path, start: str) -> None:
    corpus = open_corpus(unpack(tmp_path, release_files()) / start)
    assert {split: len(manifest) for split, manifest in corpus.splits.items()} == {"train": 3, "dev": 3, "test": 3}
    assert [clip for _, _, clip in corpus.clips(["dev"])] == [
        tmp_path / RELEASE / f"clips/dev_{i}.mp3" for i in range(3)
    ]


def test_columns_are_found_by_name_whatever_the_release_adds(tmp_path: Path) -> None:
    table = b"client_id\tpath\tsentence_id\tsentence\tsentence_domain\tvariant\nx\ta.mp3\t99\tHola.\t\t\n"
    assert sentences(table, tmp_path) == ["Hola."]


def test_both_ways_of_quoting_are_read_and_no_line_is_swallowed(tmp_path: Path) -> None:
    rows = [
        'x\ta.mp3\t"contacto con el ""Frederick Henry""."',
        'x\tb.mp3\t"Empieza citado y no acaba',
        'x\tc.mp3\t"Uno" y "otro"',
        'x\td.mp3\tdijo "hola"',
        "x\te.mp3\tu\u2028v\x85w",
    ]
    assert sentences((HEADER + "\n".join(rows)).encode(), tmp_path) == [
        'contacto con el "Frederick Henry".',
        '"Empieza citado y no acaba',
        '"Uno" y "otro"',
        'dijo "hola"',
        "u\u2028v\x85w",
    ]


def test_byte_order_mark_and_crlf_are_tolerated(tmp_path: Path) -> None:
    table = "\ufeffpath\tsentence\r\na.mp3\tHola\r\n\r\nb.mp3\tAdiós\r\n".encode()
    assert sentences(table, tmp_path) == ["Hola", "Adiós"]


@pytest.mark.parametrize("form", ["tarball", "folder"])
def test_row_with_more_or_fewer_fields_than_the_first_line_is_counted_and_not_misread(
    tmp_path: Path, form: str
) -> None:
    rows = [
        "x\ttrain_0.mp3\tentera\t2",
        "x\ttrain_1.mp3\tcortad",
        "x\ttrain_2.mp3\tcon\ttabulador\t2",
        '"x"\t"train_0.mp3"\t"dos\tcampos"\t2',
        'x\tdev_0.mp3\t"dos',
        'líneas"\t2',
        "x",
    ]
    files = release_files()
    files[f"{RELEASE}/train.tsv"] = ("client_id\tpath\tsentence\tup_votes\n" + "\n".join(rows)).encode()
    corpus = open_corpus(pack(tmp_path / "x.tar", files) if form == "tarball" else unpack(tmp_path, files))
    found = [(utterance, clip) for _, utterance, clip in corpus.clips(["train"])]
    assert [utterance.text for utterance, clip in found if not isinstance(clip, AudioError)] == ["entera"]
    refused = {utterance.id: clip.reason for utterance, clip in found if isinstance(clip, AudioError)}
    assert refused == {f"train.tsv:{line}": "bad_row" for line in (3, 4, 5, 6, 7, 8)}


@pytest.mark.parametrize("form", ["tarball", "folder"])
def test_clip_in_two_splits_is_tested_on_and_not_trained_on(tmp_path: Path, form: str) -> None:
    files = release_files()
    files[f"{RELEASE}/train.tsv"] += b"a\ttest_0.mp3\tfrase 0\nb\tdev_1.mp3\tfrase 1\n"
    files[f"{RELEASE}/dev.tsv"] += b"c\ttest_0\tfrase 0\n"
    corpus = open_corpus(pack(tmp_path / "x.tar", files) if form == "tarball" else unpack(tmp_path, files))
    for wanted in (["train", "dev", "test"], ["train"]):
        clips = [(split, utterance.id, clip) for split, utterance, clip in corpus.clips(wanted)]
        assert len(clips) == sum(len(corpus.splits[split]) for split in wanted)
        refused = {(split, name): clip for split, name, clip in clips if isinstance(clip, AudioError)}
        expected = {("train", "test_0"), ("train", "dev_1"), ("dev", "test_0")}
        assert set(refused) == {(split, name) for split, name in expected if split in wanted}
        assert {clip.reason for clip in refused.values()} == {"duplicate"}
        assert "is in 3 rows (test 1, dev 4, train 4) with one sentence" in str(refused["train", "test_0"])


@pytest.mark.parametrize("form", ["tarball", "folder"])
def test_clip_twice_in_a_table_counts_once_and_not_at_all_with_two_sentences(tmp_path: Path, form: str) -> None:
    files = release_files()
    files[f"{RELEASE}/train.tsv"] += b"a\ttrain_0.mp3\tfrase 0\na\telsewhere/train_1.mp3\totra frase\n"
    corpus = open_corpus(pack(tmp_path / "x.tar", files) if form == "tarball" else unpack(tmp_path, files))
    clips = [(utterance.id, clip) for _, utterance, clip in corpus.clips(["train"])]
    assert sorted(name for name, clip in clips if not isinstance(clip, AudioError)) == ["train_0", "train_2"]
    said = {name: str(clip) for name, clip in clips if isinstance(clip, AudioError)}
    assert "is in 2 rows (train 1, train 4) with one sentence" in said["train_0"]
    assert "is in 2 rows (train 2, train 5) with 2 sentences, and which one is spoken is unknown" in said["train_1"]
    assert len(clips) == 5


def test_clip_names_of_the_first_releases_get_their_suffix_and_stay_in_the_folder(tmp_path: Path) -> None:
    unpack(tmp_path, {"train.tsv": (HEADER + "x\tabc123\tuno\nx\t../../secret.mp3\tdos\n").encode()})
    audio = [utterance.audio for utterance in open_corpus(tmp_path).splits["train"]]
    assert audio == [str(tmp_path / "clips/abc123.mp3"), str(tmp_path / "clips/secret.mp3")]


def test_row_without_clip_and_missing_clip_are_told_in_their_place(tmp_path: Path) -> None:
    files = release_files()
    files[f"{RELEASE}/train.tsv"] += b"cut\n"
    del files[f"{RELEASE}/clips/train_1.mp3"]
    for path in (pack(tmp_path / "x.tar.gz", files), unpack(tmp_path / "x", files)):
        clips = list(open_corpus(path).clips(["train"]))
        errors = {utterance.id: clip for _, utterance, clip in clips if isinstance(clip, AudioError)}
        assert len(clips) == 4
        assert {name: error.reason for name, error in errors.items()} == {
            "train_1": "missing",
            "train.tsv:5": "bad_row",
        }


def test_clip_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_voice, "MAX_CLIP_BYTES", 4000)
    files = release_files()
    files[f"{RELEASE}/clips/dev_1.mp3"] = bytes(4001)
    clips = {found.id: clip for _, found, clip in open_corpus(pack(tmp_path / "x.tar", files)).clips(["dev"])}
    too_large = clips["dev_1"]
    assert isinstance(too_large, AudioError)
    assert too_large.reason == "too_long"
    assert "is 4,001 bytes; a clip is at most 4,000" in str(too_large)
    assert isinstance(clips["dev_2"], bytes)


@pytest.mark.parametrize("name", ["cut.tar.gz", "cut.tar"])
def test_truncated_tarball_never_passes_for_a_corpus(tmp_path: Path, name: str) -> None:
    files = release_files()
    whole = pack(tmp_path / f"whole-{name}", files).read_bytes()
    wanted = {f"{RELEASE}/clips/{split}_{i}.mp3" for split in ("train", "dev", "test") for i in range(3)}
    num_refused = 0
    for num_bytes in [*range(1, len(whole), 701), *range(512, len(whole), 3584)]:
        path = tmp_path / name
        path.write_bytes(whole[:num_bytes])
        try:
            assert read_all(path) == {clip: files[clip] for clip in wanted}, f"half a corpus from {num_bytes} bytes"
        except CorpusError as error:
            num_refused += 1
            assert str(path) in str(error)
            assert "\n" not in str(error)
    # All but the cuts behind the last wanted clip.
    assert num_refused > 0.6 * len(range(1, len(whole), 701))


def test_tarball_cut_among_its_clips_opens_and_then_raises(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tar.gz", release_files(num_clips=200)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    corpus = open_corpus(tmp_path / "cut.tar.gz")
    with pytest.raises(
        CorpusError, match=r"cut\.tar\.gz: is damaged or cut off at [\d,]+ bytes .* Download it again\."
    ):
        list(corpus.clips(["train", "dev", "test"]))


def test_real_tarball_cut_among_its_clips_raises(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) * 3 // 4])
    corpus = open_corpus(tmp_path / "cut.tar.gz")
    with pytest.raises(CorpusError, match="cut off"):
        list(corpus.clips(["train", "dev", "test"]))


def test_unreadable_member_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    tar = bytearray(pack(tmp_path / "x.tar", release_files()).read_bytes())
    header = tar.index(b"cv-corpus-1.0/es/clips/dev_1.mp3")
    tar[header + 148 : header + 156] = b"garbage!"
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(bytes(tar)))
    with pytest.raises(CorpusError, match="no end mark"):
        list(open_corpus(tmp_path / "x.tar.gz").clips(["dev"]))


def test_what_is_no_release_is_one_clear_line(tmp_path: Path) -> None:
    cases = {
        "empty.tar.gz": (b"", r"is empty \(0 bytes\)"),
        "page.tar.gz": (b"<html>Please log in</html>" * 100, "is not a tarball"),
        "other.tar.gz": (gzip.compress(b"plain text " * 1000), "is not a tarball"),
        "noise.tar.gz": (b"\x1f\x8b" + bytes(range(256)), "is damaged"),
        "nothing.tar.gz": (gzip.compress(b""), "is not a tarball"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorpusError, match=said) as error:
            open_corpus(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(CorpusError, match=r"holds 1 files, the first 'notes/a.txt', but no train.tsv"):
        open_corpus(pack(tmp_path / "else.tar.gz", {"notes/a.txt": b"hello"}))
    with pytest.raises(CorpusError, match=r"holds no file, but no train.tsv"):
        open_corpus(pack(tmp_path / "bare.tar.gz", {}))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("client_id\tpath\ttext\n", r"has no column `sentence`; its first line is 'client_id, path, text'"),
        ("client_id\tclip\tsentence\n", "has no column `path`"),
        ("client_id,path,sentence\n", "has no column `path`, `sentence`"),
    ],
)
@pytest.mark.parametrize("form", ["tarball", "folder"])
def test_table_without_a_needed_column_is_named(tmp_path: Path, header: str, said: str, form: str) -> None:
    files = release_files(header=header)
    path = pack(tmp_path / "x.tar.gz", files) if form == "tarball" else unpack(tmp_path, files)
    with pytest.raises(CorpusError, match=said) as error:
        open_corpus(path)
    assert f"{RELEASE}/train.tsv" in str(error.value)


def test_broken_tables_are_one_clear_line(tmp_path: Path) -> None:
    for table, said in (
        (b"", "is empty"),
        (HEADER.encode(), "its tables hold 0 rows"),
        (HEADER.encode() + b"x\ta.mp3\t\xff\n", "train.tsv:2: byte 8 is not UTF-8"),
        (HEADER.encode() + b"x" * 2_000_000, "train.tsv:2: is longer than"),
        (b"x\t" * 1_000_000, "train.tsv:1: is longer than"),
        (b"\t" * 1_000_000, "has no column `path`, `sentence`"),
        (b"path\tsentence\tsentence\na.mp3\tuno\tdos\n", "has 2 columns `sentence`; it must have 1"),
        ((HEADER + "x\ta.mp3\tuno\n").encode("utf-16"), "train.tsv:1: byte 0 is not UTF-8"),
        ((HEADER + "x\ta.mp3\tuno\n").encode("utf-16-le"), "has no column `path`, `sentence`"),
        (HEADER.replace("\t", ";").encode(), "has no column `path`, `sentence`; its first line is"),
        (b"\0" * 1000, "has no column `path`, `sentence`"),
    ):
        with pytest.raises(CorpusError, match=said) as error:
            open_corpus(unpack(tmp_path, {"train.tsv": table}))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000


def test_a_million_columns_are_read_by_name(tmp_path: Path) -> None:
    filler = "\t" * 1_000_000
    assert sentences(f"path{filler}\tsentence\na.mp3{filler}\tHola\nb.mp3\tAdiós\n".encode(), tmp_path) == ["Hola", ""]


def test_table_of_endless_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_voice, "_MAX_ROWS", 1000)
    with pytest.raises(CorpusError, match=r"train\.tsv: has more than 1,000 lines"):
        open_corpus(unpack(tmp_path, {"train.tsv": HEADER.encode() + b"\n" * 1001}))


def test_names_with_zeros_or_of_any_length_are_missing_clips(tmp_path: Path) -> None:
    names = ["a\0b.mp3", "a" * 5000, ".", "..", "~", "a\rb.mp3", "\x1b[31m.mp3"]
    rows = "".join(f"x\t{name}\tfrase {number}\n" for number, name in enumerate(names))
    for form in ("tarball", "folder"):
        files = release_files() | {f"{RELEASE}/train.tsv": (HEADER + rows).encode()}
        path = pack(tmp_path / "x.tar", files) if form == "tarball" else unpack(tmp_path / "x", files)
        clips = [clip for _, _, clip in open_corpus(path).clips(["train"])]
        assert sorted(clip.reason for clip in clips if isinstance(clip, AudioError)) == ["bad_row"] + ["missing"] * 6
        assert all(str(clip).isprintable() and len(str(clip)) < 2500 for clip in clips)


def test_split_without_a_row_is_left_out(tmp_path: Path) -> None:
    empty = {f"{RELEASE}/dev.tsv": HEADER.encode(), f"{RELEASE}/test.tsv": (HEADER + "\n\r\n").encode()}
    files = release_files() | empty
    for path in (pack(tmp_path / "x.tar.gz", files), unpack(tmp_path / "x", files)):
        assert list(open_corpus(path).splits) == ["train"]


def test_folder_of_pipes_and_devices_is_not_read_for_ever(tmp_path: Path) -> None:
    files = release_files()
    folder = unpack(tmp_path, files) / RELEASE
    for name, make in (("train_0", lambda path: path.symlink_to("/dev/zero")), ("train_1", os.mkfifo),
                       ("train_2", Path.mkdir)):
        (folder / "clips" / f"{name}.mp3").unlink()
        make(folder / "clips" / f"{name}.mp3")
    clips = [clip for _, _, clip in open_corpus(folder).clips(["train"])]
    assert [clip.reason for clip in clips if isinstance(clip, AudioError)] == ["missing"] * 3
    for name, make in (("train.tsv", os.mkfifo), ("dev.tsv", lambda path: path.symlink_to("/dev/zero"))):
        (folder / name).unlink()
        make(folder / name)
    assert list(open_corpus(folder).splits) == ["test"]


def test_several_languages_are_not_mixed(tmp_path: Path) -> None:
    files = release_files()
    unpack(tmp_path, {**files, **{name.replace("/es/", "/en/"): content for name, content in files.items()}})
    with pytest.raises(CorpusError, match="holds 2 releases"):
        open_corpus(tmp_path)


def test_tables_and_the_pass_over_them_take_a_kilobyte_a_clip(tmp_path: Path) -> None:
    num_clips = 20_000  # of 360,000 in the largest release: then below 0.4 GB
    rows = (f"{i % 1500:0128x}\tcommon_voice_es_{18_000_000 + i}.mp3\t{'una frase de la tabla ' * 3}{i}\n"
            for i in range(num_clips))
    path = pack(tmp_path / "x.tar", {f"{RELEASE}/train.tsv": (HEADER + "".join(rows)).encode()})
    tracemalloc.start()
    try:
        corpus = open_corpus(path)
        opened_bytes, _ = tracemalloc.get_traced_memory()
        num_seen = sum(1 for _ in corpus.clips(corpus.splits))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_seen == num_clips
    interned_bytes = 8 << 20  # Python's table of paths' names, which doubles at any time; one for all clips
    assert opened_bytes < 450 * num_clips + interned_bytes
    assert most_bytes < 1000 * num_clips + interned_bytes


def test_real_releases_are_read_whole(shared_data: Path) -> None:
    for code, sizes in (("es", (22, 21, 21)), ("en", (10, 10, 20))):
        corpus = open_corpus(shared_data / f"cv-corpus-6.1-2020-12-11-{code}.tar.gz")
        assert tuple(len(corpus.splits[split]) for split in ("train", "dev", "test")) == sizes
        clips = [clip for _, _, clip in corpus.clips(corpus.splits)]
        assert len(clips) == sum(sizes)
        assert all(isinstance(clip, bytes) and len(clip) > 1000 for clip in clips)
        assert not [found for manifest in corpus.splits.values() for found in manifest if '""' in found.text]
