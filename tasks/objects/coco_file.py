"""COCO's JSON files, annotations and results, read strictly into columns: every problem at once, with file and object.

Format: cocodataset.org, "Data format" and "Results format".
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import msgspec
import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]  # integers that every JSON reader keeps exactly
Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NULL = msgspec.Raw(b"null")
_NOT_JSON = (b"-Infinity", b"Infinity", b"NaN")
LARGEST = 2**31 - 1  # pixels a side
MOST = 20  # problems of one kind that are listed


class _Image(msgspec.Struct, gc=False):
    id: Id
    width: Whole
    height: Whole
    file_name: str = ""


class _Category(msgspec.Struct):
    id: Id
    name: Annotated[str, msgspec.Meta(min_length=1)]


class _Annotation(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: Whole = 0
    segmentation: msgspec.Raw = NULL


class _Result(msgspec.Struct, gc=False):
    image_id: Whole
    category_id: Whole
    score: float
    bbox: tuple[float, float, float, float] | None = None
    segmentation: msgspec.Raw = NULL


@dataclass
class Images:
    """The pictures of a file, a row each: `ids`, `widths`, `heights` int64 `(N,)`, and their file names."""

    ids: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    names: list[str]


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Objects:
    """Annotations or results, a row each; `boxes` are `(N, 4)` float64: x, y, width, height in pixels.

    `segmentation` is each one's JSON as bytes, where it was asked for. `ids`, `area` and `crowd` are an annotation's,
    `scores` a result's, and empty elsewhere.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    segmentation: list[msgspec.Raw] | None = None
    ids: np.ndarray = field(default_factory=_none)
    area: np.ndarray = field(default_factory=_none)
    crowd: np.ndarray = field(default_factory=_none)
    scores: np.ndarray = field(default_factory=_none)
    file: str = ""

    def __len__(self) -> int:
        return len(self.image_ids)

    def at(self, rows: np.ndarray) -> "Objects":
        """Select rows, by indices or a mask."""
        at = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {k: v[at] for k, v in vars(self).items() if isinstance(v, np.ndarray) and len(v) == len(self)}
        given = None if self.segmentation is None else [self.segmentation[i] for i in at]
        return replace(self, **columns, segmentation=given)


@dataclass
class Truth:
    """An annotation file: its images, the names of its categories by id, in the file's order, and its objects."""

    file: str
    images: Images
    categories: dict[int, str]
    objects: Objects
    warnings: list[str]


class Problems(list[str]):
    """What is wrong with a file; of one kind only the first MOST are kept."""

    def __init__(self, file: str | os.PathLike[str]):
        super().__init__()
        self.file = os.fspath(file)

    def some(self, rows: Iterable[int], say: Callable[[int], str]) -> None:
        """Add a line for each row, up to MOST, and then how many more there are."""
        found = list(rows)
        self += [say(i) for i in found[:MOST]]
        if len(found) > MOST:
            self.append(f"… and {len(found) - MOST} more like the last")

    def stop(self) -> None:
        """Raise DataError if there are any."""
        if self:
            raise DataError("\n".join(f"{self.file}: {line}" for line in self))


def read_truth(file: str | os.PathLike[str], masks: bool = False) -> Truth:
    """Read an annotation file. With `masks`, segmentations are kept as JSON, not yet checked.

    If an annotation has the id 0 (which pycocotools takes for "no match"), all are numbered anew from 1, with a
    warning. Raises DataError with every problem: structure, double ids, unknown images and categories, negative sizes.
    """
    document = _document(file)
    problems = Problems(file)
    for name in ("images", "annotations", "categories"):
        if name not in document:
            problems.append(f"has no {name!r}; expected COCO's annotation format (images, annotations, categories)")
    problems.stop()
    images = _rows(document["images"], _Image, "images", problems)
    categories = _rows(document["categories"], _Category, "categories", problems)
    found = _rows(document["annotations"], _Annotation, "annotations", problems)
    problems.stop()
    del document
    pictures = Images(
        _column(images, "id"), _column(images, "width"), _column(images, "height"), [i.file_name for i in images]
    )
    objects = Objects(
        _column(found, "image_id"), _column(found, "category_id"), _boxes(found),
        [a.segmentation for a in found] if masks else None, _column(found, "id"),
        _column(found, "area", np.float64), _column(found, "iscrowd"), file=os.fspath(file),
    )  # fmt: skip
    truth = Truth(os.fspath(file), pictures, {c.id: c.name for c in categories}, objects, [])
    _check_truth(truth, [c.id for c in categories], problems)
    problems.stop()
    if len(objects) and objects.ids.min() == 0:
        objects.ids = np.arange(1, len(objects) + 1)
        truth.warnings.append(
            f"{truth.file}: an annotation has the id 0, which pycocotools never matches: all are numbered from 1 here"
        )
    return truth


