"""Pictures of 9 to 16 bits a channel: their numbers as they are stored, and the 8 bits that `depth=` makes of them.

Pillow reads grey of 16 bits whole, and of colours the upper 8 bits alone.
"""

import io
from functools import lru_cache
from typing import Any

import numpy
import torch
import torchvision.io  # noqa: F401 - registers torch.ops.image
from PIL import Image

from trunkline.ground.errors import DataError

from ..options import FULL
from .loading import exif_transpose, load

_SWAPPED = {f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA", "RGBX") for a, b in ("LB", "BL", "NB")}
"""Pillow's ways of taking a TIFF's upper byte, with the one that takes the lower: as if the other came first (N: on this
machine, which is little-endian)."""
_GREY = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I;12": 4095}  # the largest number of each
_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284  # TIFF's tags
_WHITE_IS_ZERO, _APART = 0, 2


def reduced(image: Image.Image, data: bytes | bytearray, bits: int, depth: str) -> numpy.ndarray:
    """Read an opened picture of more than 8 bits as `(H, W, 3)` uint8, upright.

    Raises DataError where `depth` is empty, saying both readings, and for kinds that are not read.
    """
    found = stored(image, data)
    if found is None:
        raise DataError(
            f"it has {bits} bits a channel where 8 are read, of a kind that depth= does not read: convert it to 8 bits, or save "
            "it as a PNG of 16 bits"
        )
    numbers, most = found
    if not depth:
        raise DataError(_both_readings(numbers, bits, most))
    low, high = (0, most) if depth == FULL else map(int, depth.split(":"))
    channels = numbers if numbers.shape[2] > 2 else numbers[:, :, :1].repeat(3, 2)
    return _table(low, high)[channels[:, :, :3]]


def _both_readings(numbers: numpy.ndarray, bits: int, most: int) -> str:
    low, high = int(numbers.min(initial=most)), int(numbers.max(initial=0))
    used = 2 ** max(9, high.bit_length()) - 1
    such = (0, used) if used < most else (low, high) if low < high else (0, most)
    return (
        f"it has {bits} bits a channel where 8 are read: give depth={FULL} (0 to {most} become 0 to 255), or depth=LOW:HIGH "
        f"(LOW to HIGH become 0 to 255, what is beyond them 0 and 255), such as depth={such[0]}:{such[1]}; its numbers are "
        f"{low} to {high}"
    )


@lru_cache(maxsize=8)
def _table(low: int, high: int) -> numpy.ndarray:
    """Tabulate clamping to `low`..`high` and mapping that to 0..255, rounded half to even, for all 16-bit numbers.

    The quotients are far enough from halves, or are halves, that float64 rounds as exact numbers would.
    """
    clamped = numpy.arange(65536).clip(low, high) - low
    return numpy.rint(clamped * 255 / (high - low)).astype(numpy.uint8)


def stored(image: Image.Image, data: bytes | bytearray) -> tuple[numpy.ndarray, int] | None:
    """Read the numbers `(H, W, C)` uint16, upright, with the largest that they can be; None for kinds that are not read."""
    if image.format == "PNG":
        return _of_png(image, data), 65535
    if image.format == "PPM":
        return _of_ppm(image, data)
    if image.format == "TIFF":
        return _of_tiff(image, data)
    return None


def _of_png(image: Image.Image, data: bytes | bytearray) -> numpy.ndarray:
    codes = torch.frombuffer(data, dtype=torch.uint8)
    unchanged = 0
    try:
        numbers = torch.ops.image.decode_png(codes, unchanged, False)
    except RuntimeError as error:
        raise DataError(f"the PNG is damaged ({str(error).splitlines()[0]})") from None
    planes = [exif_transpose(_with_exif(plane.numpy(), image)) for plane in numbers]
    return numpy.stack([numpy.array(plane) for plane in planes], 2)


def _with_exif(plane: numpy.ndarray, of: Image.Image) -> Image.Image:
    made = Image.fromarray(plane)
    made.getexif().update(of.getexif())
    return made


def _of_ppm(image: Image.Image, data: bytes | bytearray) -> tuple[numpy.ndarray, int] | None:
    """Read the numbers behind a binary file's head; Pillow stretches them to 16 bits where they count to less."""
    (tile,) = image.tile  # type: ignore[attr-defined]
    if tile.codec_name not in ("raw", "ppm"):  # written as text
        return None
    most = tile.args[-1] if isinstance(tile.args, tuple) and isinstance(tile.args[-1], int) else 65535
    count = image.width * image.height * len(image.getbands())
    if len(data) < tile.offset + 2 * count:
        raise DataError("the image is damaged or cut off (its pixels end too early)")
    numbers = numpy.frombuffer(data, ">u2", count, tile.offset).astype(numpy.uint16)
    return numbers.reshape(image.height, image.width, -1), int(most)


def _of_tiff(image: Image.Image, data: bytes | bytearray) -> tuple[numpy.ndarray, int] | None:
    tags, kinds = image.tag_v2, {tile.args[0] for tile in image.tile}  # type: ignore[attr-defined]
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO or tags.get(_PLANAR) == _APART or len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind in _GREY:
        return _loaded(image)[:, :, None].astype(numpy.uint16), _GREY[kind]
    if kind not in _SWAPPED or set(tags.get(_BITS, ())) != {16}:
        return None
    upper = _loaded(image).astype(numpy.uint16)
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as again:
        tiles: Any = again.tile  # type: ignore[attr-defined]
        again.tile = [tile._replace(args=(_SWAPPED[kind], *tile.args[1:])) for tile in tiles]  # type: ignore[attr-defined]
        return upper << 8 | _loaded(again), 65535


def _loaded(image: Image.Image) -> numpy.ndarray:
    load(image)
    return numpy.array(exif_transpose(image))
