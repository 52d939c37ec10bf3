"""Open an audio file with libsndfile, or with FFmpeg if libsndfile cannot read it."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
import soundfile

from corpora.cut_off import CutOffError, share_left
from corpora.ffmpeg import FFmpegSound, NoSoundError, open_with_ffmpeg
from corpora.mp3 import with_length

_UNTOLD = 1 << 40
"""Samples; libsndfile reports 2^63 - 1 if a header, such as a stream's, does not give their number."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of a file in which macOS keeps metadata that another file system cannot hold."""


class LibSound:
    """A file that libsndfile reads, front to back."""

    lost_s = 0.0
    """libsndfile reads to the end or not at all."""

    def __init__(self, file: soundfile.SoundFile, share_left: float = 1.0) -> None:
        """`share_left` is what is left of a file that is cut off."""
        self._file = file
        self.samplerate = int(file.samplerate)
        self.channels = int(file.channels)
        self.frames: int | None = round(file.frames / share_left)
        self.length_s = self.frames / self.samplerate

    def skip(self, num_samples: int) -> None:
        """Skip the first samples of a file, before anything is read."""
        if self._file.seekable():
            self._file.seek(num_samples)
            return
        while num_samples > 0 and len(skipped := self.read(min(num_samples, self.samplerate))):
            num_samples -= len(skipped)

    def read(self, num_samples: int) -> npt.NDArray[np.float32]:
        """(num_samples, channels); fewer at the end."""
        samples: npt.NDArray[np.float32] = self._file.read(num_samples, dtype="float32", always_2d=True)
        return samples


Sound = LibSound | FFmpegSound


def open_sound(source: str | Path | bytes, stack: ExitStack) -> Sound:
    """Open a file, or a file's bytes; the stack closes it.

    libsndfile is tried first, because it is several times faster. FFmpeg also reads files whose header gives no or an
    unknown number of samples, as from a recorder or a stream.

    Raises:
        NoSoundError: neither can read it; the message says why for both. Or it is cut off.
        OSError: the file cannot be opened.
    """
    empty: LibSound | None = None
    with ExitStack() as attempt:
        try:
            file = _open_by_libsndfile(source, attempt)
        except (soundfile.SoundFileError, RuntimeError) as error:
            why = str(getattr(error, "error_string", error)).rstrip(".")
            if "does not exist" in why:  # libsndfile's message for a file that it has opened and found no sound in
                why = "it holds no sound"
        else:
            with _content(source) as content:
                try:
                    left = share_left(content, file.format)
                except CutOffError as error:
                    raise NoSoundError(str(error)) from error
            if 0 < file.frames < _UNTOLD:
                stack.enter_context(attempt.pop_all())
                return LibSound(file, left)
            why = f"its header claims {file.frames:,} samples"
            if not file.frames:
                empty = LibSound(file)
    content = stack.enter_context(_content(source))
    if content.read(4) == b"caff" and share_left(content, "CAF") < 1:  # libsndfile takes none that is cut off
        raise NoSoundError("it ends before its sound does: it is cut off")
    try:
        return stack.enter_context(open_with_ffmpeg(content))
    except NoSoundError as error:
        if empty is not None:
            return empty
        raise NoSoundError(f"libsndfile: {why}; FFmpeg: {error}") from error


def _open_by_libsndfile(source: str | Path | bytes, stack: ExitStack) -> soundfile.SoundFile:
    # By descriptor: by name, libsndfile also reads macOS's ._NAME as the header.
    opened = stack.enter_context(_in_memory(source) if isinstance(source, bytes) else _content(source))
    file = stack.enter_context(soundfile.SoundFile(opened.fileno(), closefd=False))
    if file.format == "MP3":
        content = stack.enter_context(_content(source))
        whole = with_length(content)
        if whole is not None:
            return stack.enter_context(soundfile.SoundFile(whole))
    return file


def is_apple_double(source: str | Path | bytes) -> bool:
    """Whether it is macOS's metadata of a file NAME on a foreign file system: a file `._NAME`, or such bytes."""
    if isinstance(source, bytes):
        return source.startswith(_APPLE_DOUBLE)
    if not os.path.basename(source).startswith("._") or not os.path.isfile(source):
        return False
    with open(source, "rb") as file:
        return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE


def _content(source: str | Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


@contextmanager
def _in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """Bytes as a file with a descriptor, which libsndfile reads without Python and so without holding its lock."""
    is_linux = hasattr(os, "memfd_create")
    with open(os.memfd_create("clip"), "w+b") if is_linux else tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield cast("IO[bytes]", file)