def _check_truth(truth: Truth, category_ids: list[int], problems: Problems) -> None:
    images, objects = truth.images, truth.objects
    ids = objects.ids
    problems.some(_repeated(images.ids), lambda i: f"images: the id {images.ids[i]} occurs more than once")
    problems.some(
        _repeated(np.array(category_ids, np.int64)),
        lambda i: f"categories: the id {category_ids[i]} occurs more than once",
    )
    problems.some(
        np.flatnonzero(
            (np.minimum(images.widths, images.heights) < 1) | (np.maximum(images.widths, images.heights) > LARGEST)
        ),
        lambda i: f"image {images.ids[i]} ({images.names[i]}): is {images.widths[i]} x {images.heights[i]} pixels",
    )
    problems.some(_repeated(ids), lambda i: f"annotations: the id {ids[i]} occurs more than once")
    problems.some(
        np.flatnonzero(~np.isin(objects.image_ids, images.ids)),
        lambda i: f"annotation {ids[i]}: image_id={objects.image_ids[i]} is not among the file's images",
    )
    problems.some(
        np.flatnonzero(~np.isin(objects.category_ids, category_ids)),
        lambda i: f"annotation {ids[i]}: category_id={objects.category_ids[i]} is not among the file's categories",
    )
    problems.some(
        np.flatnonzero((objects.boxes[:, 2:] < 0).any(1) | ~(np.abs(objects.boxes) <= LARGEST).all(1)),
        lambda i: f"annotation {ids[i]}: bbox={objects.boxes[i].tolist()}, expected pixels without negative sizes",
    )
    problems.some(
        np.flatnonzero(objects.area < 0), lambda i: f"annotation {ids[i]}: area={objects.area[i]}, expected 0 or more"
    )
    problems.some(
        np.flatnonzero((objects.crowd != 0) & (objects.crowd != 1)),
        lambda i: f"annotation {ids[i]}: iscrowd={objects.crowd[i]}, expected 0 or 1",
    )


def read_results(file: str | os.PathLike[str], truth: Truth, masks: bool = False) -> Objects:
    """Read a result file for that truth: boxes, or with `masks` segmentations (boxes are then ignored).

    Raises DataError with every problem: structure, a score that is no number, unknown images and categories.
    """
    problems = Problems(file)
    found = _rows(_bytes(file), _Result, "", problems)
    lacking = np.array([(r.segmentation == NULL) if masks else (r.bbox is None) for r in found], dtype=bool)
    problems.some(np.flatnonzero(lacking), lambda i: f"[{i}]: has no {'segmentation' if masks else 'bbox'!r}")
    problems.stop()
    objects = Objects(
        _column(found, "image_id"), _column(found, "category_id"),
        np.zeros((len(found), 4)) if masks else _boxes(found),
        [r.segmentation for r in found] if masks else None, scores=_column(found, "score", np.float64),
        file=os.fspath(file),
    )  # fmt: skip
    check_results(objects, truth, problems)
    problems.stop()
    return objects


