"""Open a video, or a folder of frames, and read frames by number."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from .contract import Decoder, Recounted
from .folder import Folder

THREADS = ("NONE", "SLICE", "FRAME", "AUTO")


class Video:
    """Frames by number, among those that a full decode shows; a context manager that closes the file.

    A frame's pixels are the same whatever was read before it. A few bits that are damaged within a picture are noticed when
    it is decoded: should frames be lost there, they are counted anew then, and the lines in `remarks` say it.
    """

    def __init__(self, decoder: Decoder, name: str):
        self._decoder, self.name = decoder, name

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._decoder.close()

    @property
    def count(self) -> int:
        """How many frames are shown."""
        return len(self._decoder.index)

    @property
    def stated(self) -> int:
        """How many frames the container says it holds; 0 where it says nothing. Nothing here relies on it."""
        return self._decoder.index.stated

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self._decoder.index.rate

    @property
    def times(self) -> np.ndarray:
        """The seconds of each frame since the first, float64 `(count,)`, not evenly spaced where the rate varies."""
        return self._decoder.index.times()

    @property
    def height(self) -> int:
        """In pixels, of the frames as they are read: turned upright."""
        return self._decoder.index.height

    @property
    def width(self) -> int:
        """In pixels, of the frames as they are read: turned upright."""
        return self._decoder.index.width

    @property
    def remarks(self) -> list[str]:
        """What people should know of this file: lost frames, a choice among streams. Reading may add lines."""
        return list(self._decoder.index.remarks)

    @property
    def counted(self) -> str:
        """Why all of the file was decoded to count its frames, and is read from its start; "" where its packets say it."""
        return self._decoder.index.counted

    @property
    def damaged(self) -> bool:
        """Whether some pictures do not decode, or only in part, as far as is known; a whole `stream` finds all."""
        return self._decoder.index.damaged

    def read(self, indices: Iterable[int]) -> np.ndarray:
        """Read the frames with these numbers, in any order, also repeated, as `(n, height, width, 3)` uint8 RGB.

        Raises DataError where the file has no such frame, or one cannot be decoded.
        """
        numbers = [int(i) for i in indices]
        while True:
            try:
                return self._read(numbers)
            except Recounted:
                continue

    def _read(self, numbers: list[int]) -> np.ndarray:
        self._check(numbers)
        out = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers):
            rows.setdefault(number, []).append(row)
        for picture in self._decoder.pictures(sorted(rows)):
            out[rows[picture.number]] = self._decoder.index.turn.upright(picture.pixels())
        return out

    def stream(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield frame after frame from number `start` on, each `(height, width, 3)` uint8 RGB, one in memory at a time.

        Raises DataError as `read`.
        """
        if start != self.count:
            self._check([start])
        number, promised = start, self._decoder.index
        while number < self.count:
            try:
                for picture in self._decoder.pictures(range(number, self.count)):
                    pixels = self._decoder.index.turn.upright(picture.pixels())
                    yield pixels
                    number += 1
            except Recounted:
                if (self._decoder.index.stamps[:number] != promised.stamps[:number]).any():
                    raise DataError(
                        f"{self.name}: frames are damaged, and its packets promised other ones than decoding gives: "
                        "open it again, which now knows them"
                    ) from None

    def _check(self, numbers: list[int]) -> None:
        wrong = [n for n in numbers if not 0 <= n < self.count]
        if wrong:
            said = "; ".join(["", *self._decoder.index.remarks])
            raise DataError(
                f"{self.name}: frame {wrong[0]} is asked for; expected 0 to {self.count - 1}, all that it has{said}"
            )


def open_video(path: str | os.PathLike[str], *, cache: bool = True, thread_type: str = "NONE") -> Video:
    """Open a video file, or a folder of frames (`img_00001.jpg`, …), to read frames by number.

    Frames are those of FFmpeg's best picture stream, within its edit list, turned by its display matrix; pixels are not
    scaled where they are not square. The first opening of a file looks at all its packets, or decodes all of it where these
    do not tell how many frames are shown; the index is kept in the user's cache folder, unless `cache` is off.

    thread_type    FFmpeg's: NONE (one thread), SLICE, FRAME or AUTO. Pixels are the same with each, but for what FFmpeg makes up
                   in place of damaged parts that nobody has noticed yet

    Raises DataError, with the file's name, for what is missing, empty, no video, holds no pictures or none that decodes.
    """
    return Video(opened(path, cache=cache, thread_type=thread_type), shown(path))


def opened(path: str | os.PathLike[str], *, cache: bool = True, thread_type: str = "NONE") -> Decoder:
    """Open what is behind a `Video`, as `open_video`."""
    if thread_type not in THREADS:
        raise ValueError(f"thread_type={thread_type}: expected one of {', '.join(THREADS)}")
    return Folder(path) if _is_folder(path) else _needed().Frames(path, thread_type, cache)


def shown(path: str | os.PathLike[str]) -> str:
    """Convert a path to printable text, also where its bytes are no valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def count_frames(path: str | os.PathLike[str]) -> int:
    """Count the frames that a full decode of a video, or of a folder of frames, shows. Raises DataError as `open_video`."""
    with open_video(path) as video:
        return video.count


def decoder() -> str:
    """Name what decides the pixels of videos, with its versions. Raises DataError where it is not installed."""
    _needed()
    from .file import decoder

    return decoder()


def _is_folder(path: str | os.PathLike[str]) -> bool:
    text = os.fspath(path)
    return text.endswith("/") if storage.is_remote(text) else os.path.isdir(text)  # noqa: PTH112 - also of bytes that are no text


def _needed() -> Any:
    try:
        from . import frames
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise DataError("reading videos needs PyAV: pip install 'trunkline[video]'") from None
    return frames
