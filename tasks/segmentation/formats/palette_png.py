"""Masks as palette PNGs, VOC's form: the pixel is the class's number, and anybody's viewer shows its colour."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .encoding import Colour


def palette_png(labels: np.ndarray, palette: Sequence[Colour]) -> bytes:
    """Write labels `(H, W)` uint8 as the bytes of a PNG with these colours; without one, 255 is nearly white, as in VOC's."""
    image = Image.fromarray(labels, "P")
    colours = [*palette, *[(0, 0, 0)] * (255 - len(palette)), (224, 224, 192)][:256]
    image.putpalette([channel for colour in colours for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
