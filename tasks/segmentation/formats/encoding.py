"""How mask files say classes: by numbers, with a palette or without, or by colours; read strictly."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import NOTHING

from ....heads.contract import VOID
from .mask_file import Stored, read_pixels
from .mat import read_mat

Colour = tuple[int, int, int]
_LISTED = 5
_NAMED = 8  # colours that a message names
_AT_ONCE = 1 << 20  # pixels


@dataclass(frozen=True)
class Encoding:
    """`values` maps what a file stores to a class's number from 0, or 255 for void.

    Stored are whole numbers (an index, with or without a palette) or, where `coloured`, red << 16 | green << 8 | blue.
    `palette` has a colour for each class, for what is drawn and written; `published` says that the format gives these
    colours, so that a file's palette must not give one of them to another class. `assumed`: that 255 is void, nothing
    says (`void.py` decides).
    """

    classes: tuple[str, ...]
    values: Mapping[int, int] = field(repr=False)
    coloured: bool = False
    palette: tuple[Colour, ...] = ()
    published: bool = False
    assumed: bool = False

    @property
    def stored(self) -> tuple[int, ...]:
        """The number for each class in a file written for this data: the least of the data's own numbers.

        A class that the data lacks gets a free number. If the masks hold colours, or a number is above 255, the classes
        are numbered from 0 instead.
        """
        least: dict[int, int] = {}
        for value in sorted(self.values, reverse=True):
            least[self.values[value]] = value
        free = (n for n in range(VOID) if n not in self.values)
        found = tuple(least[n] if n in least else next(free, VOID + 1) for n in range(len(self.classes)))
        return tuple(range(len(found))) if self.coloured or max(found) > VOID else found

    def __post_init__(self) -> None:
        if not self.palette:
            object.__setattr__(self, "palette", tuple(voc_colour(n) for n in range(len(self.classes))))


def numbered(
    classes: tuple[str, ...], void: tuple[int, ...] = (VOID,), first: int = 0, palette: tuple[Colour, ...] = (),
    published: bool = False,
) -> Encoding:  # fmt: skip
    """Build the encoding of classes stored as `first`, `first + 1`, …; the numbers in `void` mean no class."""
    values = {first + n: n for n in range(len(classes))} | dict.fromkeys(void, VOID)
    return Encoding(classes, values, palette=palette, published=published)


def with_void(encoding: Encoding, void: Sequence[int]) -> Encoding:
    """Declare numbers that mean no class. Raises DataError for those of a class, and where masks hold colours."""
    if encoding.coloured:
        raise DataError("void=: these masks hold colours; name the colour `void` in classes.txt")
    wrong = [
        f"void={v}: is {encoding.classes[n]}, by classes.txt" if n is not None else f"void={v}: expected 0 to 65535"
        for v in void
        if (n := encoding.values.get(v)) not in (None, VOID) or not 0 <= v <= 65535
    ]
    if wrong:
        raise DataError("\n".join(wrong))
    return replace(
        encoding, values={**encoding.values, **dict.fromkeys(void, VOID)}, assumed=encoding.assumed and VOID not in void
    )


def voc_colour(number: int) -> Colour:
    """Compute VOC's colour for a number from 0 to 255: its bits, spread over red, green and blue (development kit)."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> channel & 1) << (7 - bit)
        number >>= 3
    return channels[0], channels[1], channels[2]


@dataclass(frozen=True)
class Mask:
    """A file's classes `(H, W)` uint8 from 0, 255 for no class; what it stores, and how, as in `Stored`."""

    labels: np.ndarray
    stored: Stored


def read_mask(source: str | os.PathLike[str], encoding: Encoding) -> np.ndarray:
    """Read the classes of a mask file's pixels, `(H, W)` uint8 from 0, 255 for no class.

    Raises DataError, with the file's name, for a file that is missing, damaged or no mask, and for values or colours
    that the encoding lacks: which, and in how many pixels.
    """
    return look_at(source, encoding).labels


