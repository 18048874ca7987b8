"""Videos at another size: frames whose shorter side is resized once and kept, without loss, in the user's cache folder.

What is kept decides no number: a frame that is read from it is, bit for bit, the frame of the video resized.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from . import stored
from .contract import AS_STORED, Decoder, Index, Picture
from .video import Video, opened, shown

SHARE = 0.4
"""Of the bytes of pixels, what a kept frame takes at most of those looked at (docs/video.md)."""
_MARK = b"TLVF"
_VERSION = 1  # of how frames are resized and kept
_CODEC = {"level": "3", "coder": "0", "context": "0", "slices": "4"}  # FFV1 that decodes quickest
_LEFT = 3600  # seconds without a frame written: a process that was killed left the file
_CHECK = 8  # bytes of a frame's digest


def open_resized(path: str | os.PathLike[str], side: int | None, *, keep: bool = True) -> Video:
    """Open a video or a folder of frames so that frames come with a shorter side of `side` pixels, resized by torchvision.

    Bilinear, antialiased, in the video's proportion; None, and a video that is not larger, leaves them as they are. Numbers,
    times and remarks are the video's. A file's frames are all resized when it is first opened, and kept in the cache folder,
    unless `keep` is off, the folder cannot be written, or it is no file of this machine: then each is resized as it is
    read. Raises DataError as `open_video`.
    """
    local = side is not None and keep and not storage.is_remote(os.fspath(path)) and Path(os.fsdecode(path)).is_file()
    file = place(path, side) if local and side else None
    if file and side and (ready := _ready(path, side, file)):
        return Video(ready, shown(path))
    decoder = opened(path)
    if side is None or min(decoder.index.height, decoder.index.width) <= side:
        return Video(decoder, shown(path))
    if not file:
        return Video(_AsRead(decoder, side), shown(path))
    try:
        try:
            _make(decoder, shown(path), side, file)
            return Video(_Kept(path, side, file, resized_index(decoder.index, side)), shown(path))
        except OSError:
            return Video(_AsRead(opened(path), side), shown(path))
    finally:
        decoder.close()


def _name(path: str | os.PathLike[str]) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def place(path: str | os.PathLike[str], side: int) -> Path | None:
    """Name the file of a video's resized frames: by all that names its index, the side, torch's versions; None: unreadable."""
    import torch
    import torchvision

    from .video import decoder

    try:
        index = stored.place(path, decoder())
    except OSError:
        return None
    how = f"{_VERSION} {torch.__version__} {torchvision.__version__}"
    return index.with_suffix(f".{side}-{hashlib.blake2b(how.encode(), digest_size=4).hexdigest()}")


def size_at(height: int, width: int, side: int) -> tuple[int, int]:
    """Compute height and width with a shorter side of `side`, as torchvision rounds the longer one: down."""
    short, long = sorted((height, width))
    if short <= side:
        return height, width
    longer = int(side * long / short)
    return (side, longer) if height <= width else (longer, side)


def resized_index(index: Index, side: int) -> Index:
    """Return a video's index with the size of its resized frames."""
    height, width = size_at(index.height, index.width, side)
    return replace(index, height=height, width=width, turn=AS_STORED)


def resized(frame: np.ndarray, side: int) -> np.ndarray:
    """Resize an upright frame `(h, w, 3)` uint8 to a shorter side of `side` pixels."""
    import torch
    from torchvision.transforms.v2 import functional as F

    picture = torch.from_numpy(frame).permute(2, 0, 1)[None]
    height, width = frame.shape[:2]
    found = F.resize(picture, list(size_at(height, width, side)), antialias=True)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy())


class _AsRead:
    """The frames of another decoder, each resized when it is asked for."""

    def __init__(self, inner: Decoder, side: int):
        self._inner, self._side = inner, side
        self.index = resized_index(inner.index, side)

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        try:
            for picture in self._inner.pictures(numbers):
                yield Picture(picture.number, lambda p=picture: self._pixels(p))
        finally:  # decoding may have shown that it was another one
            self.index = resized_index(self._inner.index, self._side)

    def _pixels(self, picture: Picture) -> np.ndarray:
        return resized(self._inner.index.turn.upright(picture.pixels()), self._side)

    def close(self) -> None:
        self._inner.close()