def check_results(objects: Objects, truth: Truth, problems: Problems) -> None:
    """Check results against a truth, and add what is wrong to `problems`."""
    problems.some(
        np.flatnonzero(~np.isin(objects.image_ids, truth.images.ids)),
        lambda i: f"[{i}]: image_id={objects.image_ids[i]} is not among the images of {truth.file}",
    )
    problems.some(
        np.flatnonzero(~np.isin(objects.category_ids, list(truth.categories))),
        lambda i: f"[{i}]: category_id={objects.category_ids[i]} is not among the categories of {truth.file}",
    )
    problems.some(
        np.flatnonzero(~np.isfinite(objects.scores)), lambda i: f"[{i}]: score={objects.scores[i]}, expected a number"
    )
    problems.some(
        np.flatnonzero(~(np.abs(objects.boxes) <= LARGEST).all(1) | (objects.boxes[:, 2:] < 0).any(1)),
        lambda i: f"[{i}]: bbox={objects.boxes[i].tolist()}, expected x, y, width, height without negative sizes",
    )


def _bytes(file: str | os.PathLike[str]) -> bytearray:
    try:
        data = storage.read(file)
    except OSError as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({error.strerror or error})") from error
    data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark that some tools write
    if not data.strip():
        raise DataError(f"{os.fspath(file)}: is empty; expected COCO's JSON")
    return data


def _document(file: str | os.PathLike[str]) -> dict[str, msgspec.Raw]:
    data = _bytes(file)
    try:
        return _decoded(data, dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise DataError(f"{os.fspath(file)}: {_malformed(data, error)}") from None


def _decoded(data: bytearray, kind: Any) -> Any:
    """Decode JSON; NaN and Infinity, which Python writes and JSON does not have, become null."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        if isinstance(error, msgspec.ValidationError) or not any(word in data for word in _NOT_JSON):
            raise
    for word in _NOT_JSON:
        data = data.replace(word, b"null")
    return msgspec.json.decode(data, type=kind)


def _malformed(data: bytearray, error: Exception) -> str:
    said = "nested without end" if isinstance(error, RecursionError) else str(error)
    if "truncated" in said:
        return f"is cut off after {len(data):,} bytes"
    return f"is no JSON as COCO has it ({said.removeprefix('JSON is ')})"


def _rows(data: msgspec.Raw | bytearray, kind: Any, name: str, problems: Problems) -> list[Any]:
    """Decode a list of structs; where that fails, add to `problems` what is wrong with which element."""
    try:
        return msgspec.json.decode(data, type=list[kind])
    except UNREADABLE:
        pass
    try:
        each = _decoded(raw := bytearray(data), list[msgspec.Raw])
    except msgspec.ValidationError:
        problems.append(
            f"{name or 'the file'}: expected a list, as COCO's {'results' if not name else 'annotations'} are"
        )
        return []
    except UNREADABLE as error:
        problems.append(_malformed(raw, error))
        return []
    found, wrong = [], []
    for at, one in enumerate(each):
        try:
            found.append(msgspec.json.decode(one, type=kind))
        except UNREADABLE as error:
            wrong.append(_of_one(name, at, one, str(error)))
    problems.some(range(len(wrong)), lambda i: wrong[i])
    return [] if wrong else found


def _of_one(name: str, at: int, one: msgspec.Raw, said: str) -> str:
    what, _, where = said.partition(" - at `$")
    try:
        fields = msgspec.json.decode(one)
    except UNREADABLE:
        fields = None
    fields = fields if isinstance(fields, dict) else {}
    where = where.rstrip("`").lstrip(".")
    field = where.partition("[")[0]
    given = f"{field}={fields[field]!r}: " if field in fields else f"{where}: " if where else ""
    of = f" (id {fields['id']})" if name and "id" in fields else ""
    null = " (null or not a number)" if "null" in what else ""
    return f"{name}[{at}]{of}: {given}{what[:1].lower()}{what[1:]}{null}"


def _column(found: list[Any], name: str, dtype: Any = np.int64) -> np.ndarray:
    return np.fromiter((getattr(row, name) for row in found), dtype, len(found))


def _boxes(found: list[Any]) -> np.ndarray:
    return np.array([row.bbox for row in found], np.float64).reshape(-1, 4)


def _repeated(ids: np.ndarray) -> np.ndarray:
    """Find the rows whose id stands in an earlier row."""
    _, first = np.unique(ids, return_index=True)
    again = np.ones(len(ids), bool)
    again[first] = False
    return np.flatnonzero(again)
