"""PASCAL VOC's files: annotations in XML, image lists, and `comp4` detections; nothing in them is resolved.

Format: the VOC development kit, sections 8 and 9. Pixels are counted from 1, and boxes hold their last pixel.
"""

import math
import os
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

from ..data.repairs import Repairs
from ..data.text import text_of
from ..images.suffixes import SUFFIXES as PICTURES

_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_ENCODINGS = {"gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5", "shift_jis": "cp932",
              "shift-jis": "cp932", "sjis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
              "windows-1252": "cp1252", "cp1252": "cp1252", "latin-1": "latin-1",
              "latin1": "latin-1"}  # fmt: skip
_NATIVE = ("utf-8", "utf8", "utf-16", "utf-16le", "utf-16be", "iso-8859-1", "us-ascii", "ascii")
"""Encodings that a file may declare: those that are rewritten as UTF-8, and those that expat knows."""
_SEPARATOR = re.compile(r"[/\\:]")
_UNFIT = re.compile(r'[%/\\:*?"<>|\x00-\x1f]|^\.')
WORDS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "no": False, "yes": True}
"""What `difficult` and `truncated` may be, in any case of letters."""
FLAGS = ("-1", "0", "1")  # of the class lists
SUFFIXES = (*sorted(PICTURES), ".xml")
_BOX = ("xmin", "ymin", "xmax", "ymax")
_SIZE = ("width", "height")
_FLAGS = ("difficult", "truncated")
_DEEPEST = 32
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
    """One file: the image's name, its width and height, whether it has object masks, and its objects.

    The sides are 0 where the file does not say them. `words` counts flags that are written as words.
    """

    filename: str
    width: int
    height: int
    segmented: bool = False
    objects: list[VocObject] = field(default_factory=list)
    words: int = 0


def read_annotation(file: str | os.PathLike[str]) -> VocAnnotation:
    """Read an annotation file. Raises DataError, with the file's name, for anything that VOC's format does not allow.

    Entities and document types are refused, not resolved.
    """
    try:
        data = bytes(storage.read(file))
    except OSError as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({error.strerror or error})") from None
    try:
        return parse_annotation(data)
    except DataError as error:
        raise DataError(f"{os.fspath(file)}: {error}") from None


def read_annotations(folder: Path, names: Sequence[str], repairs: Repairs | None = None) -> list[VocAnnotation]:
    """Read the annotation files of a list's images; count in `repairs` what was mended.

    Raises DataError with every file that is wrong, up to 20.
    """
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
    if repairs:
        repairs.add(
            "difficult and truncated: words (true, false, yes, no) taken as 1/0", "object", sum(a.words for a in found)
        )
        repairs.add("<size>: absent or 0, taken from the picture", "file", sum(not a.width for a in found))
    return found


def parse_annotation(data: bytes) -> VocAnnotation:
    """Parse a file's bytes as `read_annotation` does; its messages have no file's name."""
    root = _parse(data)
    if root.tag != "annotation":
        raise DataError(f"<{root.tag}> where <annotation> was expected")
    filename = _text(root, "filename", "").replace("\\", "/").rpartition("/")[2]  # whatever folders it had
    width, height = _size(root)
    found = VocAnnotation(filename, width, height, _text(root, "segmented", "0") == "1")
    for number, element in enumerate(root.findall("object"), 1):
        try:
            one, words = _object(element)
        except DataError as error:
            raise DataError(f"object {number} ({_name(element)}): {error}") from None
        found.objects.append(one)
        found.words += words
    return found


def _size(root: Element) -> tuple[int, int]:
    """Read width and height; zeros where one of them is absent or 0, as some tools write what they do not know."""
    size = _one(root, "size")
    width, height = (0 if size is None or not _text(size, side, "") else _whole(size, side) for side in _SIZE)
    if min(width, height) < 0:
        raise DataError(f"an image of {width} x {height} pixels")
    return (width, height) if min(width, height) else (0, 0)


def _object(element: Element) -> tuple[VocObject, int]:
    """Read an object, and how many of its flags are words."""
    name = _text(element, "name")
    if not name.isprintable():
        raise DataError(f"name={name!r}: has characters that cannot be printed")
    box = _one(element, "bndbox")
    if box is None:
        raise DataError("has no <bndbox>")
    x1, y1, x2, y2 = (_pixels(box, side) for side in _BOX)
    flags = [_text(element, flag, "0") for flag in _FLAGS]
    for flag, text in zip(_FLAGS, flags, strict=True):
        if text.lower() not in WORDS:
            raise DataError(f"{flag}={text!r}; expected 0 or 1 (or true, false, yes, no)")
    difficult, truncated = (WORDS[text.lower()] for text in flags)
    return VocObject(name, (x1, y1, x2, y2), difficult, truncated), sum(text not in FLAGS for text in flags)


def _name(element: Element) -> str:
    """Say an object's name in a message, whatever is wrong with it."""
    return next((_all_text(e) for e in element.findall("name") if _all_text(e)), "no name")


def _number(text: str) -> float:
    """Convert text to a number; NaN where it is none, also for 1_0, which Python takes for 10."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _one(element: Element, name: str) -> Element | None:
    found = element.findall(name)
    if len(found) > 1:
        raise DataError(f"has <{name}> {len(found)} times")
    return found[0] if found else None


def _text(element: Element, name: str, default: str | None = None) -> str:
    found = _one(element, name)
    text = "" if found is None else _all_text(found)
    if not text and default is None:
        raise DataError(f"has no <{name}>")
    return text or default or ""


def _all_text(element: Element) -> str:
    """Join an element's own text; what other elements within it hold does not belong to it."""
    text = element.text or ""
    return "".join([text, *(inner.tail or "" for inner in element)]).strip() if len(element) else text.strip()


