"""MATLAB's `imresize` with its bicubic kernel (a = -0.5, antialiased where it shrinks), in float64.

**The rule for integers.** Pictures of 8 and 16 bits are rounded after each of the two passes, as MATLAB does for its
integer types: clipped to the range of their numbers, and rounded to the nearest, halves upwards (all are 0 or more, so that
is away from zero). The dimension with the smaller factor goes first; of two equal ones the height. Rounding at the end
alone, or the width first, gives other numbers in one pixel of ten. A sum within 1e-9 of a half counts as the half: what is
left of it in float64 depends on the order of the terms.

The sums are made term by term in one order, so that they are the same bits on every machine.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np

from trunkline.ground.errors import DataError

Border = Literal["mirror", "replicate"]
_A = -0.5  # Keys's kernel, of third order
_HALF = 0.5 + 1e-9
_BAND = 2**20  # numbers that are made at a time where integers come out
_CACHED = 24_576  # numbers that are summed at a time: they stay in the processor's cache


def resized(pixels: np.ndarray, height: int, width: int, *, border: Border = "mirror") -> np.ndarray:
    """Resize a picture `(H, W)` or `(H, W, C)` to `height` x `width`: float64 in the same units, neither clipped nor rounded.

    Integers (uint8, uint16) are clipped and rounded between the two passes, as the rule above says: `to_integers` of the
    result is what MATLAB gives. Floats are not, and other kinds of numbers are refused. `border` says what lies beyond the
    edges: `mirror` (the edge's pixel is repeated first, as MATLAB does) or `replicate` (the edge's pixel again and again).
    Raises DataError for an empty picture or size. Source: Keys 1981; MATLAB's `imresize.m`.
    """
    _check(pixels, height, width)
    (first, size), (second, last) = _order(pixels, height, width)
    if pixels.dtype.kind == "u":
        return _along(_integers_along(pixels, first, size, border), second, last, border)
    return _along(_along(pixels, first, size, border), second, last, border)


def resized_integers(pixels: np.ndarray, height: int, width: int, *, border: Border = "mirror") -> np.ndarray:
    """Resize a picture of uint8 or uint16 as `to_integers(resized(…))` does, in bands: little memory beside both pictures.

    Raises DataError as `resized`, and for floats.
    """
    _check(pixels, height, width)
    if pixels.dtype.kind != "u":
        raise DataError(f"pixels of the kind {pixels.dtype} have no integers: expected uint8 or uint16")
    for axis, size in _order(pixels, height, width):
        pixels = _integers_along(pixels, axis, size, border)
    return pixels


def shrunk(pixels: np.ndarray, scale: int, border: Border = "mirror") -> np.ndarray:
    """Shrink a picture `(H, W)` or `(H, W, C)` by a whole number: integers come back as such (the rule above), floats as float64.

    Raises DataError for other kinds of numbers, and where a side is no multiple of the scale: the truth is to be cropped first,
    else the pixels of both pictures do not lie on each other.
    """
    _check_pixels(pixels)
    if not isinstance(scale, (int, np.integer)) or scale < 1:
        raise DataError(f"scale={scale}: expected a whole number from 1 on")
    height, width = pixels.shape[:2]
    if height % scale or width % scale:
        raise DataError(
            f"a picture of {width} x {height} pixels has a side that is no multiple of the scale {scale}: crop it to "
            f"{width - width % scale} x {height - height % scale} first"
        )
    resize = resized_integers if pixels.dtype.kind == "u" else resized
    return resize(pixels, height // scale, width // scale, border=border)


def to_integers(values: np.ndarray, bits: int) -> np.ndarray:
    """Clip values to 0..2^bits - 1 and round them, halves upwards: uint8 for 8 bits, uint16 for 16. NaN is refused.

    Raises DataError for NaN and for another number of bits.
    """
    if bits not in (8, 16):
        raise DataError(f"bits={bits}: expected 8 or 16")
    kind = np.uint8 if bits == 8 else np.uint16
    clipped = values.clip(0, 2**bits - 1)
    if values.dtype.kind == "f":
        if np.isnan(clipped.sum()):
            raise DataError("there are values that are not numbers (NaN): they have no integer")
        clipped += _HALF  # what is cut off next rounds it
    return clipped.astype(kind)


def _check_pixels(pixels: np.ndarray) -> None:
    if not isinstance(pixels, np.ndarray):
        raise DataError(f"{type(pixels).__name__}: expected a picture as an array of numpy, uint8, uint16 or floats")
    if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
        raise DataError(f"pixels of the kind {pixels.dtype} cannot be resized: expected uint8, uint16 or floats")
    if pixels.ndim not in (2, 3):
        raise DataError(f"pixels of the shape {pixels.shape} cannot be resized: expected (H, W) or (H, W, C)")


def _check(pixels: np.ndarray, height: int, width: int) -> None:
    _check_pixels(pixels)
    if min(*pixels.shape[:2], height, width) < 1:
        raise DataError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be made {width} x {height}")


def _order(pixels: np.ndarray, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the axes with their new sizes in the order of the passes."""
    down, along = (0, height), (1, width)
    return (down, along) if height / pixels.shape[0] <= width / pixels.shape[1] else (along, down)


