"""Read a tarball in one forward pass with bounded memory, and never mistake a truncated one for a whole one."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any, Self, cast

from corpora.manifest import CorpusError
from corpora.storage import Location, num_bytes_of, open_file

APPLE_DOUBLE = "._"
"""Prefix of the files in which macOS keeps metadata next to a file."""

_CHUNK_BYTES = 1 << 20
_MAX_MEMBER_BYTES = 16 << 30
"""Far above any clip or table; a header that claims more is wrong, and tarfile would seek for years."""
_MAX_NAME_BYTES = 1 << 18
"""tarfile reads a long name or a PAX header into memory whole."""
_MAX_EXPANSION = 100
"""MP3 does not compress, zeros do 1,032 times; above this, and above `_FREE_BYTES`, it is a gzip bomb."""
_FREE_BYTES = 1 << 30
_FIX = "Download it again"
_GZIP_MAGIC = b"\x1f\x8b"
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Tarball:
    """The members of an open tarball, in order; read each one's content before asking for the next."""

    def __init__(self, path: Location, stream: "_ZeroTail", max_members: int | None = None) -> None:
        self._path = path
        self._max_members = max_members
        self._stream = stream
        self._tar = tarfile.open(  # noqa: SIM115 - closed by open_tarball, together with the stream
            fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_CHUNK_BYTES, tarinfo=_Member
        )

    def files(self) -> Iterator[tarfile.TarInfo]:
        """Yield the regular files, in order, then check that the tarball ends as it should.

        macOS's metadata files `._NAME` are skipped.
        """
        num_members = 0
        while (member := self._tar.next()) is not None:
            num_members += 1
            if self._max_members is not None and num_members > self._max_members:
                raise CorpusError(f"{self._path}: holds more than {self._max_members:,} members. {_FIX}.")
            # tarfile remembers every member and global PAX header: gigabytes for two million clips.
            cast("Any", self._tar).members.clear()
            cast("Any", self._tar).pax_headers.clear()
            if member.isfile() and not member.name.rpartition("/")[2].startswith(APPLE_DOUBLE):
                yield member
        self._check_end()

    def content(self, member: tarfile.TarInfo) -> IO[bytes]:
        """Open the member that `files` just yielded; nothing is unpacked to disk."""
        content = self._tar.extractfile(member)
        assert content is not None, "files() yields regular files only"
        return content

    def _check_end(self) -> None:
        # tarfile mistakes an unreadable header for the end; a whole tarball ends in blocks of zeros.
        end = self._tar.offset
        while self._stream.read(_CHUNK_BYTES):
            pass
        if self._stream.num_bytes < end + tarfile.BLOCKSIZE or self._stream.zeros_from > end:
            raise CorpusError(
                f"{self._path}: is damaged or cut off: no end mark where the last member ends ({end:,} bytes in). "
                f"{_FIX}."
            )


@contextmanager
def open_tarball(path: Location, *, max_members: int | None = None,
                 max_bytes: int | None = None) -> Iterator[Tarball]:
    """Open a tarball, gzipped or not, at a path or a URI, for one pass.

    `max_bytes` limits its unpacked size, by default to a hundred times its size.

    Raises:
        CorpusError: missing, empty, not a tarball, damaged or cut off; also raised during the pass.
    """
    try:
        num_bytes = 0
        with open_file(path) as file:
            num_bytes = num_bytes_of(file)
            magic = file.read(len(_GZIP_MAGIC))
            file.seek(0)
            if not magic:
                raise CorpusError(f"{path}: is empty (0 bytes); it must be a tarball. {_FIX}.")
            with gzip.GzipFile(fileobj=file, mode="rb") if magic == _GZIP_MAGIC else nullcontext(file) as plain:
                yield Tarball(path, _ZeroTail(cast("IO[bytes]", plain), path, num_bytes, max_bytes), max_members)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path}: is damaged or cut off at {num_bytes:,} bytes ({error}). {_FIX}.") from error
    except tarfile.TarError as error:
        raise CorpusError(
            f"{path}: is not a tarball, is damaged or cut off ({error}). Give a .tar.gz of Common Voice as it was "
            "downloaded."
        ) from error
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
        ) from error


class _Member(tarfile.TarInfo):
    """A member's header, refused where tarfile would seek for years, fill memory or raise an undocumented error."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header, whatever it holds: a member, or a ReadError or another TarError."""
        try:
            member = super().fromtarfile(tar)
        except CorpusError:
            raise
        # ValueError: numbers in the headers of sparse files; RecursionError: long names of long names.
        except (ValueError, RecursionError) as error:
            raise tarfile.ReadError(f"a header cannot be read: {type(error).__name__}") from error
        member._check_size(_MAX_MEMBER_BYTES)
        if member.issparse():
            raise tarfile.ReadError(f"{member.name!r} is a sparse file")
        return member

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile's hook for subclasses, called before the announced content is read.
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{self.name!r} is a sparse file")
        has_name = self.type in (*_LONG_NAMES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        self._check_size(_MAX_NAME_BYTES if has_name else _MAX_MEMBER_BYTES)
        return cast("Any", super())._proc_member(tar)  # type: ignore[no-any-return]

    def _proc_gnusparse_10(self, member: tarfile.TarInfo, pax_headers: object, tar: tarfile.TarFile) -> None:
        raise tarfile.ReadError(f"{member.name!r} is a sparse file")

    def _check_size(self, limit: int) -> None:
        if not 0 <= self.size <= limit:
            raise tarfile.ReadError(f"{self.name!r} says it is {self.size:,} bytes; the limit is {limit:,}")


class _ZeroTail:
    """A stream that tracks how much was read and where the trailing zeros start, and that stops a gzip bomb."""

    def __init__(self, stream: IO[bytes], path: Location, packed_bytes: int, max_bytes: int | None) -> None:
        self._stream = stream
        self._path = path
        self._packed_bytes = packed_bytes
        self._max_bytes = max_bytes or max(_FREE_BYTES, _MAX_EXPANSION * self._packed_bytes)
        self.num_bytes = 0
        self.zeros_from = 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        num_used = len(chunk.rstrip(b"\0"))
        if num_used:
            self.zeros_from = self.num_bytes + num_used
        self.num_bytes += len(chunk)
        if self.num_bytes > self._max_bytes:
            raise CorpusError(
                f"{self._path}: its {self._packed_bytes:,} bytes unpack to more than {self._max_bytes:,}, which is not "
                f"audio. {_FIX}."
            )
        return chunk
