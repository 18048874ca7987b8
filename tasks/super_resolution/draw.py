"""Pictures beside bicubic and beside their truth, zoomed to where they are farthest from it."""

import numpy as np
from PIL import Image, ImageDraw

from ..images.drawing import INK, PAPER, font_of
from .files import read_picture
from .resize import resized_integers

_CUT = 64  # pixels of the side of a zoomed square
_ZOOM = 3
_GAP = 6


def shown(pixels: np.ndarray) -> Image.Image:
    """Convert `(H, W, C)` uint8 or uint16 to a picture in RGB, 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 2 + 257) // 514).astype(np.uint8)  # by 257, rounded half up
    return Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2)))


def enlarged(pixels: np.ndarray, height: int, width: int) -> Image.Image:
    """Make a picture `(H, W, C)` larger by bicubic."""
    return shown(resized_integers(pixels, height, width))


def beside_bicubic(made: Image.Image, file: str) -> Image.Image:
    """Draw a picture that was made of a file beside what bicubic makes of it."""
    return row([("bicubic", enlarged(read_picture(file).pixels, made.height, made.width)), ("made", made)])


def halves(made: Image.Image, file: str) -> Image.Image:
    """Draw the middle of a picture: its left half by bicubic, its right half as it was made."""
    other = enlarged(read_picture(file).pixels, made.height, made.width)
    page = made.copy()
    page.paste(other.crop((0, 0, made.width // 2, made.height)), (0, 0))
    ImageDraw.Draw(page).line(
        (made.width // 2, 0, made.width // 2, made.height), fill=PAPER, width=max(1, made.width // 150)
    )
    return page


def row(cells: list[tuple[str, Image.Image]]) -> Image.Image:
    """Draw pictures in a row, each with a word above it."""
    size = max(11, min(cells[0][1].size) // 24)
    head = size + 2 * _GAP
    width = sum(picture.width for _, picture in cells) + _GAP * (len(cells) - 1)
    page = Image.new("RGB", (width, head + max(picture.height for _, picture in cells)), PAPER)
    pen, left = ImageDraw.Draw(page), 0
    for word, picture in cells:
        page.paste(picture, (left, head))
        pen.text((left + 2, _GAP), word, fill=INK, font=font_of(size))
        left += picture.width + _GAP
    return page


def against_truth(small: np.ndarray, made: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Draw the square in which `made` is farthest from `truth`, large: bicubic of `small`, what was made, the truth."""
    grey = truth.shape[2] == 1
    top, left = worst_square(made, truth)
    pictures = [enlarged(small[:, :, :1] if grey else small, *truth.shape[:2]), shown(made), shown(truth)]
    return row([(w, zoomed(p, top, left)) for w, p in zip(("bicubic", "made", "truth"), pictures, strict=True)])


def worst_square(made: np.ndarray, truth: np.ndarray, side: int = _CUT) -> tuple[int, int]:
    """Find the top and left of the square in which a picture `(H, W, C)` is farthest from its truth, in squared error."""
    height, width = truth.shape[:2]
    side = min(side, height, width)
    error = ((made.astype(np.float64) - truth) ** 2).sum(2)
    total = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    step = max(1, side // 8)
    sums = (total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side])[::step, ::step]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top) * step, int(left) * step


def zoomed(picture: Image.Image, top: int, left: int, side: int = _CUT) -> Image.Image:
    """Cut a square, and make its pixels visible."""
    side = min(side, *picture.size)
    return picture.crop((left, top, left + side, top + side)).resize(
        (side * _ZOOM, side * _ZOOM), Image.Resampling.NEAREST
    )
