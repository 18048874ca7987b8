"""Tables of labels: CSV and JSON lines, whose columns are known by their names.

A row has a picture's file and a label, for objects also a box. A box is `xmin, ymin, xmax, ymax` or `x1, y1, x2, y2`
(corners), or `x, y, width, height`; all in pixels from 0, where the right and lower edges lie behind the last pixel. With
corners, columns `width` and `height` are the picture's sides.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError
from trunkline.ground.names import nearest

from ...data.repairs import Repairs
from ...data.table_rows import SUFFIX, header, records
from ...data.words import WORDS
from ..names import Alike, readings
from ..voc_file import WORDS as WORDS_OF_FLAGS
from .labelled import Box, Wrong

FILE = ("file", "file_name", "filename", "image", "image_path", "path", "filepath", "video", "clip")
LABEL = ("label", "class", "class_name", "category", "category_name", "action")
SPLIT = ("split", "subset", "set", "partition")
CROWD = ("iscrowd", "is_crowd", "crowd", "isgroupof", "is_group_of")
SCORE = ("score", "confidence", "conf")
GROUP = ("group",)
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"),
           ("left", "top", "right", "bottom"))  # fmt: skip
SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
         ("left", "top", "width", "height"))  # fmt: skip
IN_ONE = ("box", "bbox", "bndbox", "bounding_box")  # four numbers whose order nothing says
SIZE = (("image_width", "image_height"), ("width", "height"))


@dataclass(frozen=True)
class Found:
    """The table of a split, and the data's folder; `only`: the words of a column `split` whose rows are meant.

    `own`: the words of the split that the table's name says; a column `split` must agree.
    """

    data: Path
    file: Path
    only: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """Which column says what, as a row's key; None or empty where there is none."""

    file: str
    label: str | None
    split: str | None
    score: str | None
    corners: tuple[str, ...]
    sides: tuple[str, ...]
    size: tuple[str, ...]
    group: str | None = None
    crowd: str | None = None
    unread: tuple[str, ...] = ()  # columns that would change what counts, and are not read


@dataclass
class Row:
    """One line: its place, the picture, the label, the box in pixels, a score, its sides (0: not said), whether a crowd."""

    line: int
    file: str
    label: str
    box: Box | None
    score: float | None
    size: tuple[int, int]
    split: str
    crowd: bool = False
    words: bool = False  # whether the crowd is written as a word
    group: str = ""


LabelOf = Callable[[dict[str, Any], Columns], str]


def find(data: str, split: str, given: tuple[str, ...] = ()) -> Found | None:
    """Find a split's table: `train.csv`, `train/_annotations.csv`, or the rows of one table whose column `split` says so."""
    if len(given) > 1:
        raise DataError(f"{split}={','.join(given)}: one table is read")
    root = Path(data)
    for name in given:
        if ".." in Path(name).parts or Path(name).is_absolute() or not (root / name).is_file():
            raise DataError(f"{split}={name}: expected a table ({', '.join(SUFFIX)}) below data={data}")
        return Found(root, root / name, own=WORDS[split])
    if named := _named(root, split):
        return Found(root, named[0], own=WORDS[split])
    tables = _tables(root)
    if len(tables) == 1 and (columns := columns_of(tables[0])).split:
        there = {row.split for row in rows_of(tables[0], columns, Wrong())}
        return Found(root, tables[0], WORDS[split]) if there & {*WORDS[split]} else None
    return None


def flat(data: str) -> Found | None:
    """Find the one table of a folder. Raises DataError where there are several."""
    tables = _tables(Path(data))
    if len(tables) > 1:
        names = ", ".join(file.name for file in tables[:5])
        raise DataError(f"{data}: several tables, {names}; call them train.csv and val.csv, or leave one")
    return Found(Path(data), tables[0]) if tables else None


def _named(root: Path, split: str) -> list[Path]:
    """List the tables whose place says that they are a split's. Raises DataError where there are several."""
    names = [f"{w}{end}" for w in WORDS[split] for end in ("", "/_annotations", "/metadata", "/labels")]
    files = [f"{root}/{name}{suffix}" for name in names for suffix in SUFFIX]
    found = [Path(file) for file in files if os.path.isfile(file)]  # noqa: PTH113
    if len(found) > 1:
        said = ", ".join(file.relative_to(root).as_posix() for file in found)
        raise DataError(f"{root}: several tables of {split}: {said}; leave one")
    return found


def _tables(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIX) if root.is_dir() else []


def placed(name: str, there: Collection[str], found: Found, repairs: Repairs, alike: Alike) -> str | None:
    """Find a row's picture below the data's folder: where `places` looks, or by a part of its name; None if nowhere.

    What is not there as it is written is looked for in other letters' case, too.
    """
    for reading, what in readings(name):
        if full := places(reading, there, found):
            repairs.add(f"file_name: {what}", "image", bool(what))
            return full[0]
    for reading, _ in readings(name):
        for full in _folders(reading, found):
            if own := alike.find(full, repairs):
                return own
    return None


def places(name: str, there: Collection[str], found: Found) -> list[str]:
    """List the pictures that a name may mean: in the data's folder, beside the table, in `images/`, in `train/` for train.csv."""
    return [full for full in _folders(name, found) if full in there]


def _folders(name: str, found: Found) -> list[str]:
    """List where `places` looks for a name."""
    beside, stem = found.file.parent.relative_to(found.data).as_posix(), found.file.stem
    folders = dict.fromkeys(("", "" if beside == "." else beside, "images", f"images/{stem}", stem))
    return [f"{folder}/{name}" if folder else name for folder in folders]


