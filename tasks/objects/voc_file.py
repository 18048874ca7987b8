"""PASCAL VOC's files: annotations in XML, image lists, and `comp4` detections; read strictly, nothing in them resolved.

Format: the VOC development kit, sections 8 and 9. Pixels are counted from 1, and boxes hold their last pixel.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

_NAME = re.compile(r"[^/\\\0]+")
_BOX = ("xmin", "ymin", "xmax", "ymax")
_LONGEST = 200  # bytes of a class name
_LARGEST = 2**31 - 1  # pixels


@dataclass
class VocObject:
    """A class, its box `(xmin, ymin, xmax, ymax)` as the file has it, and its flags."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False


@dataclass
class VocAnnotation:
    """One file: the image's name, its width and height, whether it has object masks, and its objects."""

    filename: str
    width: int
    height: int
    segmented: bool = False
    objects: list[VocObject] = field(default_factory=list)


def read_annotation(file: str | os.PathLike[str]) -> VocAnnotation:
    """Read an annotation file. Raises DataError, with the file's name, for anything that VOC's format does not allow.

    Entities and document types are refused, not resolved; a file name that leaves its folder is an error.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({error.strerror or error})") from None
    try:
        return parse_annotation(data)
    except DataError as error:
        raise DataError(f"{os.fspath(file)}: {error}") from None


def read_annotations(folder: Path, names: Sequence[str]) -> list[VocAnnotation]:
    """Read the annotation files of a list's images. Raises DataError with every file that is wrong, up to 20."""
    found: list[VocAnnotation] = []
    wrong: list[str] = []
    with progress() as shown:
        bar = shown.add_task("read annotations", total=len(names), unit="files", say="")
        for name in names:
            try:
                found.append(read_annotation(folder / f"{name}.xml"))
            except DataError as error:
                wrong.append(str(error))
            shown.advance(bar)
    if wrong:
        more = [f"… and {len(wrong) - 20} files more"] if len(wrong) > 20 else []
        raise DataError("\n".join(wrong[:20] + more))
    return found


def parse_annotation(data: bytes) -> VocAnnotation:
    """Parse a file's bytes as `read_annotation` does; its messages have no file's name."""
    root = _parse(data)
    if root.name != "annotation":
        raise DataError(f"<{root.name}> where <annotation> was expected")
    filename = root.text("filename", "")
    if filename and (not _NAME.fullmatch(filename) or filename in (".", "..")):
        raise DataError(f"filename={filename!r} is no plain name")
    size = root.one("size")
    if size is None:
        raise DataError("has no <size>")
    found = VocAnnotation(filename, size.whole("width"), size.whole("height"), root.text("segmented", "0") == "1")
    if found.width < 1 or found.height < 1:
        raise DataError(f"an image of {found.width} x {found.height} pixels")
    for number, element in enumerate(root.children):
        if element.name == "object":
            try:
                found.objects.append(_object(element))
            except DataError as error:
                before = sum(e.name == "object" for e in root.children[:number])
                raise DataError(f"object {before + 1} ({element.text('name', 'no name')}): {error}") from None
    return found


def _object(element: "_Element") -> VocObject:
    name = element.text("name")
    if not _NAME.fullmatch(name) or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise DataError(f"name={name!r} is no plain name of a class: VOC's result files are called after them")
    box = element.one("bndbox")
    if box is None:
        raise DataError("has no <bndbox>")
    sides = tuple(box.number(side) for side in _BOX)
    return VocObject(name, sides, element.flag("difficult"), element.flag("truncated"))  # type: ignore[arg-type]


