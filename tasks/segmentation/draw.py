"""Pictures with the class of every pixel in its colour, and a legend below."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ...heads.contract import VOID
from ..images.drawing import INK, PAPER, as_image, font_of, shorten
from .formats.encoding import Colour

_SHADE = 0.55  # how much of a class's colour covers the picture
_ENTRIES = 12  # most entries of a legend
_LEAST = 160  # pixels: the width that a legend needs


def draw(
    picture: Tensor | Image.Image, labels: np.ndarray, classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Draw the picture in its own size, its classes in their colours with dark edges between, and a legend below.

    `labels` is `(H, W)` of integers from 0, or 255 for no class; such pixels keep their colour. The legend names the
    classes found, the largest first, up to 12, each with its share of the pixels. A class whose colour is black, such
    as VOC's background, is not coloured.
    """
    page = shaded(picture, labels, palette)
    counts = np.bincount(labels.ravel(), minlength=VOID + 1)[: len(classes)]
    found = [int(n) for n in np.argsort(-counts, kind="stable") if counts[n]][:_ENTRIES]
    entries = [(palette[n], f"{classes[n]} {share_of(counts[n] / labels.size)}") for n in found]
    return _with_legend(page, entries)


def shaded(picture: Tensor | Image.Image, labels: np.ndarray, palette: Sequence[Colour]) -> Image.Image:
    """Draw the picture as `draw` does, without the legend."""
    pixels = np.asarray(as_image(picture), np.float32)
    colours = np.zeros((VOID + 1, 3), np.float32)
    colours[: len(palette)] = palette
    shade = np.zeros(VOID + 1, bool)
    shade[: len(palette)] = [any(colour) for colour in palette]
    mixed = np.where(shade[labels][..., None], (1 - _SHADE) * pixels + _SHADE * colours[labels], pixels)
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    mixed[edge] *= 0.3
    return Image.fromarray(mixed.round().astype(np.uint8))


def share_of(share: float) -> str:
    """Write a share in whole percent, and one below 1 % as "<1%" so that it does not read as zero."""
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _with_legend(page: Image.Image, entries: Sequence[tuple[Colour, str]]) -> Image.Image:
    if not entries:
        return page
    size, width = max(10, min(page.size) // 28), max(page.width, _LEAST)
    font, gap = font_of(size), size // 2
    lines: list[list[tuple[Colour, str, int]]] = [[]]
    left = gap
    for colour, text in entries:
        text = shorten(text, font, width - size - 3 * gap)
        wide = size + gap + int(font.getlength(text)) + 2 * gap
        if lines[-1] and left + wide > width:
            lines.append([])
            left = gap
        lines[-1].append((colour, text, left))
        left += wide
    row = size + gap
    result = Image.new("RGB", (width, page.height + gap + len(lines) * row), PAPER)
    result.paste(page)
    pen = ImageDraw.Draw(result)
    for number, line in enumerate(lines):
        y = page.height + gap + number * row
        for colour, text, x in line:
            pen.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline=INK)
            pen.text((x + size + gap, y + size // 2), text, fill=INK, font=font, anchor="lm")
    return result
