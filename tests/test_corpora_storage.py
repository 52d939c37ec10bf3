"""A tarball in an object store is the corpus that it is on a disk."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from release_files import pack, release_files

from corpora import storage
from corpora.corpus import open_corpus
from corpora.manifest import CorpusError
from corpora.storage import is_uri, num_bytes_of, open_file

pytestmark = pytest.mark.timeout(60)


def clips_of(location: str | Path) -> list[object]:
    corpus = open_corpus(location)
    return list(corpus.clips(corpus.splits))


@pytest.mark.parametrize("name", ["release.tar.gz", "release.tar"])
def test_uri_gives_the_corpus_that_the_path_gives(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / name, release_files())
    by_path, by_uri = open_corpus(path), open_corpus(path.as_uri())
    assert (by_uri.splits, by_uri.fingerprint) == (by_path.splits, by_path.fingerprint)
    assert clips_of(path.as_uri()) == clips_of(path)
    assert len(clips_of(path.as_uri())) == 9


def test_a_store_is_asked_for_large_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "release.tar.gz", release_files(num_clips=100))
    sizes: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            sizes.append(len(buffer))
            return super().readinto(buffer)  # type: ignore[return-value]

    store = SimpleNamespace(open_input_file=Counted)
    monkeypatch.setattr(storage, "fs", SimpleNamespace(FileSystem=SimpleNamespace(from_uri=lambda _: (store, path))))
    monkeypatch.setattr(storage, "_REQUEST_BYTES", 200_000)
    with open_file("s3://bucket/release.tar.gz") as file:
        num_bytes = num_bytes_of(file)
        while file.read(10_000):
            pass
    assert num_bytes == path.stat().st_size > 1_000_000
    assert len(sizes) <= num_bytes / 200_000 + 3


def test_what_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tar.gz", release_files(num_clips=200)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.tar.gz").touch()
    for uri, said in (
        (f"file://{tmp_path}/none.tar.gz", "cannot be read"),
        ("nowhere://bucket/x.tar.gz", "cannot be read .*nowhere"),
        (f"file://{tmp_path}", "is not a tarball by its name"),
        (f"file://{tmp_path}/cut.tar.gz", "is damaged or cut off at [0-9,]+ bytes"),
        (f"file://{tmp_path}/empty.tar.gz", r"is empty \(0 bytes\)"),
    ):
        with pytest.raises(CorpusError, match=said) as error:
            clips_of(uri)
        assert str(error.value).startswith(f"{uri}: ")
        assert "\n" not in str(error.value)


def test_a_path_is_no_uri() -> None:
    assert [is_uri(location) for location in ("s3://b/x", "file:///x", "/a/b", "a:b", Path("s3://b/x"))] == [
        True, True, False, False, False]
