"""Frames of a file by number: only what is needed is decoded, and each frame is known by its time stamp before it is given."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from trunkline.ground.errors import DataError

from . import stored
from .contract import NO_TIME, Index, Picture, Recounted
from .counting import make_index, recount
from .file import Failure, VideoFile, decoder

SEEK = 4
"""What going to another place costs, in frames decoded: it is done where it spares more."""


class _Astray(Exception):
    """Frames that come are not those that the index promises; the message says which."""


class Frames:
    """The frames of one video file (`Decoder` in the contract says what it does)."""

    def __init__(self, path: str | os.PathLike[str], threads: str = "NONE", cache: bool = True):
        self._kept = _kept(path) if cache else None
        self._file = VideoFile(path, threads)
        self._asked = threads
        try:
            found = stored.load(self._kept) if self._kept else None
            if found is None:
                found = make_index(self._file)
                self._keep(found)
                self._use(found)
            else:
                self._use(found, fresh=not found.damaged)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._ready.clear()
        self._file.close()

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        self._wanted = numbers if isinstance(numbers, range) else {*numbers}
        for number, after in zip_longest(numbers, islice(numbers, 1, None)):
            self._leaving = after is not None and self._place(after)[0] > number + SEEK
            frame = self._find(number)
            yield Picture(number, lambda frame=frame: self._pixels(frame))

    def _use(self, index: Index, fresh: bool = False) -> None:
        """Take an index, and begin with the first frame; a `fresh` file was just opened as it is to be read."""
        self.index = index
        self._places = index.places if index.in_order and not index.damaged else np.zeros((0, 3), np.int64)
        self._stamps = index.stamps.tolist()
        self._ready: deque[tuple[int, VideoFrame]] = deque()
        self._next, self._from, self._ended = 0, NO_TIME, False
        self._sent, self._left_out = -1, set[int]()
        self._numbers = {stamp: number for number, stamp in enumerate(self._stamps)} if len(self._places) else {}
        self._spare = {*index.spare.tolist()}
        if not fresh:
            self._file.reopen("NONE" if index.damaged else self._asked)

    def _keep(self, index: Index) -> None:
        if self._kept:
            stored.save(index, self._kept)

    def _find(self, number: int) -> VideoFrame:
        try:
            return self._reach(number)
        except _Astray as astray:
            self._mend(str(astray))
            return self._reach(number)

    def _mend(self, what: str) -> None:
        """Count a file by decoding whose packets did not tell the truth; where it was counted so, decode from its start."""
        if self.index.counted and not len(self._places):
            raise DataError(
                f"{self._file.name}: {what}, though all of it was decoded before; was the file changed meanwhile?"
            )
        if not self.index.counted:
            found = recount(self._file, f"packets did not tell the truth: {what}")
            self._keep(found)
            self._use(found)
            raise Recounted
        self._sequential(what)

    def _sequential(self, what: str) -> None:
        line = f"going to a place in it gave other frames than decoding from its start ({what})"
        places = np.zeros((0, 3), np.int64)
        index = replace(self.index, places=places, counted=f"{self.index.counted}; {line}")
        self._keep(index)
        self._use(index)

    def _reach(self, number: int) -> VideoFrame:
        """Decode on, or from a better place, to a frame."""
        coming = self._ready[0][0] if self._ready else self._next
        lost = number < coming or number in self._left_out
        place = self._place(number)
        if place[0] >= 0 and (lost or place[0] > self._next + SEEK):
            self._go(*place)
        elif lost:
            self._use(self.index)
        while True:
            while not self._ready:
                if self._leaving and self._sent == number:
                    return self._last(number)
                self._decode()
            found, frame = self._ready.popleft()
            if found == number:
                return frame
            if found > number:
                raise _Astray(f"frame {number} does not come")

    def _place(self, number: int) -> tuple[int, int, int]:
        """Return the last place from where a frame can be reached (its frame, pts, dts); -1: there is none."""
        at = int(np.searchsorted(self._places[:, 0], number, "right")) - 1
        return tuple(self._places[at].tolist()) if at >= 0 else (-1, NO_TIME, NO_TIME)

    def _last(self, number: int) -> VideoFrame:
        """Take a frame, whose packet was just sent, out of the decoder without feeding it more: next it goes elsewhere."""
        frames = self._file.decode(None)
        self._next, self._ended = len(self._stamps), True
        for frame in frames:
            if frame.pts == self._stamps[number] and not frame.is_corrupt:
                return frame
        raise _Astray(f"frame {number} does not come")

    def _go(self, number: int, stamp: int, order: int) -> None:
        """Go to a place, or to one before it; the frame that comes next is then known by its time stamp."""
        for target in dict.fromkeys((stamp, order)):
            if target == NO_TIME:
                continue
            try:
                self._file.seek(target)
                packet = next(self._file.packets)
            except (Failure, StopIteration):
                continue
            stamp = NO_TIME if packet.pts is None else packet.pts
            at = np.flatnonzero(self._places[:, 1] == stamp)
            if len(at) and self._places[at[0], 0] <= number:
                self._ready.clear()
                self._next, self._from, self._ended = int(self._places[at[0], 0]), stamp, False
                self._left_out.clear()
                self._sent = self._next
                self._take(packet)
                return
        raise _Astray(f"the key at frame {number} is not found")

    def _decode(self) -> None:
        packet = None if self._ended else next(self._file.packets, None)
        if packet is None:
            raise _Astray(f"{self._next} frames come of {len(self.index)}")
        self._ended = packet.size == 0 and packet.pts is None and packet.dts is None
        number = self._numbers.get(NO_TIME if packet.pts is None else packet.pts, -1)
        if number not in self._spare or number in self._wanted:
            self._sent = number
            self._take(packet)
        elif number >= self._next:
            self._left_out.add(number)

    def _take(self, packet: object) -> None:
        try:
            frames = self._file.decode(packet)
        except Failure as error:
            if self.index.damaged:
                return
            raise _Astray(f"a packet before frame {self._next} does not decode ({error.strerror or error})") from error
        for frame in frames:
            while self._next in self._left_out:
                self._next += 1
            stamp = NO_TIME if frame.pts is None else frame.pts
            if self._from != NO_TIME and stamp < self._from:
                continue  # shown before the place where decoding began, and made from what lies before it
            self._check(frame, stamp)
            self._ready.append((self._next, frame))
            self._next += 1

    def _check(self, frame: VideoFrame, stamp: int) -> None:
        if frame.is_corrupt and not self.index.damaged:
            raise _Astray(f"frame {self._next} is damaged")
        if self._next >= len(self._stamps):
            raise _Astray(f"more frames come than {len(self._stamps)}")
        if stamp != self._stamps[self._next]:
            raise _Astray(f"another frame comes than number {self._next}")

    def _pixels(self, frame: VideoFrame) -> np.ndarray:
        stored_size = (frame.height, frame.width)
        index = self.index
        if stored_size != ((index.width, index.height) if index.turn.swap else (index.height, index.width)):
            raise DataError(
                f"{self._file.name}: a frame is {frame.width} x {frame.height} pixels as stored, the first has another size; "
                "expected one size: ffmpeg -i IN OUT.mp4 makes such a file"
            )
        return self._file.pixels(frame)


def _kept(path: str | os.PathLike[str]) -> Path | None:
    try:
        return stored.place(path, decoder())
    except OSError:
        return None  # opening it says what is wrong
