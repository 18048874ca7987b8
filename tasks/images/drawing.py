"""What drawings share: fonts that have letters, frames that keep proportions, text that fits, sheets of pictures."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trunkline.ground.errors import DataError

PAPER, INK = (255, 255, 255), (28, 30, 34)
_BACK = (22, 24, 28)  # behind a picture that does not fill its frame

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    cells: Sequence[tuple[Image.Image | Tensor, str | list[str]]], columns: int = 6, width: int = 200, title: str = ""
) -> Image.Image:
    """Draw pictures on one page, RGB, each with a caption of up to two lines, or of a list, a line for each of its texts.

    `width` is a cell's, in pixels.

    Pictures are Pillow's, or `(3, H, W)` or `(1, H, W)` uint8 tensors, of any size. Fewer than `columns` make a
    narrower page. Without pictures the page has only the title, or "no pictures".
    """
    size, gap = max(11, width // 15), max(6, width // 20)
    font = font_of(size)
    most = max((len(caption) for _, caption in cells if isinstance(caption, list)), default=0)
    height = width * 3 // 4 + size * 3 + max(0, most - 2) * (size + 3)
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    head = size * 2 if title or not cells else 0
    page = Image.new("RGB", (gap + columns * (width + gap), gap + head + rows * (height + gap)), PAPER)
    pen = ImageDraw.Draw(page)
    if head:
        pen.text((gap, gap), shorten(title or "no pictures", font, page.width - 2 * gap), fill=INK, font=font)
    for i, (picture, caption) in enumerate(cells):
        x, y = gap + i % columns * (width + gap), gap + head + i // columns * (height + gap)
        page.paste(letterbox(as_image(picture), (width, width * 3 // 4)), (x, y))
        for row, text in enumerate(_lines(caption, font, width)):
            pen.text((x, y + width * 3 // 4 + 3 + row * (size + 3)), text, fill=INK, font=font)
    return page


@cache
def font_of(size: int) -> Font:
    """Load the font file that TRUNKLINE_FONT names, else DejaVu Sans, matplotlib's, else Pillow's own font.

    DejaVu Sans has Latin, Greek and Cyrillic letters. Raises DataError where the named file is no font.
    """
    if named := os.environ.get("TRUNKLINE_FONT"):
        try:
            return ImageFont.truetype(named, size)
        except OSError as error:
            raise DataError(f"TRUNKLINE_FONT={named}: cannot be read as a font ({error})") from None
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size) if file.is_file() else ImageFont.load_default(size)


def as_image(picture: Image.Image | Tensor) -> Image.Image:
    """Convert a Pillow image of any mode, or a `(3, H, W)` or `(1, H, W)` uint8 tensor, to a Pillow image in RGB."""
    if isinstance(picture, Tensor):
        rows = picture.cpu().permute(1, 2, 0).numpy()
        picture = Image.fromarray(np.ascontiguousarray(rows[:, :, 0] if rows.shape[2] == 1 else rows))
    return picture.convert("RGB")


def letterbox(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Fit the whole picture into a frame of `size` (width, height), its proportions kept, the rest dark."""
    share = min(size[0] / picture.width, size[1] / picture.height)
    inner = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    frame = Image.new("RGB", size, _BACK)
    resized = picture.resize(inner, Image.Resampling.LANCZOS if share < 1 else Image.Resampling.BICUBIC)
    frame.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return frame


def shorten(text: str, font: Font, width: float, end: str = "") -> str:
    """Cut the text to one line of at most `width` pixels, with an ellipsis where it is cut. `end` follows it whole."""
    text = printable(text)
    if font.getlength(text + end) <= width:
        return text + end
    low, high = 0, len(text)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + "…" + end) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…" + end


def printable(text: str) -> str:
    """Put the text on one line, and replace what cannot be drawn (control codes, undecodable bytes) by "?"."""
    return "".join(c if c.isprintable() or c == "\xa0" else " " if c.isspace() else "?" for c in text)


def _lines(caption: str | list[str], font: Font, width: float) -> list[str]:
    if isinstance(caption, list):
        return [shorten(text, font, width) for text in caption]
    return _two_lines(printable(caption), font, width)


def _two_lines(text: str, font: Font, width: float) -> list[str]:
    words, first = text.split(" "), ""
    while words and font.getlength(f"{first} {words[0]}".strip()) <= width:
        first = f"{first} {words.pop(0)}".strip()
    if not words:
        return [first]
    last = words.pop() if len(words) > 1 and font.getlength(words[-1]) < width / 3 else ""  # a percentage, say
    second = shorten(" ".join(words), font, width, f" {last}" if last else "")
    return [first, second] if first else [second]
