"""Pictures with what a classifier says of them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ...heads.classification import ClassPrediction
from ..contract import Sample
from ..images.drawing import INK, PAPER, Font, as_image, font_of, letterbox, shorten

_TRACK = (232, 234, 238)
BLUE, GREEN, RED = (58, 110, 190), (30, 132, 73), (196, 48, 43)
Colour = tuple[int, int, int]


def draw(sample: Sample, prediction: ClassPrediction, classes: Sequence[str], width: int = 320) -> Image.Image:
    """Draw the picture with its three likeliest classes as bars, `width` pixels wide.

    Where the sample has a `label`, the likeliest class is green if it is right. If it is wrong, it is red, and a line
    says the truth.
    """
    label = sample.targets.get("label")
    p = prediction.probabilities
    best: list[int] = np.argsort(-p, kind="stable")[:3].tolist()
    wrong = label is not None and int(label) != best[0]
    bars = [
        (classes[index], float(p[index]), BLUE if place or label is None else RED if wrong else GREEN)
        for place, index in enumerate(best)
    ]
    return page_of(sample.image, bars, [f"truth: {classes[int(label)]}"] if label is not None and wrong else [], width)


def page_of(
    image: Tensor, bars: Sequence[tuple[str, float, Colour]], lines: Sequence[str], width: int = 320
) -> Image.Image:
    """Draw a picture `(3, H, W)` with a bar for each name and share (0 to 1) below it, and lines in red."""
    size = max(10, width // 22)
    line, margin = size * 2, size // 2
    page = Image.new("RGB", (width, width * 3 // 4 + line * (len(bars) + len(lines)) + margin), PAPER)
    page.paste(letterbox(as_image(image), (width, width * 3 // 4)), (0, 0))
    pen, font = ImageDraw.Draw(page), font_of(size)
    top = width * 3 // 4 + margin
    for place, (name, share, colour) in enumerate(bars):
        _bar(pen, font, (margin, top + place * line, width - margin), name, share, colour)
    for place, text in enumerate(lines, len(bars)):
        pen.text((margin, top + place * line), shorten(text, font, width - 2 * margin), fill=RED, font=font)
    return page


def _bar(
    pen: ImageDraw.ImageDraw,
    font: Font,
    place: tuple[int, int, int],
    name: str,
    share: float,
    colour: Colour,
) -> None:
    left, top, right = place
    percent = f"{100 * share:.1f} %"
    room = right - left - font.getlength(percent) - 8
    pen.text((left, top), shorten(name, font, room), fill=colour, font=font)
    pen.text((right, top), percent, fill=INK, font=font, anchor="ra")
    height = max(3, int(font.getbbox("x")[3] / 4))
    below = top + int(font.getbbox("xg")[3]) + 2
    pen.rectangle((left, below, right, below + height - 1), fill=_TRACK)
    if share > 0:
        pen.rectangle((left, below, left + max(1, round((right - left) * share)) - 1, below + height - 1), fill=colour)