def look_at(source: str | os.PathLike[str], encoding: Encoding, ignored: np.ndarray | None = None) -> Mask:
    """Read a mask as `read_mask` does, and keep what its file stores.

    Pixels where `ignored` `(H, W)` bool is true may have any value; they are 255 then.
    """
    name = os.fspath(source)
    with named(name):
        data = bytes(storage.read(source))
        stored = Stored(read_mat(data)) if name.endswith(".mat") else read_pixels(data, encoding.coloured)
        labels = labels_of(stored.pixels, encoding, ignored)
        if stored.palette is not None and encoding.published:
            _check_colours(stored, encoding)
    return Mask(labels, stored)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{name}: {NOTHING if os.path.islink(name) else 'there is no such mask'}") from None  # noqa: PTH114
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None


def labels_of(stored: np.ndarray, encoding: Encoding, ignored: np.ndarray | None = None) -> np.ndarray:
    """Convert stored values to the numbers of classes, 255 where `ignored`; without a file's name in what is raised."""
    if ignored is None or ignored.shape != stored.shape:
        return _numbers(stored, encoding)
    kept = min(encoding.values)
    wide = stored if kept < 256 else stored.astype(np.int32)
    labels = _numbers(np.where(ignored, kept, wide), encoding)
    labels[ignored] = VOID
    return labels


def _check_colours(stored: Stored, encoding: Encoding) -> None:
    """Raise DataError where the palette gives a number that occurs the colour of another class; black says nothing."""
    assert stored.palette is not None
    colour_of = {colour: n for n, colour in enumerate(encoding.palette) if colour != (0, 0, 0)}
    wrong = {
        value: colour_of[colour]
        for value, colour in enumerate(map(tuple, stored.palette.tolist()))
        if colour in colour_of and colour_of[colour] != encoding.values.get(value, VOID)
    }
    used = [value for value in wrong if (stored.pixels == value).any()]
    if used:
        number = encoding.values.get(used[0], VOID)
        own = encoding.classes[number] if number < VOID else "no class"
        raise DataError(
            f"its palette gives {used[0]} ({own}) the colour of {encoding.classes[wrong[used[0]]]}: by its numbers it says "
            "one thing and by its colours another; save the masks again as numbers without a palette, or with the data's own"
        )


def check_agrees(first: tuple[str, np.ndarray] | None, file: str, other: Stored) -> None:
    """Raise DataError where a number occurs in a file and has another colour than in the first palette of its set.

    `first` is that palette, behind its file's name.
    """
    if first is None or other.palette is None or np.array_equal(first[1], other.palette):
        return
    name, palette = first
    both = min(len(palette), len(other.palette))
    for value in np.flatnonzero((palette[:both] != other.palette[:both]).any(1)).tolist():
        if (other.pixels == value).any():
            here, there = tuple(other.palette[value].tolist()), tuple(palette[value].tolist())
            raise DataError(
                f"{file}: palettes differ: {value} has the colour {here} here and {there} in {name}; the number may not be the "
                "same class's. Save all masks with one palette, or as numbers without"
            )


def check_not_swapped(first: tuple[str, np.ndarray] | None, file: str, other: Stored, numbers: Iterable[int]) -> None:
    """Raise DataError where a number in a file has the colour that another one of `numbers` has in the other side's palette."""
    if first is None or other.palette is None:
        return
    name, palette = first
    known = [n for n in numbers if n < min(len(palette), len(other.palette))]
    colours = {tuple(palette[n].tolist()): n for n in known}
    for value in known if len(colours) == len(known) else ():
        here = tuple(other.palette[value].tolist())
        if colours.get(here, value) != value and (other.pixels == value).any():
            raise DataError(
                f"{file}: {value} has the colour {here} here, which {colours[here]} has in {name}: the numbers may be swapped. "
                "Save both with one palette, or as numbers without"
            )


def _numbers(stored: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Convert stored values to the numbers of classes: from a table, or those of many bits some rows at a time."""
    if stored.dtype == np.uint8:
        table, raw = np.zeros(256, np.uint8), stored.tobytes()
        known_bytes = bytes(value for value in encoding.values if 0 <= value < 256)
        for value in known_bytes:
            table[value] = encoding.values[value]
        if raw.translate(None, known_bytes):  # bytes' own tables are five times as fast as numpy's
            raise DataError(_unknown(stored[~np.isin(stored, list(known_bytes))], encoding))
        return np.frombuffer(bytearray(raw.translate(table.tobytes())), np.uint8).reshape(stored.shape)
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
        raise DataError(_unknown(unknown, encoding))
    return result


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