def columns_of(file: Path, group: str = "", labels: tuple[str, ...] = LABEL) -> Columns:
    """Find a table's columns by their names; `group` may name the one of groups, `labels` are the names of that of labels.

    Raises DataError where none is of files, or two say the same.
    """
    names = header(file, expected())
    low = {name.strip().lower().replace(" ", "_"): name for name in names}

    def one(words: tuple[str, ...], what: str) -> str | None:
        own = [w for w in words if w in low]
        if len(own) > 1:
            raise DataError(
                f"{file}: several columns of {what}: {', '.join(low[w] for w in own)}; leave one, or rename the other"
            )
        return low[own[0]] if own else None

    corners = next((group for group in CORNERS if all(w in low for w in group)), ())
    sides = () if corners else next((group for group in SIDES if all(w in low for w in group)), ())
    if corners and any(all(w in low for w in group) for group in (("x", "y"), ("bbox_x", "bbox_y"))):
        raise DataError(f"{file}: has {', '.join(corners)} and x, y: two kinds of boxes; leave one")
    if not (corners or sides) and (in_one := [low[w] for w in IN_ONE if w in low]):
        raise DataError(
            f"{file}: the four numbers of {', '.join(in_one)} may be xmin, ymin, xmax, ymax or x, y, width, height: write them "
            "in four columns of these names; where the labels are of whole pictures, leave the column out"
        )
    size = next((pair for pair in SIZE if all(w in low for w in pair) and not {*pair} & {*sides}), ())
    name = one(FILE, "files")
    if name is None:
        raise DataError(f"{file}: has no column of files; {expected()}")
    label, split, score = one(labels, "labels"), one(SPLIT, "splits"), one(SCORE, "scores")
    groups = (tuple(low[w] for w in words) for words in (corners, sides, size))
    named = low.get(group.strip().lower().replace(" ", "_")) if group else None
    unread = tuple(low[w] for w in ("difficult",) if w in low)
    return Columns(
        name,
        label,
        split,
        score,
        *groups,
        group=named or one(GROUP, "groups"),
        crowd=one(CROWD, "crowds"),
        unread=unread,
    )


def without_labels(file: Path) -> DataError:
    """Say that a table has no column of labels, and which of its columns may be meant."""
    names = header(file, expected())
    near = next((said for said in (nearest(name.strip().lower(), LABEL) for name in names) if said), "")
    return DataError(
        f"{file}: has no column of labels; expected one of {', '.join(LABEL)}, and has {', '.join(names)}{near}"
    )


def expected() -> str:
    """Say which columns a table should have."""
    return (
        "expected columns file and label, and of boxes xmin, ymin, xmax, ymax or x, y, width, height (in pixels); the first line "
        "names them"
    )


def rows_of(file: Path, columns: Columns, wrong: Wrong, label: LabelOf | None = None) -> Iterator[Row]:
    """Read a table's rows; add what is wrong with one to `wrong`.

    `label` gives a row's label by its cells, in place of `label_of`; it raises ValueError.
    """
    for line, said in records(file, wrong):
        try:
            yield _row(line, said, columns, label or label_of)
        except ValueError as error:
            wrong.append(f"{file}: line {line}: {error}")


def label_of(said: dict[str, Any], columns: Columns) -> str:
    """Return the text of the column of labels; "" where there is none. Raises ValueError where the cell is no text."""
    return _text(said, columns.label) if columns.label else ""


def _row(line: int, said: dict[str, Any], columns: Columns, label: LabelOf) -> Row:
    name = _text(said, columns.file)
    if not name:
        raise ValueError(f"{columns.file}: names no file")
    numbers = [_number(said, key) for key in columns.corners or columns.sides]
    box = None
    if any(v is not None for v in numbers):
        if any(v is None for v in numbers):
            raise ValueError(f"a box with {sum(v is None for v in numbers)} empty cells")
        x, y, a, b = (float(v) for v in numbers if v is not None)
        box = (x, y, a - x, b - y) if columns.corners else (x, y, a, b)
    width, height = (int(_number(said, key) or 0) for key in columns.size) if columns.size else (0, 0)
    score = _number(said, columns.score) if columns.score else None
    split = _text(said, columns.split).lower() if columns.split else ""
    crowd, words = _flag(said, columns.crowd) if columns.crowd else (False, False)
    group = _text(said, columns.group) if columns.group else ""
    return Row(line, name, label(said, columns), box, score, (width, height), split, crowd, words, group)


def _flag(said: dict[str, Any], key: str) -> tuple[bool, bool]:
    """Read a flag, and whether it is written as a word. Raises ValueError where it is none."""
    value = said.get(key)
    text = str(value).lower() if isinstance(value, bool) else _text(said, key).lower() or "0"
    if text not in WORDS_OF_FLAGS:
        raise ValueError(f"{key}={text!r}: expected 0 or 1 (or true, false, yes, no)")
    return WORDS_OF_FLAGS[text], text not in ("0", "1")


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if isinstance(value, dict | list | bool):
        raise ValueError(f"{key}={value!r}: expected text")
    return "" if value is None else str(value).strip()


def _number(said: dict[str, Any], key: str) -> float | None:
    text = _text(said, key)
    if not text:
        return None
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{key}={text!r}: expected a number")
    return value
