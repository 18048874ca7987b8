"""What a decoder of videos says and gives. Another one than FFmpeg's can stand behind it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np

NO_TIME = np.iinfo(np.int64).min
"""The time stamp of a frame that has none."""


class Turn(NamedTuple):
    """How a stored picture becomes upright: its sides are swapped first, then rows and columns reversed."""

    swap: bool = False
    rows: bool = False
    columns: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Turn a picture `(h, w, 3)`; the result lies in memory row by row."""
        turned = picture.swapaxes(0, 1) if self.swap else picture
        return np.ascontiguousarray(turned[:: -1 if self.rows else 1, :: -1 if self.columns else 1])


AS_STORED = Turn()


@dataclass(frozen=True)
class Index:
    """The frames that a full decode of a file shows, and from where each can be reached.

    stamps    `(n,)` int64, the time stamp of each shown frame, in the order shown, in units of `base` seconds; NO_TIME: none
    places    `(k, 3)` int64, where decoding can begin: the number of the frame, and its packet's time stamps (pts, dts)
    spare     the numbers of frames that no other one needs, ascending: where they are not asked for, they need not be decoded
    rate      frames a second on average
    height, width  in pixels, of the frames as they are given: turned upright
    stated    how many frames the container says it holds; 0: it says nothing
    counted   "" where packets say it, else why all of it was decoded to count, and why it is read from its start
    damaged   pictures that do not decode, or not wholly: such a file is always decoded from its start, by one thread
    remarks   lines for people
    """

    stamps: np.ndarray
    places: np.ndarray
    spare: np.ndarray
    base: Fraction
    rate: Fraction
    height: int
    width: int
    turn: Turn = AS_STORED
    stated: int = 0
    counted: str = ""
    damaged: bool = False
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def in_order(self) -> bool:
        """Whether all time stamps are there and each is later than the one before, so that they name the frames."""
        return bool((np.diff(self.stamps) > 0).all()) and (not len(self) or int(self.stamps[0]) != NO_TIME)

    def times(self) -> np.ndarray:
        """Compute the seconds of each frame since the first, float64 `(n,)`.

        Where time stamps are missing or go backwards, they are frame numbers divided by the rate.
        """
        if self.in_order:
            return (self.stamps - self.stamps[0]) * (self.base.numerator / self.base.denominator)
        return np.arange(len(self)) / float(self.rate)


class Picture(NamedTuple):
    """A decoded frame: its number, and what makes its pixels `(h, w, 3)` uint8 RGB, as stored, when called."""

    number: int
    pixels: Callable[[], np.ndarray]


class Decoder(Protocol):
    """One open file. `index` may become another one when decoding shows that packets had not told the truth."""

    index: Index

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        """Yield the frames with these numbers, which ascend; each before the next is decoded.

        Raises Recounted where `index` became another one, and DataError where a frame cannot be had.
        """
        ...

    def close(self) -> None: ...


class Recounted(Exception):
    """Packets had not told the truth: all was decoded and counted, and the decoder has another index."""