def _integers_along(pixels: np.ndarray, axis: int, size: int, border: Border) -> np.ndarray:
    """Make one pass over integers, in bands of the other axis: integers of the same kind."""
    shape = list(pixels.shape)
    shape[axis] = size
    made = np.empty(shape, pixels.dtype)
    band = max(1, _BAND // (size * (pixels.size // (pixels.shape[0] * pixels.shape[1]))))
    for start in range(0, pixels.shape[1 - axis], band):
        here = (slice(None), slice(start, start + band)) if axis == 0 else slice(start, start + band)
        made[here] = to_integers(_along(pixels[here], axis, size, border), pixels.dtype.itemsize * 8)
    return made


def _along(values: np.ndarray, axis: int, size: int, border: Border) -> np.ndarray:
    """Resize along axis 0 or 1: float64, laid out afresh."""
    if axis == 1:
        return np.ascontiguousarray(_along(values.swapaxes(0, 1), 0, size, border).swapaxes(0, 1))
    rows = np.ascontiguousarray(values, dtype=np.float64).reshape(values.shape[0], -1)
    taps, weights = _taps(values.shape[0], size, border)
    total = np.zeros((size, rows.shape[1]))
    block = max(1, _CACHED // rows.shape[1])
    for start in range(0, size, block):
        here = slice(start, start + block)
        some = total[here]
        part = np.empty_like(some)
        for tap, weight in zip(taps[:, here], weights[:, here], strict=True):
            np.multiply(rows[tap], weight[:, None], out=part)
            some += part
    return total.reshape(size, *values.shape[1:])


@lru_cache(maxsize=64)
def _taps(before: int, after: int, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """List what each new pixel is made of: T indices of old ones and their weights, `(T, after)`, int64 and float64.

    The weights of a pixel sum to 1. New pixel i lies at (i + 0.5) / factor - 0.5 of the old ones; the kernel is stretched by
    1 / factor where the factor is below 1.
    """
    factor = after / before
    stretch = max(1.0, 1 / factor)
    centre = (np.arange(after) + 0.5) / factor - 0.5
    first = np.floor(centre - 2 * stretch).astype(np.int64)
    at = first + np.arange(int(np.ceil(4 * stretch)) + 2)[:, None]
    weights = _cubic((centre - at) / stretch)
    weights /= weights.sum(0)
    used = weights.any(1)
    return _inside(at[used], before, border), weights[used]


def _inside(at: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Bring indices beyond the edges back inside, by the border's convention."""
    if border == "replicate":
        return at.clip(0, size - 1)
    if border != "mirror":
        raise DataError(f"border={border}: expected mirror or replicate")
    around = at % (2 * size)
    return np.where(around < size, around, 2 * size - 1 - around)


def _cubic(x: Any) -> np.ndarray:
    """Evaluate Keys's cubic kernel, which is 0 from 2 on."""
    x = np.abs(x)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
