"""A picture seen in tiles that overlap by what the network reaches, so that they join to what it says of the whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from trunkline.ground.errors import RecipeError

from .options import tile_problems

See = Callable[[Tensor], Tensor]
"""From a small picture `(1, 3, h, w)` to the large one `(1, 3, sh, sw)` in 0..1."""
KNOWN = 48  # pixels: up to here tiles overlap by the network's whole reach
USUAL = 32  # pixels of overlap where it reaches further
MEMORY = 2**30  # bytes that the maps of a tile may take on a CPU
MAPS = 6  # maps of the large picture's size that are alive at once: a convolution's input and output, twice, and what copies


@dataclass(frozen=True)
class Span:
    """One side of a tile: it sees `start` to `stop`, of which `first` to `last` are its own."""

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, side: int, overlap: int, unit: int = 1) -> list[Span]:
    """Cut `length` into tiles of about `side` pixels, each with `overlap` pixels beyond its own on both sides.

    They begin at multiples of `unit`, of which a network that unshuffles pixels makes one place.
    """
    own = max(1, side - 2 * overlap)
    if length <= side:
        return [Span(0, length, 0, length)]
    count = -(-length // own)
    edges = [length * n // count for n in range(count + 1)]
    return [Span(max(0, a - overlap) // unit * unit, min(length, b + overlap), a, b) for a, b in pairwise(edges)]


def overlap_of(reach: int | None, given: int | None) -> int:
    """Choose the overlap: what was given, the network's reach where that is at most 48 pixels, else 32."""
    if given is not None:
        return given
    return reach if reach is not None and reach <= KNOWN else USUAL


def check_tiles(side: int | None, given: int | None, reach: int | None) -> None:
    """Raise RecipeError where tiles of `side` pixels have next to nothing of their own for the overlap (`overlap_of`)."""
    why = ""
    if given is None:
        known = reach is not None and reach <= KNOWN
        why = ", as far as the network reaches" if known else " where none is given"
    if problems := tile_problems(side, overlap_of(reach, given), why):
        raise RecipeError(problems)


def side_for(width: int, scale: int, overlap: int) -> int:
    """Bound a tile's side so that the maps of a network of `width` channels stay below a GiB in fp32."""
    side = int((MEMORY / (4 * MAPS * width)) ** 0.5 / scale)
    return max(side, 2 * overlap + 16)


def upscale(
    image: Tensor, see: See, scale: int, side: int, overlap: int, most: int, device: torch.device, unit: int = 1
) -> Tensor:
    """See a picture `(3, h, w)` in tiles of at most `side` pixels (0: whole), one after the other on the device.

    Returns integers `(3, sh, sw)` on the CPU, 0 to `most`, uint8 or int32, rounded half up. On a GPU whose memory runs out, tiles
    become half as large. Raises what the network raises otherwise.
    """
    _, height, width = image.shape
    made = torch.empty(3, height * scale, width * scale, dtype=torch.uint8 if most <= 255 else torch.int32)
    side = side or max(height, width)
    while True:
        try:
            for rows, columns, found in _each(image, see, scale, side, overlap, device, unit):
                made[:, rows, columns] = integers(found, most).to(made.dtype).cpu()
            return made
        except torch.OutOfMemoryError:
            if side // 2 < 2 * overlap + 16:
                raise
            side = min(side, max(height, width)) // 2
            torch.cuda.empty_cache()


def integers(found: Tensor, most: int) -> Tensor:
    """Round pictures in 0..1 to whole numbers from 0 to `most`, halves up, as floats."""
    return found.float().clamp(0, 1).mul(most).add(0.5).floor()


def _each(
    image: Tensor, see: See, scale: int, side: int, overlap: int, device: torch.device, unit: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    _, height, width = image.shape
    for row, column in product(spans(height, side, overlap, unit), spans(width, side, overlap, unit)):
        tile = image[None, :, row.start : row.stop, column.start : column.stop].to(device)
        found = see(tile)[0]
        top, left = (row.first - row.start) * scale, (column.first - column.start) * scale
        own = found[:, top : top + (row.last - row.first) * scale, left : left + (column.last - column.first) * scale]
        yield slice(row.first * scale, row.last * scale), slice(column.first * scale, column.last * scale), own


def difference(
    image: Tensor, see: See, scale: int, side: int, overlap: int, device: torch.device, unit: int = 1
) -> float:
    """Measure how far a pair of tiles is from what the network says of both in one, in 0..1: the largest distance.

    The pair lies in the middle of the picture. 0 where one tile holds the picture.
    """
    _, height, width = image.shape
    row, columns = spans(height, side, overlap, unit), spans(width, side, overlap, unit)
    if len(columns) < 2 <= len(row):

        def turned(tile: Tensor) -> Tensor:
            return see(tile.transpose(2, 3)).transpose(2, 3)

        return difference(image.transpose(1, 2), turned, scale, side, overlap, device, unit)
    if len(columns) < 2:
        return 0.0
    middle, at = row[len(row) // 2], (len(columns) - 1) // 2
    a, b = columns[at], columns[at + 1]
    both = image[None, :, middle.start : middle.stop, a.start : b.stop]
    whole = see(both.to(device))[0]
    worst = 0.0
    for part in (a, b):
        found = see(image[None, :, middle.start : middle.stop, part.start : part.stop].to(device))[0]
        own = found[:, :, (part.first - part.start) * scale : (part.last - part.start) * scale]
        true = whole[:, :, (part.first - a.start) * scale : (part.last - a.start) * scale]
        worst = max(worst, float((own - true).abs().max()))
    return worst
