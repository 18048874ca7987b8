"""Masks that others predicted for classes with colours: they may hold these colours, or the classes' numbers."""

import os
from dataclasses import replace

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ....heads.contract import VOID
from .encoding import Encoding, Mask, labels_of, named
from .mask_file import Stored, has_colours, read_pixels

GREY = "grey whose values are declared colours"


def look_at_either(
    source: str | os.PathLike[str], colours: Encoding, numbers: Encoding, ignored: np.ndarray | None = None
) -> Mask:
    """Read a mask by colours where its file has them (RGB, or a palette of declared colours), else by numbers.

    Pixels where `ignored` `(H, W)` bool is true may have any value; they are 255 then. Raises DataError as `look_at`, and
    where numbers and colours are both valid and say different classes.
    """
    with named(os.fspath(source)):
        data = bytes(storage.read(source))
        if has_colours(data):
            return _coloured(data, colours, numbers, ignored)
        stored = read_pixels(data, False)
        if stored.pixels.dtype != np.uint8:
            return Mask(labels_of(stored.pixels, numbers, ignored), stored)
        return _indexed(stored, colours, numbers, ignored)


def _coloured(data: bytes, colours: Encoding, numbers: Encoding, ignored: np.ndarray | None) -> Mask:
    stored = read_pixels(data, True)
    try:
        return Mask(labels_of(stored.pixels, colours, ignored), stored)
    except DataError:
        try:
            grey = read_pixels(data, False)
            return Mask(labels_of(grey.pixels, numbers, ignored), grey)
        except DataError:
            pass
        raise


def _indexed(stored: Stored, colours: Encoding, numbers: Encoding, ignored: np.ndarray | None) -> Mask:
    """Read numbers of 8 bits, each of which has a colour: its palette's, or its own grey."""
    pixels, palette = stored.pixels, stored.palette
    if palette is None:
        palette = np.repeat(np.arange(256)[:, None], 3, 1)
    shown = {n: int(r) << 16 | int(g) << 8 | int(b) for n, (r, g, b) in enumerate(palette.tolist())}
    if all(colours.values.get(shown.get(n, -1)) in (None, number) for n, number in numbers.values.items()):
        try:  # as `predict` writes them: no number has another class's colour
            return Mask(labels_of(pixels, numbers, ignored), stored)
        except DataError:
            pass
    counted = pixels if ignored is None or ignored.shape != pixels.shape else pixels[~ignored]
    used = np.flatnonzero(np.bincount(counted.ravel(), minlength=256)).tolist()
    by_colour = {n: colours.values.get(shown.get(n, -1)) for n in used}
    by_number = {n: numbers.values.get(n) for n in used}
    declared = None not in by_colour.values()
    if None not in by_number.values():
        black = set() if declared else {n for n in used if not shown.get(n, 0)}  # an unset entry says nothing
        other = [n for n in used if by_colour[n] not in (None, by_number[n]) and n not in black]
        if other and (declared or stored.palette is not None):
            raise _two(other[0], by_number[other[0]], by_colour[other[0]], colours, stored.palette is not None)
    elif declared:
        values = {n: by_colour[n] for n in used} | {0: by_colour.get(0, VOID)}
        labels = labels_of(pixels, replace(colours, coloured=False, values=values), ignored)
        return Mask(labels, replace(stored, palette=None, form=stored.form if stored.palette is not None else GREY))
    return Mask(labels_of(pixels, numbers, ignored), stored)


def _two(value: int, number: int | None, colour: int | None, colours: Encoding, palette: bool) -> DataError:
    own, other = (
        "void" if n == VOID or n is None else f"{colours.classes[n]} (class {n} of classes.txt, from 0)"
        for n in (number, colour)
    )
    how = "its palette's colour" if palette else "the grey as a colour"
    return DataError(
        f"has two readings: the number {value} says {own}, and {how} says {other}. Save it as RGB to have it read by its "
        "colours, or as numbers with the palette of classes.txt (or numbers in grey whose values are no declared colours)"
    )
