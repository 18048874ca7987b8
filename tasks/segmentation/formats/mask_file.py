"""A mask file's pixels as numbers or colours, whatever it stores them in: what has one meaning is read, the rest refused."""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from trunkline.ground.errors import DataError

from ...images.decode import MAX_PIXELS, check_png, load

FORMATS = ("PNG", "BMP", "TIFF", "GIF")
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes with one number a pixel
_COPIED = {"LA": "grey with an alpha channel", "RGB": "grey copied into RGB", "RGBA": "grey copied into RGBA"}
_PHOTOMETRIC, _BITS = 262, 258  # TIFF's tags
_WHITE_IS_ZERO = 0
STRETCHED = "write the numbers of classes, 0 to 255, in 8 bits"


@dataclass(frozen=True)
class Stored:
    """What a file stores for each pixel, `(H, W)` uint8 or int32; `form` names an unusual way of storing numbers.

    Colours are red << 16 | green << 8 | blue. `palette` has the colours of a palette file's indices, `(n, 3)` uint8.
    """

    pixels: np.ndarray
    form: str = ""
    palette: np.ndarray | None = None


def read_pixels(data: bytes, coloured: bool) -> Stored:
    """Read a picture file's bytes as colours, or as numbers: an index counts, not its colour.

    Numbers may be stored as grey copied into several channels, with one alpha for all, and as floats that are whole.
    Raises DataError, without a file's name, for a damaged file and for pixels that could mean several things.
    """
    if not data:
        raise DataError("the file is empty")
    if data[:2] == b"\xff\xd8":
        raise DataError("is a JPEG, which changes colours and numbers: masks are PNG files")
    try:
        if data[:4] == b"\x89PNG":
            check_png(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check(image, data)
                load(image)
                return _colours(image) if coloured else _numbers(image, data)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is no picture of a format of masks (PNG, BMP, TIFF, GIF), or its head is damaged") from None
    except Exception as error:  # Pillow's readers raise a dozen kinds
        raise DataError(f"is no picture, or damaged ({str(error)[:120]})") from None


def has_colours(data: bytes) -> bool:
    """Say whether a picture file's head says three colour channels; False where it is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.mode in ("RGB", "RGBA")
    except Exception:  # read_pixels says what is wrong
        return False


def _check(image: Image.Image, data: bytes) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise DataError(f"it has {pages} pictures in one file; expected one mask: save it by itself")
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataError(
            "its TIFF says that 0 is white (PhotometricInterpretation 0): programs disagree on which number a pixel has "
            "then; save it as PNG, or with 0 as black"
        )
    bits = max(tags.get(_BITS, (8,))) if tags else data[24] if image.format == "PNG" else 8
    if bits > 8 and image.mode in _COPIED:
        raise DataError(
            f"has {bits} bits in each of several channels, of which 8 would be lost; {STRETCHED}, one channel"
        )


def _colours(image: Image.Image) -> Stored:
    if image.mode in ("I", "F", "I;16", "I;16L", "I;16B", "I;16N"):
        raise DataError("its pixels are numbers of many bits; expected the colours that are named with the classes")
    form = ""
    if image.mode in ("LA", "RGBA", "PA"):
        _one_alpha(image)
        form = "colours with an alpha channel"
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    return Stored((red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue, form)


def _numbers(image: Image.Image, data: bytes) -> Stored:
    mode = image.mode
    if mode == "F":
        return Stored(_whole(np.asarray(image)), "whole numbers stored as floats")
    if mode in _COPIED:
        return Stored(_grey(image), _COPIED[mode])
    if mode not in _NUMBERS:
        raise DataError(f"its pixels are {mode}; expected the number of a class each: {STRETCHED}")
    if mode == "1":  # whose memory holds 0 and 255
        return Stored((np.asarray(image.convert("L")) > 0).view(np.uint8))
    numbers = np.asarray(image)
    if image.format == "PNG" and data[25] == 0 and data[24] in (2, 4):  # Pillow stretched them to 0..255
        numbers = numbers // (255 // (2 ** data[24] - 1))
    palette = None
    if mode == "P" and (colours := image.getpalette("RGB")):
        palette = np.array(colours, np.uint8).reshape(-1, 3)
    if numbers.dtype != np.uint8:
        numbers = numbers.astype(np.int32)
        _refuse_stretched(numbers)
    return Stored(numbers, "", palette)


def _one_alpha(image: Image.Image) -> None:
    alpha = np.asarray(image.getchannel("A"))
    if alpha.size and alpha.min() != alpha.max():
        raise DataError(
            f"its alpha channel varies ({alpha.min()} to {alpha.max()}), and could say where there is no class; save it "
            "without one, with the number 255 in pixels of no class"
        )


def _grey(image: Image.Image) -> np.ndarray:
    """Read grey that was copied into several channels, with at most one alpha."""
    if "A" in image.getbands():
        _one_alpha(image)
    if image.mode == "LA":
        return np.asarray(image.getchannel("L"))
    red, green, blue = (np.asarray(image.getchannel(band)) for band in "RGB")
    if not (np.array_equal(red, green) and np.array_equal(green, blue)):
        raise DataError(
            f"its pixels are colours ({image.mode}); expected the number of a class each, or colours that are named with the "
            "classes: a line `128 64 128 road` for each in classes.txt"
        )
    return red


def _whole(floats: np.ndarray) -> np.ndarray:
    if not np.isfinite(floats).all():
        raise DataError(
            f"{int((~np.isfinite(floats)).sum()):,} of its pixels are NaN or infinite; {STRETCHED}, 255 where there is none"
        )
    if (floats != np.rint(floats)).any() or np.abs(floats).max(initial=0) >= 2**24:
        raise DataError(f"its pixels are fractions; expected whole numbers: {STRETCHED}")
    numbers = floats.astype(np.int32)
    _refuse_stretched(numbers)
    return numbers


def _refuse_stretched(numbers: np.ndarray) -> None:
    if numbers.size and numbers.max() == 65535 and not ((numbers != 0) & (numbers != 65535)).any():
        raise DataError(f"its pixels are 0 and 65535, black and white of 16 bits; {STRETCHED}")
