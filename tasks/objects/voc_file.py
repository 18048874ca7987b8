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
from xml.parsers import expat

import numpy as np

from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

from ..data.repairs import Repairs
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
        data = Path(file).read_bytes()
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
    if root.name != "annotation":
        raise DataError(f"<{root.name}> where <annotation> was expected")
    filename = PureWindowsPath(root.text("filename", "")).name  # whatever folders it had
    width, height = _size(root)
    found = VocAnnotation(filename, width, height, root.text("segmented", "0") == "1")
    for number, element in enumerate(root.children):
        if element.name == "object":
            try:
                found.objects.append(_object(element))
            except DataError as error:
                before = sum(e.name == "object" for e in root.children[:number])
                raise DataError(f"object {before + 1} ({element.text('name', 'no name')}): {error}") from None
            found.words += sum(text not in FLAGS for text in element.said if text)
    return found


def _size(root: "_Element") -> tuple[int, int]:
    """Read width and height; zeros where one of them is absent or 0, as some tools write what they do not know."""
    size = root.one("size")
    sides = [0 if size is None or not size.text(side, "") else size.whole(side) for side in ("width", "height")]
    if min(sides) < 0:
        raise DataError(f"an image of {sides[0]} x {sides[1]} pixels")
    return (sides[0], sides[1]) if min(sides) else (0, 0)


def _object(element: "_Element") -> VocObject:
    name = element.text("name")
    if not name.isprintable():
        raise DataError(f"name={name!r}: has characters that cannot be printed")
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
    said: tuple[str, ...] = ()  # its flags, as they are written

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
        self.said += (text,)
        if text.lower() not in WORDS:
            raise DataError(f"{name}={text!r}; expected 0 or 1 (or true, false, yes, no)")
        return WORDS[text.lower()]


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
    data = _decoded(data)
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
    try:
        data = Path(file).read_bytes()
        lines = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
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
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
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
