"""A folder of frames, each a picture whose name ends in its number, read as a video is."""

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from ...images.suffixes import SUFFIXES
from .contract import Index, Picture

RATE = 25
_NUMBERED = re.compile(r"(.*?)(\d+)\.[^.]+")


class Folder:
    """The frames of a folder, in the order of the numbers that their names end in, one or another number apart throughout.

    Raises DataError where names have no numbers, several beginnings, gaps or doubles.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._root = os.fspath(path).rstrip("/") or "/"
        self._names, remarks = _ordered(self._root)
        first = self._pixels(0, None)
        numbers = np.arange(len(self._names))
        places = np.stack([numbers] * 3, 1)
        height, width = first.shape[:2]
        rate = Fraction(RATE)
        self.index = Index(numbers, places, numbers, 1 / rate, rate, height, width, remarks=tuple(remarks))

    def close(self) -> None:
        pass

    def pictures(self, numbers: Sequence[int]) -> Iterator[Picture]:
        size = (self.index.height, self.index.width)
        for number in numbers:
            yield Picture(number, lambda number=number: self._pixels(number, size))

    def _pixels(self, number: int, size: tuple[int, int] | None) -> np.ndarray:
        from ...images.decode import read_image  # loads torch

        name = self._names[number]
        pixels = read_image(storage.join(self._root, name)).permute(1, 2, 0).numpy()
        if size and pixels.shape[:2] != size:
            raise DataError(
                f"{self._root}/{name}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, the first frame {size[1]} x {size[0]}; "
                "expected frames of one size"
            )
        return pixels


def _ordered(root: str) -> tuple[list[str], list[str]]:
    """List a folder's frames in order, and remarks."""
    try:
        found = [e.name for e in storage.entries(root) if not e.folder]
    except OSError as error:
        raise DataError(f"{root}: {unread(root, error)}") from error
    names = [n for n in found if os.path.splitext(n)[1].lower() in SUFFIXES]  # noqa: PTH122
    if not names:
        raise DataError(f"{root}: holds no frames; expected pictures such as img_00001.jpg, or a video file")
    parts = [_NUMBERED.fullmatch(n) for n in names]
    if plain := [n for n, part in zip(names, parts, strict=True) if part is None]:
        raise DataError(
            f"{root}: {plain[0]} has no number; expected frames whose names end in one, such as img_00001.jpg"
        )
    keys = [(part[1], int(part[2])) for part in parts if part]
    beginnings = sorted({before for before, _ in keys})
    if len(beginnings) > 1:
        some = ", ".join(repr(b) for b in beginnings[:3])
        raise DataError(
            f"{root}: names begin in {len(beginnings)} ways ({some}); expected one series of frames in a folder"
        )
    order = sorted(range(len(names)), key=lambda i: keys[i][1])
    step = _step(root, [keys[i][1] for i in order], [names[i] for i in order])
    remarks = [f"a folder of frames says no rate: {RATE} frames/s are taken"]
    remarks += (
        [f"the numbers of frames are {step} apart throughout: each file is taken for one frame"] if step > 1 else []
    )
    return [names[i] for i in order], remarks


def _step(root: str, numbers: list[int], names: list[str]) -> int:
    steps = np.diff(numbers)
    if not len(steps):
        return 1
    if not steps.min():
        at = int(steps.argmin())
        raise DataError(f"{root}: {names[at]} and {names[at + 1]} have one number; expected one file for each frame")
    if steps.min() != steps.max():
        at = int((steps != np.bincount(steps).argmax()).argmax())
        raise DataError(
            f"{root}: between {names[at]} and {names[at + 1]} frames are missing; expected numbers without gaps: "
            "copy what is missing, or number the frames anew"
        )
    return int(steps[0])
