"""Read audio that libsndfile cannot, with FFmpeg: M4A, AAC, WebM, AMR, WMA, Speex, unfinished headers."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.container import InputContainer

_FORMATS = (
    "aac,ac3,aiff,alaw,amr,amrnb,amrwb,ape,asf,au,avi,caf,dss,dts,dtshd,eac3,flac,flv,g722,g726,gsm,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,mulaw,mxf,nistsphere,nut,ogg,oma,qcp,rm,sbc,shn,sln,sox,tak,tta,voc,w64,wav,webm,wv,xwma"
)
"""Formats that hold audio. Not FFmpeg's playlists: they would open other files and addresses."""
_TELL_LENGTH = ("mov", "matroska", "asf")
"""Formats whose header gives the length; for others FFmpeg estimates it from the bit rate."""
_TELL_TIME = ("mov",)
"""Formats whose packets have sample-exact times, so reading can start at any of them. Matroska rounds to milliseconds.
"""
_TELEPHONE_HZ = 8_000
"""Of headerless A-law and mu-law, which telephone exchanges leave; FFmpeg would take 44,100 Hz for granted."""
_LEAD_IN_S = 1.0
"""Decoded before the wanted place, because a codec's first packets depend on earlier ones."""


class NoSoundError(ValueError):
    """FFmpeg cannot read it either; the message says why."""


class FFmpegSound:
    """An open file, read forward in float32."""

    def __init__(self, container: "InputContainer") -> None:
        if not container.streams.audio:
            raise NoSoundError("it holds no audio")
        self._container = container
        self._stream = container.streams.best("audio") or container.streams.audio[0]
        self._names = container.format.name.split(",")
        self.lost_s = 0.0
        """Seconds of the packets that were passed over because they are damaged."""
        self._resamplers: dict[tuple[Any, ...], Any] = {}
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            raise NoSoundError("no packet of it can be decoded")
        self.samplerate = int(first.sample_rate)
        self._layout = first.layout
        self.channels = int(first.layout.nb_channels)
        self._origin = first.time
        self._rest = self._samples(first)

    @property
    def length_s(self) -> float:
        """Seconds from the header or estimated from the bit rate; 0 if neither is known."""
        duration = self._container.duration  # in microseconds
        return max(0, duration or 0) / 1e6

    @property
    def frames(self) -> int | None:
        """Samples per channel, if the header gives them."""
        return round(self.length_s * self.samplerate) or None if self._is_of(_TELL_LENGTH) else None

    def skip(self, num_samples: int) -> None:
        """Skip the first samples of a file, before anything is read."""
        lead_in_s = num_samples / self.samplerate - _LEAD_IN_S
        if lead_in_s > 0 and self._origin is not None and self._is_of(_TELL_TIME):
            wanted = round((self._origin + lead_in_s) / self._stream.time_base)
            self._container.seek(wanted, stream=self._stream)
            first = next(self._frames, None)
            if first is not None and first.time is not None:
                num_samples -= round((first.time - self._origin) * self.samplerate)
                self._rest = self._samples(first)
        while num_samples > 0 and len(skipped := self.read(min(num_samples, self.samplerate))):
            num_samples -= len(skipped)

    def read(self, num_samples: int) -> npt.NDArray[np.float32]:
        """(num_samples, channels); fewer at the end."""
        parts, left = [self._rest[:num_samples]], num_samples - len(self._rest)
        self._rest = self._rest[num_samples:]
        while left > 0 and (frame := next(self._frames, None)) is not None:
            part = self._samples(frame)
            parts.append(part[:left])
            self._rest = part[left:]
            left -= len(part)
        return np.concatenate(parts)

    def _is_of(self, formats: tuple[str, ...]) -> bool:
        return any(name in formats for name in self._names)

    def _decoded(self) -> Iterator[Any]:
        """The frames of all packets; damaged packets are skipped, as FFmpeg does, and their audio is missing."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.EOFError:
                return
            except av.InvalidDataError:
                if packet is not None and packet.duration and packet.time_base:
                    self.lost_s += float(packet.duration * packet.time_base)

    def _samples(self, frame: Any) -> npt.NDArray[np.float32]:
        """(num_samples, channels) at the first frame's sample rate, whatever this one's is."""
        import av

        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind not in self._resamplers:
            self._resamplers[kind] = av.AudioResampler("fltp", self._layout, self.samplerate)
        parts = [part.to_ndarray() for part in self._resamplers[kind].resample(frame)]
        joined: npt.NDArray[np.float32] = np.concatenate([np.zeros((self.channels, 0), np.float32), *parts], axis=1)
        return joined.T


@contextmanager
def open_with_ffmpeg(file: IO[bytes]) -> Iterator[FFmpegSound]:
    """Open a readable and seekable file.

    Raises:
        NoSoundError: FFmpeg does not know it, it is damaged, or PyAV, which includes FFmpeg, is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise NoSoundError(f"PyAV, which reads more formats, is not installed: {error}; pip install av") from error
    file.seek(0, io.SEEK_SET)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    if str(getattr(file, "name", "")).lower().endswith((".al", ".ul")):
        options["sample_rate"] = str(_TELEPHONE_HZ)
    try:
        with av.open(file, metadata_errors="replace", options=options) as container:
            yield FFmpegSound(container)
    except av.FFmpegError as error:
        raise NoSoundError(error.strerror or str(error)) from error
