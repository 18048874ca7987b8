"""Pictures with boxes, masks, names and scores."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...heads.boxes import BoxPrediction
from ..contract import Sample
from ..images.drawing import as_image, font_of
from ..objects.masks import to_bitmap
from .options import Options

LEAST = 0.5  # scores below it are not drawn, unless lower ones are asked for
_USUAL = Options().score
_SHADE = 0.45  # how much of a mask's colour covers the picture


def drawn(options: Options) -> float:
    """Return the lowest score that pictures show: `options.score`, or 0.5 where that has its default."""
    return LEAST if options.score == _USUAL else options.score


def colour_of(label: int) -> tuple[int, int, int]:
    """Choose the colour of a class, red, green and blue of 0 to 255; neighbours are far apart on the colour circle."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.618034) % 1.0, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    sample: Sample, prediction: BoxPrediction, classes: Sequence[str] | Mapping[int, str], least: float = LEAST
) -> Image.Image:
    """Draw the picture, in its own size, with the objects whose score is at least `least`.

    Masks are below, boxes above them, names on top. The prediction's boxes are in pixels of the sample's image.
    """
    page = as_image(sample.image)
    shown = [i for i in range(len(prediction.scores)) if prediction.scores[i] >= least][::-1]  # the best on top
    if prediction.codes is not None:
        page = _shaded(page, [(prediction.codes[i], int(prediction.labels[i])) for i in shown])
    pen = ImageDraw.Draw(page)
    side = min(page.size)
    font, thick = font_of(max(9, side // 40)), max(1, side // 240)
    for i in shown:
        colour = colour_of(int(prediction.labels[i]))
        x0, y0, x1, y1 = (float(v) for v in prediction.boxes[i])
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=thick)
        text = f"{classes[int(prediction.labels[i])]} {prediction.scores[i]:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        wide, high = right - left + 4, bottom - top + 4
        x = min(max(0.0, x0), max(0.0, page.width - wide))
        y = y0 - high if y0 >= high else min(y0, page.height - high)
        pen.rectangle((x, y, x + wide, y + high), fill=colour)
        pen.text((x + 2 - left, y + 2 - top), text, fill=_readable(colour), font=font)
    return page


def _shaded(page: Image.Image, masks: Sequence[tuple[dict, int]]) -> Image.Image:
    pixels = np.array(page, np.float32)
    for code, label in masks:
        inside = to_bitmap(code, page.height, page.width).astype(bool)
        pixels[inside] = (1 - _SHADE) * pixels[inside] + _SHADE * np.array(colour_of(label), np.float32)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _readable(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if light > 140 else (255, 255, 255)