def _pixels(element: Element, name: str) -> float:
    text = _text(element, name)
    value = _number(text)
    if not abs(value) <= _LARGEST:
        raise DataError(f"{name}={text!r} is no number of pixels")
    return value


def _whole(element: Element, name: str) -> int:
    value = _pixels(element, name)
    if value != int(value):
        raise DataError(f"{name}={value:g} is no whole number")
    return int(value)


def _parse(data: bytes) -> Element:
    """Build a file's tree: elements and text alone. Raises DataError for what else XML can hold that has an effect."""

    def refuse(*_: object) -> None:
        raise DataError("declares a document type or entities, which are not read")

    tree, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(_decoded(data), True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"is no XML ({error})") from None
    root = tree.close()
    level, depth = [root], 1
    while level := [inner for element in level for inner in element]:
        depth += 1
        if depth > _DEEPEST:
            raise DataError(f"elements within elements, more than {_DEEPEST} deep")
    return root


def _decoded(data: bytes) -> bytes:
    """Rewrite a file in an encoding that it declares and expat does not know as UTF-8."""
    declared = _ENCODING.match(data[:400])
    codec = _ENCODINGS.get(declared[1].decode().lower()) if declared else None
    if declared is None or declared[1].decode().lower() in _NATIVE:
        return data
    if codec is None:
        known = ", ".join(dict.fromkeys([*_NATIVE, *_ENCODINGS]))
        raise DataError(
            f"is no XML that is read: declares the encoding {declared[1].decode()}; expected one of {known}"
        )
    try:
        return data[declared.end() :].decode(codec).encode()
    except UnicodeDecodeError as error:
        raise DataError(f"declares the encoding {declared[1].decode()}, and is not in it ({error.reason})") from None


def read_list(
    file: str | os.PathLike[str], there: Callable[[str], bool] | None = None, repairs: Repairs | None = None
) -> list[str]:
    """Read the image names of a list, in order; a second column (1, 0, -1 of the class lists) is ignored.

    Names may have spaces. Folders and suffixes are left out, and counted in `repairs`. `there` says whether an image of
    a name is there: it decides whether a last 1, 0 or -1 belongs to a name. Raises DataError for a list that is empty,
    repeats a name, or has a line that is no name or could be two.
    """
    lines = text_of(file).splitlines()
    names: dict[str, None] = {}
    wrong: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, plain = _listed(line.strip(), there)
        if not name:
            wrong.append(f"line {number}: {line.strip()!r}; {plain}")
        elif name in names:
            wrong.append(f"line {number}: {name} for the second time")
        else:
            names[name] = None
            if repairs and plain != name:
                repairs.add("folders or suffixes in a list of names: left out", "line")
    if not names and not wrong:
        wrong.append("names no image")
    if wrong:
        raise DataError("\n".join(f"{os.fspath(file)}: {w}" for w in wrong[:20]))
    return [*names]


def _listed(line: str, there: Callable[[str], bool] | None) -> tuple[str, str]:
    """Read a line's name, and the name as it stands there; an empty name and the reason where there is none, or two."""
    words = line.split()
    given = [line]
    if len(words) > 1 and words[-1] in FLAGS:
        given = [line[: line.rindex(words[-1])].rstrip(), line]
        found = [one for one in given if there and there(_bare(one, there))]
        if len(found) == 2:
            names = " and ".join(repr(_bare(one, there)) for one in found)
            return "", f"there are images of both {names}: rename one, or write the line without {words[-1]}"
        given = found or given
    name = _bare(given[0], there)
    good = name not in ("", ".", "..") and "\0" not in name
    return (name, given[0]) if good else ("", "expected the name of an image")


def _bare(given: str, there: Callable[[str], bool] | None) -> str:
    """Take the folders off a name, and the suffix of a picture unless an image is called with it."""
    name = PureWindowsPath(given).name if _SEPARATOR.search(given) else given
    if not name.lower().endswith(SUFFIXES):
        return name
    stem = name.removesuffix(PureWindowsPath(name).suffix)
    return name if there and there(name) and not there(stem) else stem


def in_file_name(name: str) -> str:
    """Write a class's name so that a file can be called after it: %2F for a slash, %25 for a percent sign, and so on."""
    return _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", name)


def of_file_name(text: str, known: Container[str]) -> str:
    """Read the class of a result file's name: as it stands where it is known so, else as `in_file_name` wrote it."""
    return text if text in known else unquote(text)


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

    A box that ends before it begins stays as it is: it overlaps nothing, and is a false positive. Raises DataError with
    every wrong line, up to 20.
    """
    lines = text_of(file).splitlines()
    index = {name: i for i, name in enumerate(names)}
    images: list[int] = []
    numbers: list[list[float]] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.strip().rsplit(None, 5)  # an image's name may have spaces
        if not words:
            continue
        row = [_number(word) for word in words[1:]]
        if len(row) != 5 or not all(map(math.isfinite, row)):
            wrong.append(f"line {number}: {line.strip()!r}; expected an image, a score, xmin, ymin, xmax, ymax")
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
