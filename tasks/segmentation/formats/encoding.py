"""How mask files say classes: by numbers, with a palette or without, or by colours; read strictly."""

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, UnidentifiedImageError

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ....heads.contract import VOID
from ...images.decode import MAX_PIXELS, check_png, load
from .mat import read_mat

Colour = tuple[int, int, int]
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")  # Pillow's modes with one number a pixel
_LISTED = 5
_NAMED = 8  # colours that a message names
_AT_ONCE = 1 << 20  # pixels


@dataclass(frozen=True)
class Encoding:
    """`values` maps what a file stores to a class's number from 0, or 255 for void.

    Stored are whole numbers (an index, with or without a palette) or, where `coloured`, red << 16 | green << 8 | blue.
    `palette` has a colour for each class, for what is drawn and written.
    """

    classes: tuple[str, ...]
    values: Mapping[int, int] = field(repr=False)
    coloured: bool = False
    palette: tuple[Colour, ...] = ()

    @property
    def stored(self) -> tuple[int, ...]:
        """The number for each class in a file written for this data: the least of the data's own numbers.

        A class that the data lacks gets a free number. If the masks hold colours, or a number is above 254, the classes
        are numbered from 0 instead.
        """
        least: dict[int, int] = {}
        for value in sorted(self.values, reverse=True):
            least[self.values[value]] = value
        free = (n for n in range(VOID) if n not in self.values)
        found = tuple(least[n] if n in least else next(free, VOID) for n in range(len(self.classes)))
        return tuple(range(len(found))) if self.coloured or max(found) >= VOID else found

    def __post_init__(self) -> None:
        if not self.palette:
            object.__setattr__(self, "palette", tuple(voc_colour(n) for n in range(len(self.classes))))


def numbered(
    classes: tuple[str, ...], void: tuple[int, ...] = (VOID,), first: int = 0, palette: tuple[Colour, ...] = ()
) -> Encoding:
    """Build the encoding of classes stored as `first`, `first + 1`, …; the numbers in `void` mean no class."""
    values = {first + n: n for n in range(len(classes))} | dict.fromkeys(void, VOID)
    return Encoding(classes, values, palette=palette)


def voc_colour(number: int) -> Colour:
    """Compute VOC's colour for a number from 0 to 255: its bits, spread over red, green and blue (development kit)."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> channel & 1) << (7 - bit)
        number >>= 3
    return channels[0], channels[1], channels[2]


def read_mask(source: str | os.PathLike[str], encoding: Encoding) -> np.ndarray:
    """Read the classes of a mask file's pixels, `(H, W)` uint8 from 0, 255 for no class.

    Raises DataError, with the file's name, for a file that is missing, damaged or no mask, and for values or colours
    that the encoding lacks: which, and in how many pixels.
    """
    name = os.fspath(source)
    try:
        data = bytes(storage.read(source))
        stored = read_mat(data) if name.endswith(".mat") else _stored(data, encoding.coloured)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such mask") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None
    return _numbers(stored, encoding, name)


def _numbers(stored: np.ndarray, encoding: Encoding, name: str) -> np.ndarray:
    """Convert stored values to the numbers of classes, some rows at a time."""
    known = np.array(sorted(encoding.values), np.int64)
    numbers = np.array([encoding.values[k] for k in known.tolist()], np.uint8)
    result, wrong = np.empty(stored.shape, np.uint8), []
    rows = max(1, _AT_ONCE // stored.shape[1])
    for first in range(0, len(stored), rows):
        part = stored[first : first + rows]
        place = np.minimum(np.searchsorted(known, part), len(known) - 1)
        result[first : first + rows] = numbers[place]
        wrong.append(part[known[place] != part])
    unknown = np.concatenate(wrong)
    if unknown.size:
        raise DataError(f"{name}: {_unknown(unknown, encoding)}")
    return result


def _stored(data: bytes, coloured: bool) -> np.ndarray:
    """Read the pixels of a picture file, `(H, W)` uint8 or int32; a colour is red << 16 | green << 8 | blue."""
    if not data:
        raise DataError("the file is empty")
    if data[:2] == b"\xff\xd8":
        raise DataError("is a JPEG, which changes colours and numbers: masks are PNG files")
    try:
        if data[:4] == b"\x89PNG":
            check_png(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "BMP", "TIFF", "GIF")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS / 1e6:.0f} million"
                    )
                load(image)
                if coloured:
                    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
                    return (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue
                if image.mode == "F":
                    raise DataError("its pixels are fractions; expected whole numbers")
                if image.mode not in _NUMBERS:
                    raise DataError(
                        f"its pixels are colours ({image.mode}); expected the number of a class each, or colours that are "
                        "named with the classes"
                    )
                numbers = np.asarray(image)
                if image.format == "PNG" and data[25] == 0 and data[24] in (2, 4):  # Pillow stretched them to 0..255
                    return numbers // (255 // (2 ** data[24] - 1))
                return numbers if numbers.dtype == np.uint8 else numbers.astype(np.int32)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is no picture of a format of masks (PNG, BMP, TIFF, GIF), or its head is damaged") from None
    except Exception as error:  # Pillow's readers raise a dozen kinds
        raise DataError(f"is no picture, or damaged ({str(error)[:120]})") from None


def _unknown(values: np.ndarray, encoding: Encoding) -> str:
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [
        f"{_shown(int(found[i]), encoding.coloured)} in {int(counts[i]):,} pixel{'s' if counts[i] > 1 else ''}"
        for i in order[:_LISTED]
    ]
    more = f" and {len(order) - _LISTED} more" if len(order) > _LISTED else ""
    what = "colours that are no class's" if encoding.coloured else "values that are no class's"
    known = sorted(encoding.values)
    if encoding.coloured:
        names = [*encoding.classes, *["void"] * (VOID + 1 - len(encoding.classes))]
        named = [f"{_shown(value, True)} {names[encoding.values[value]]}" for value in known[:_NAMED]]
        allowed = ", ".join(named) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")
    else:
        allowed = _ranges(known)
    return f"{what}: {', '.join(shown)}{more}; expected {allowed}"


def _shown(value: int, coloured: bool) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if coloured else str(value)


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers as ranges: `0 to 20, 255`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)
