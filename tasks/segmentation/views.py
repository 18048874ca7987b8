"""One picture seen in windows, mirrored, at several sizes: what the views say of each pixel, put together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.resizing import exactly, scaled
from .options import Options

GRID = 32  # pixels: windows begin at its multiples, so that a trunk of any output stride sees the same cells
Logits = Callable[[Tensor], Tensor]
"""From an image `(3, h, w)` uint8 to its logits `(K, h, w)`."""


@dataclass(frozen=True)
class Part:
    """One side of a window: it sees `start` to `stop`, and says what is from `first` to `last`."""

    start: int
    stop: int
    first: int
    last: int


def wanted(options: Options) -> bool:
    """Say whether the options ask for windows, mirrored pictures, scales or the CRF."""
    return bool(options.tiles or options.flips or options.scales or options.crf)


def parts(length: int, side: int, overlap: float) -> list[Part]:
    """Cut `length` into windows of at most `side` pixels, which overlap by the share `overlap` at least.

    Each pixel is taken from the window whose inner edges are farthest from it.
    """
    if length <= side:
        return [Part(0, length, 0, length)]
    step = max(GRID, int(side * (1 - overlap)) // GRID * GRID)
    last = -(-(length - side) // GRID) * GRID
    starts = [*range(0, last, step), last]
    stops = [min(length, s + side) for s in starts]
    borders = [0, *((b + a) // 2 for a, b in zip(stops, starts[1:], strict=False)), length]
    return [Part(*four) for four in zip(starts, stops, borders, borders[1:], strict=False)]


def see(image: Tensor, logits: Logits, options: Options) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and probabilities `(K, rows, columns)` of one part of the image after the other.

    `image` is `(3, H, W)` uint8 in its own size. With `size` the shorter side of a whole window is seen at so many
    pixels, with view=fit its longer one at most at `longest`. A part is seen at every scale of `options`, and mirrored
    too if asked; its probabilities are the mean over these views (Chen et al. 2017, section 4.1).
    """
    height, width = image.shape[-2:]
    side = options.tiles or max(height, width)
    zoom = options.size / min(height, width, side) if options.size else 1.0
    if options.view == "fit":
        zoom = min(zoom, options.fitted[1] / max(min(height, side), min(width, side)))
    for row, column in product(parts(height, side, options.overlap), parts(width, side, options.overlap)):
        window = image[:, row.start : row.stop, column.start : column.stop]
        found = _views(window, logits, options, zoom)
        own = found[
            :, row.first - row.start : row.last - row.start, column.first - column.start : column.last - column.start
        ]
        yield slice(row.first, row.last), slice(column.first, column.last), own


def _views(window: Tensor, logits: Logits, options: Options, zoom: float) -> Tensor:
    """Average the probabilities of all views, at the window's size."""
    height, width = window.shape[-2:]
    mean: Tensor | None = None
    views = list(product(options.scales or (1.0,), (False, True) if options.flips else (False,)))
    for scale, mirrored in views:
        size = scaled(height, width, zoom * scale)
        seen = window if size == [height, width] else exactly(window, size)
        found = logits(seen.flip(-1) if mirrored else seen)
        found = resized(found.flip(-1) if mirrored else found, height, width).softmax(0)
        mean = found if mean is None else mean.add_(found)
    assert mean is not None
    return mean.div_(len(views)) if len(views) > 1 else mean


def resized(logits: Tensor, height: int, width: int) -> Tensor:
    """Resize logits `(K, h, w)` to `(K, height, width)`, bilinear."""
    if logits.shape[-2:] == (height, width):
        return logits
    return F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def whole(found: Iterator[tuple[slice, slice, Tensor]], height: int, width: int) -> Tensor:
    """Join all parts into one `(K, H, W)`."""
    canvas: Tensor | None = None
    for rows, columns, own in found:
        if own.shape[-2:] == (height, width):
            return own
        canvas = torch.empty(len(own), height, width, dtype=own.dtype) if canvas is None else canvas
        canvas[:, rows, columns] = own.cpu()
    assert canvas is not None
    return canvas