def _number(text: str) -> float:
    """Convert text to a number; NaN where it is none, also for 1_0, which Python takes for 10."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


@dataclass
class _Element:
    name: str
    children: list["_Element"] = field(default_factory=list)
    characters: str = ""

    def one(self, name: str) -> "_Element | None":
        found = [c for c in self.children if c.name == name]
        if len(found) > 1:
            raise DataError(f"has <{name}> {len(found)} times")
        return found[0] if found else None

    def text(self, name: str, default: str | None = None) -> str:
        found = self.one(name)
        text = "" if found is None else found.characters.strip()
        if not text and default is None:
            raise DataError(f"has no <{name}>")
        return text or default or ""

    def number(self, name: str) -> float:
        text = self.text(name)
        value = _number(text)
        if not abs(value) <= _LARGEST:
            raise DataError(f"{name}={text!r} is no number of pixels")
        return value

    def whole(self, name: str) -> int:
        value = self.number(name)
        if value != int(value):
            raise DataError(f"{name}={value:g} is no whole number")
        return int(value)

    def flag(self, name: str) -> bool:
        text = self.text(name, "0")
        if text not in ("0", "1"):
            raise DataError(f"{name}={text!r}; expected 0 or 1")
        return text == "1"


def _parse(data: bytes) -> _Element:
    top = _Element("")
    stack = [top]

    def start(name: str, _: dict[str, str]) -> None:
        element = _Element(name)
        stack[-1].children.append(element)
        stack.append(element)
        if len(stack) > 32:
            raise DataError("elements within elements, more than 32 deep")

    def characters(text: str) -> None:
        stack[-1].characters += text

    def refuse(*_: object) -> None:
        raise DataError("declares a document type or entities, which are not read")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"is no XML ({error})") from None
    except (LookupError, ValueError) as error:
        raise DataError(f"is no XML ({error})") from None
    return top.children[0]


def read_list(file: str | os.PathLike[str]) -> list[str]:
    """Read the image names of a list, in order; a second column (1, 0, -1 of the class lists) is ignored.

    Raises DataError for a list that is empty, repeats a name, or has a line that is no plain name.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    names: list[str] = []
    wrong: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if (
            len(words) > 2
            or (len(words) == 2 and words[1] not in ("-1", "0", "1"))
            or not _NAME.fullmatch(words[0])
            or words[0] in (".", "..")
        ):
            wrong.append(f"line {number}: {line.strip()!r}; expected the name of an image, without spaces")
        elif words[0] in seen:
            wrong.append(f"line {number}: {words[0]} for the second time")
        else:
            seen.add(words[0])
            names.append(words[0])
    if not names and not wrong:
        wrong.append("names no image")
    if wrong:
        raise DataError("\n".join(f"{os.fspath(file)}: {w}" for w in wrong[:20]))
    return names


@dataclass
class Detections:
    """The detections of one class, a row each, in the file's order: `image` is an index into the list of names.

    `boxes` are `(N, 4)` float64 xmin, ymin, xmax, ymax, counted from 1, the last pixel within.
    """

    image: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


NONE = Detections(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))


def read_detections(file: str | os.PathLike[str], names: Sequence[str]) -> Detections:
    """Read a `comp4` file: image, score, xmin, ymin, xmax, ymax a line.

    Raises DataError with every wrong line, up to 20.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    index = {name: i for i, name in enumerate(names)}
    images: list[int] = []
    numbers: list[list[float]] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        row = [_number(word) for word in words[1:]]
        if len(row) != 5 or not all(map(math.isfinite, row)) or not all(abs(v) <= _LARGEST for v in row[1:]):
            wrong.append(f"line {number}: {line.strip()!r}; expected an image, a score, xmin, ymin, xmax, ymax")
        elif row[3] < row[1] - 1 or row[4] < row[2] - 1:
            wrong.append(f"line {number}: {line.strip()!r}; xmax is below xmin, or ymax below ymin")
        elif words[0] not in index:
            wrong.append(f"line {number}: the image {words[0]!r} is not on the list")
        else:
            images.append(index[words[0]])
            numbers.append(row)
    if wrong:
        more = [f"… and {len(wrong) - 20} lines more"] if len(wrong) > 20 else []
        raise DataError("\n".join(f"{os.fspath(file)}: {w}" for w in wrong[:20] + more))
    table = np.array(numbers, np.float64).reshape(-1, 5)
    return Detections(np.array(images, np.int64), table[:, 0], table[:, 1:])
