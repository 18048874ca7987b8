"""One video file, open in FFmpeg by PyAV: its packets, its decoder, and places to go to."""

import io
import os
from collections.abc import Iterator
from functools import cache
from math import atan2, degrees
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from .contract import AS_STORED, Turn

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv", "mpeg", "mpegts", "mpegvideo", "ogg", "m4v", "h264",
    "hevc", "mxf", "dv", "rm", "ivf", "nut", "mjpeg", "gif", "obu", "yuv4mpegpipe",
)  # fmt: skip
"""FFmpeg's demuxers of moving pictures. It has others, which read pictures, and lists that name further files: no video."""
RECODE = "ffmpeg -i IN -c:v libx264 OUT.mp4 makes a file that can be used, where FFmpeg itself can read it"
Failure = FFmpegError
_ALLOWED = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}


@cache
def decoder() -> str:
    """Name what decides pixels, with its versions: `PyAV 18.1.0, FFmpeg 8.1.2 (libavcodec 62.28.102, …)`."""
    versions = {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}
    parts = ", ".join(f"{name} {versions[name]}" for name in ("libavcodec", "libavformat", "libswscale"))
    return f"PyAV {av.__version__}, FFmpeg {getattr(av, 'ffmpeg_version_info', '?')} ({parts})"


def shown(path: str | os.PathLike[str]) -> str:
    """Convert a path to printable text, also where its bytes are no valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class VideoFile:
    """A file's best picture stream, which is what FFmpeg chooses: packets in the file's order, frames as they come.

    Raises DataError, with the file's name, where it cannot be opened or holds no pictures.
    """

    def __init__(self, path: str | os.PathLike[str], threads: str = "NONE"):
        self.path, self.name = os.fspath(path), shown(path)
        self._rgb = VideoReformatter()
        self._open(threads)

    def _open(self, threads: str) -> None:
        source = _source(self.path)
        try:
            opened: Any = av.open(source, metadata_errors="replace", options=_ALLOWED)
        except Failure as error:
            raise DataError(f"{self.name}: {_unopened(self.path, error)}") from error
        self.container: InputContainer = opened
        try:
            self.stream = self._best()
            self._context: Any = self.stream.codec_context
            self._context.thread_type = threads
            if threads == "NONE":
                self._context.thread_count = 1
        except BaseException:
            self.close()
            raise
        self.packets = self.container.demux(self.stream)

    def reopen(self, threads: str) -> None:
        """Begin again with the file's first packet."""
        self.close()
        self._open(threads)

    def close(self) -> None:
        self.packets: Iterator[av.Packet] = iter(())
        self.container.close()

    def _best(self) -> VideoStream:
        best: Any = self.container.streams.best("video")
        if best is None or _is_cover(best):
            kinds = sorted({s.type for s in self.container.streams})
            raise DataError(
                f"{self.name}: holds no moving pictures ({', '.join(kinds) or 'no stream'}"
                f"{' and a cover' if best is not None else ''}); expected a video"
            )
        if best.codec_context is None:
            raise DataError(f"{self.name}: this FFmpeg has no decoder for its pictures; {RECODE} with one that has")
        return best

    def choice(self) -> str:
        """Say which of several picture streams is read; "" where there is one."""
        streams = [s for s in self.container.streams.video if not _is_cover(s)]
        if len(streams) < 2:
            return ""
        rest = ", ".join(_size(s) for s in streams if s.index != self.stream.index)
        return f"holds {len(streams)} picture streams: FFmpeg's best one is read, {_size(self.stream)}, not {rest}"

    @property
    def codec(self) -> str:
        """The codec's name, whichever decoder reads it."""
        return self._context.codec.canonical_name

    @property
    def header(self) -> bytes:
        return self._context.extradata or b""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as coded."""
        return self._context.width, self._context.height

    def decode(self, packet: Any) -> list[VideoFrame]:
        """Decode a packet; the empty one after the last gives the frames that were held back. Raises Failure."""
        return self._context.decode(packet)

    def seek(self, stamp: int) -> None:
        """Go to the key packet at or before a time stamp. Raises Failure."""
        self.packets = iter(())
        self.container.seek(stamp, stream=self.stream)
        self.packets = self.container.demux(self.stream)

    def pixels(self, frame: VideoFrame) -> np.ndarray:
        """Convert a frame to `(h, w, 3)` uint8 RGB, as stored, by FFmpeg's swscale."""
        return self._rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()


def turn_of(frame: VideoFrame) -> tuple[Turn, str]:
    """Read how a frame is turned upright from its display matrix; a line where it cannot be done, which is left undone.

    The matrix sends column x and row y of the stored picture to column a x + c y and row b x + d y of the shown one.
    """
    sides: Any = frame.side_data
    data = next((d for d in sides if d.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return AS_STORED, ""
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).astype(float).tolist()
    straight, across = min(abs(a), abs(d)), min(abs(b), abs(c))
    slight = 0.02  # of the whole: a degree
    if straight and max(abs(b), abs(c)) <= slight * straight:
        return Turn(False, d < 0, a < 0), ""
    if across and max(abs(a), abs(d)) <= slight * across:
        return Turn(True, b < 0, c < 0), ""
    if not (straight or across):
        return AS_STORED, ""
    return (
        AS_STORED,
        f"is to be turned by {degrees(atan2(b, a)):.0f} degrees, which is no quarter turn: it is read as stored",
    )


def _source(path: str) -> Any:
    """Return what FFmpeg opens: a file of this machine by its path, whatever it is called, else the bytes."""
    if not storage.is_remote(path) and Path(path).is_file():
        return f"file:{path}"
    try:
        return io.BytesIO(storage.read(path))
    except OSError as error:
        raise DataError(f"{shown(path)}: {unread(path, error)}") from error


def _unopened(path: str, error: Exception) -> str:
    if not storage.is_remote(path) and Path(path).is_file() and not Path(path).stat().st_size:
        return "the file is empty"
    if isinstance(error, ArgumentError):  # what FFmpeg says of a demuxer that is not allowed
        return (
            "holds no container of moving pictures that is read here (MP4, Matroska, AVI, MPEG, …): perhaps a picture, or a list "
            "of files, under a video's name"
        )
    what = getattr(error, "strerror", None) or error
    return (
        f"is no video that FFmpeg can open ({what}); one whose recording or copying was broken off may lack its header: "
        "record or copy it again, or leave it out"
    )


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _size(stream: Any) -> str:
    context = stream.codec_context
    return f"number {stream.index} ({context.width} x {context.height})" if context else f"number {stream.index}"