class _Kept:
    """Resized frames from the cache, each checked by its digest; a damaged one is made anew from the video.

    Raises OSError or ValueError for what is no such file.
    """

    def __init__(self, path: str | os.PathLike[str], side: int, file: Path, index: Index):
        import av

        self.index, self._path, self._side, self._kept = index, path, side, file
        self._instead: _AsRead | None = None
        self._file = file.open("rb")
        try:
            self._ends, head = _read_end(self._file, len(index))
            if head["size"] != [index.height, index.width]:
                raise ValueError(f"{file}: frames of another size")
            codec: Any = av.CodecContext.create("ffv1", "r")
        except BaseException:
            self._file.close()
            raise
        codec.width, codec.height = index.width, index.height
        codec.extradata, codec.thread_count = bytes.fromhex(head["extradata"]), 1
        self._codec = codec

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        for number in numbers:
            yield Picture(number, lambda number=number: self._pixels(number))

    def _pixels(self, number: int) -> np.ndarray:
        import av

        start = int(self._ends[number - 1]) if number else 0
        self._file.seek(start)
        data = self._file.read(int(self._ends[number]) - start)
        if data[:_CHECK] != _digest(data[_CHECK:]):
            return self._anew(number)
        (frame,) = self._codec.decode(av.Packet(data[_CHECK:]))
        return frame.to_ndarray(format="rgb24")

    def _anew(self, number: int) -> np.ndarray:
        """Resize a frame of the video itself, and leave the file to be made again at the next opening."""
        self._kept.unlink(missing_ok=True)
        self._instead = self._instead or _AsRead(opened(self._path), self._side)
        (picture,) = self._instead.pictures([number])
        return picture.pixels()

    def close(self) -> None:
        self._file.close()
        if self._instead:
            self._instead.close()


def _ready(path: str | os.PathLike[str], side: int, file: Path) -> _Kept | None:
    """Open what is kept of a video, if all of it is there."""
    from .video import decoder

    if not file.is_file():
        return None
    index = stored.load(stored.place(path, decoder()))
    try:
        return _Kept(path, side, file, resized_index(index, side)) if index else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(decoder: Decoder, name: str, side: int, file: Path) -> None:
    """Decode a video from its first frame to its last, and keep all frames: beside, then renamed. Raises DataError, OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{file.name}-*"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - left.stat().st_mtime > _LEFT:
                left.unlink()
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "wb") as out:
            promised = decoder.index
            try:
                _write(decoder, name, side, out)
            except DataError:
                if decoder.index is promised:
                    raise
                out.seek(0)  # its packets had not told the truth: now its frames are counted
                out.truncate()
                _write(decoder, name, side, out)
            out.flush()
            os.fsync(out.fileno())
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _write(decoder: Decoder, name: str, side: int, out: BinaryIO) -> None:
    """Write the frames one behind the other, each behind its digest; then where each ends, and what is to be said of them."""
    ends: list[int] = []
    codec: Any = None
    for number, frame in enumerate(Video(decoder, name).stream()):
        small = resized(frame, side)
        codec = codec or _encoder(*small.shape[:2])
        data = _packet(codec, small, number)
        out.write(_digest(data) + data)
        ends.append(out.tell())
    head = {"size": [codec.height, codec.width], "extradata": bytes(codec.extradata).hex()}
    body = np.array(ends, np.int64).tobytes() + (said := json.dumps(head).encode())
    out.write(body + len(said).to_bytes(4) + _digest(body) + _MARK)


def _read_end(file: BinaryIO, frames: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Read where each of so many frames ends, `(frames,)` int64, and what is said of them. Raises ValueError, OSError."""
    tail = 4 + _CHECK + len(_MARK)
    file.seek(-tail, os.SEEK_END)
    length, check, mark = int.from_bytes(file.read(4)), file.read(_CHECK), file.read()
    file.seek(-(tail + length + 8 * frames), os.SEEK_END)
    first, body = file.tell(), file.read(length + 8 * frames)
    ends = np.frombuffer(body[: 8 * frames], np.int64)
    if mark != _MARK or check != _digest(body) or not len(ends) or int(ends[-1]) != first:
        raise ValueError("not the resized frames of this video")
    return ends, json.loads(body[8 * frames :])


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK).digest()


def _encoder(height: int, width: int) -> Any:
    import av

    codec: Any = av.CodecContext.create("ffv1", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "bgr0", Fraction(1, 25)
    codec.thread_count, codec.gop_size, codec.options = 1, 1, dict(_CODEC)  # each frame by itself
    return codec


def _packet(codec: Any, frame: np.ndarray, number: int) -> bytes:
    import av

    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.pts = number
    (packet,) = codec.encode(picture)
    return bytes(packet)
