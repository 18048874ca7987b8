"""COCO's files, annotations and results, as columns: every problem at once, with file and object, every repair counted.

Format: cocodataset.org, "Data format" and "Results format".
"""

import os
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from trunkline.ground.errors import DataError

from ..data.repairs import Repair, counted
from .coco_fill import extent, fill
from .coco_json import LARGEST_WHOLE, UNREADABLE, Problems, decoded, malformed, read_bytes, rows, rows_of

Whole = Annotated[int, msgspec.Meta(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
Id = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_WHOLE)]
NULL = msgspec.Raw(b"null")
LARGEST = 2**31 - 1  # pixels a side


class _Image(msgspec.Struct, gc=False):
    whole: ClassVar = ("id", "width", "height")
    text: ClassVar = ()
    optional: ClassVar = ()
    id: Id
    width: Whole | None = None
    height: Whole | None = None
    file_name: str = ""


class _Category(msgspec.Struct):
    whole: ClassVar = ("id",)
    text: ClassVar = ("name",)
    optional: ClassVar = ()
    id: Id
    name: Annotated[str, msgspec.Meta(min_length=1)]
    supercategory: Any = None


class _Annotation(msgspec.Struct, gc=False):
    whole: ClassVar = ("id", "image_id", "category_id", "iscrowd")
    text: ClassVar = ()
    optional: ClassVar = ("bbox",)
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: Whole = 0
    segmentation: msgspec.Raw = NULL


class _Result(msgspec.Struct, gc=False):
    whole: ClassVar = ("image_id", "category_id")
    text: ClassVar = ()
    optional: ClassVar = ("bbox",)
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
    `scores` a result's, and empty elsewhere; a result has an `area` where its box is that of its mask.
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
    remarks: list[str] = field(default_factory=list)  # what was mended in results, and what of them can only be false

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
    remarks: list[str] = field(default_factory=list)


def read_truth(file: str | os.PathLike[str], masks: bool = False) -> Truth:
    """Read an annotation file. With `masks`, segmentations are kept as JSON, not yet checked.

    If an annotation has the id 0 (which pycocotools takes for "no match"), all are numbered anew from 1, with a
    warning. Raises DataError with every problem: structure, double ids, unknown images and categories, negative sizes.
    """
    data, problems = read_bytes(file), Problems(file)
    document = _document(data, problems)
    del data
    for name in ("images", "annotations", "categories"):
        if name not in document:
            problems.append(f"has no {name!r}; expected COCO's annotation format (images, annotations, categories)")
    problems.stop()
    images = rows(document["images"], _Image, "images", problems)
    categories = rows(document["categories"], _Category, "categories", problems)
    found = rows(document["annotations"], _Annotation, "annotations", problems)
    problems.stop()
    del document
    pictures = _pictures(images, problems)
    fill(found, {i: (h, w) for i, h, w in zip(*_sizes(pictures), strict=True)}, problems)
    problems.stop()
    objects = Objects(
        _column(found, "image_id"), _column(found, "category_id"), _boxes(found),
        [a.segmentation for a in found] if masks else None, _column(found, "id"),
        _column(found, "area", np.float64), _column(found, "iscrowd"), file=os.fspath(file),
    )  # fmt: skip
    truth = Truth(os.fspath(file), pictures, {c.id: c.name for c in categories}, objects, [])
    _check_truth(truth, [c.id for c in categories], problems)
    problems.stop()
    truth.warnings += problems.repairs.lines()
    truth.remarks += _roots(categories, objects)
    if len(objects) and objects.ids.min() == 0:
        objects.ids = np.arange(1, len(objects) + 1)
        truth.warnings.append(
            Repair(
                f"{truth.file}: an annotation has the id 0, which pycocotools never matches: all are numbered from 1 here"
            )
        )
    return truth


def _roots(categories: list[_Category], objects: Objects) -> list[str]:
    """Remark categories without objects that are only the parent of others, as Roboflow's exports have one."""
    parents = {c.supercategory for c in categories if isinstance(c.supercategory, str)}
    used = set(np.unique(objects.category_ids).tolist())
    roots = [c.name for c in categories if c.name in parents and c.id not in used and c.supercategory != c.name]
    rest = ",".join(c.name for c in categories if c.name not in roots)
    said = "has no object and is only the parent of other categories; it is kept as a class. Without it"
    return [f"the category {name} {said}: categories={rest}" for name in roots]


def _pictures(images: list[_Image], problems: Problems) -> Images:
    """Put the images in columns; where one of width and height is absent or 0, neither is known, and both are 0."""
    widths, heights = (np.array([getattr(i, side) or 0 for i in images], np.int64) for side in ("width", "height"))
    unknown = (widths == 0) | (heights == 0)
    stated = sum(i.width is not None and i.height is not None for i in images)
    problems.repairs.add("width and height: 0, taken as not said", "image", int(unknown.sum()) - len(images) + stated)
    problems.repairs.add("width and height: absent", "image", len(images) - stated)
    widths[unknown], heights[unknown] = 0, 0
    return Images(_column(images, "id"), widths, heights, [i.file_name for i in images])


def _sizes(images: Images) -> tuple[list[int], list[int], list[int]]:
    return images.ids.tolist(), images.heights.tolist(), images.widths.tolist()


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
            (np.minimum(images.widths, images.heights) < 0) | (np.maximum(images.widths, images.heights) > LARGEST)
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


def _document(data: bytes, problems: Problems) -> dict[str, msgspec.Raw]:
    try:
        return decoded(data, dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise DataError(f"{problems.file}: {malformed(data, error)}") from None


def read_results(file: str | os.PathLike[str], truth: Truth, masks: bool = False) -> Objects:
    """Read a result file for that truth: boxes, or with `masks` segmentations (boxes are then ignored).

    The file is a list, an object whose `annotations` are the list, or has one result a line. What a detector got wrong
    stays: a box of any shape, and a category that the truth lacks, which no engine counts. `remarks` says how many
    there are. Raises DataError with every problem: structure, a score that is no number, unknown images, and a truth
    in the place of results.
    """
    problems = Problems(file)
    found = _results(read_bytes(file), problems)
    problems.stop()
    area = [] if masks else _fill_results(found, truth, problems)
    problems.stop()
    lacking = np.array([(r.segmentation == NULL) if masks else (r.bbox is None) for r in found], dtype=bool)
    problems.some(np.flatnonzero(lacking), lambda i: f"[{i}]: has no {'segmentation' if masks else 'bbox'!r}")
    problems.stop()
    objects = Objects(
        _column(found, "image_id"), _column(found, "category_id"),
        np.zeros((len(found), 4)) if masks else _boxes(found),
        [r.segmentation for r in found] if masks else None, scores=_column(found, "score", np.float64),
        area=np.array(area, np.float64), file=os.fspath(file),
    )  # fmt: skip
    check_results(objects, truth, problems)
    problems.stop()
    objects.remarks = problems.repairs.lines() + wrong_results(objects, truth)
    return objects


def _fill_results(found: list[_Result], truth: Truth, problems: Problems) -> list[float]:
    """Give each result the box of its mask where none has a box, and return the masks' areas, as `loadRes` does; else []."""
    if not found or any(r.bbox is not None or r.segmentation == NULL for r in found):
        return []
    sizes, areas = {i: (h, w) for i, h, w in zip(*_sizes(truth.images), strict=True)}, []
    for at, row in enumerate(found):
        known = extent(row.segmentation, *sizes.get(row.image_id, (0, 0)))
        row.bbox, area = known or ((0.0, 0.0, 0.0, 0.0), 0.0)
        areas.append(area)
        if known is None:
            problems.append(f"[{at}]: has no 'bbox', and no segmentation that would tell it")
    problems.repairs.add("bbox: absent, box and area of the mask taken, as pycocotools does", "result", len(found))
    return areas


def _results(data: bytes, problems: Problems) -> list[_Result]:
    """Find the list of results, and decode it."""
    start = data.lstrip()[:1]
    if start != b"{":
        return rows(data, _Result, "", problems)
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.strip()[:1] == b"{" and line.strip()[-1:] == b"}" for line in lines):
        try:
            each = [decoded(line, msgspec.Raw) for line in lines]
        except UNREADABLE as error:
            problems.append(malformed(data, error))
            return []
        problems.repairs.add("one result a line (jsonl), taken as a list", "result", len(each))
        return rows_of(each, _Result, "", problems)
    document = _document(data, problems)
    if "annotations" not in document:
        problems.append("expected a list, as COCO's results are, or an object with `annotations`")
        return []
    inner = document["annotations"]
    try:
        keys = decoded(bytes(inner), list[dict[str, msgspec.Raw]])
    except UNREADABLE as error:
        problems.append(malformed(bytes(inner), error))
        return []
    if keys and not any("score" in row for row in keys):
        problems.append("its annotations have no scores: it is a truth; expected a detector's results")
        return []
    problems.repairs.add("wrapped in an object, of which `annotations` are read", "result", len(keys))
    return rows(inner, _Result, "", problems)


def check_results(objects: Objects, truth: Truth, problems: Problems) -> None:
    """Check results against a truth, and add what is wrong to `problems`."""
    problems.some(
        np.flatnonzero(~np.isin(objects.image_ids, truth.images.ids)),
        lambda i: f"[{i}]: image_id={objects.image_ids[i]} is not among the images of {truth.file}",
    )
    problems.some(
        np.flatnonzero(~np.isfinite(objects.scores)), lambda i: f"[{i}]: score={objects.scores[i]}, expected a number"
    )
    finite = np.isfinite(objects.boxes)
    problems.some(
        np.flatnonzero([] if finite.all() else ~finite.all(1)),
        lambda i: f"[{i}]: bbox={objects.boxes[i].tolist()}, expected x, y, width, height",
    )


def wrong_results(objects: Objects, truth: Truth) -> list[str]:
    """Say in one line what of a detector's results can only be false, and is counted as the official tool counts it."""
    unknown = int((~np.isin(objects.category_ids, list(truth.categories))).sum())
    found = []
    if unknown:
        found.append(f"{counted(unknown, 'result')} of a category that the truth lacks, which are not scored")
    if objects.segmentation is None:
        _, _, width, height = objects.boxes.T
        negative, empty = (width < 0) | (height < 0), (width == 0) | (height == 0)
        if times := int(negative.sum()):
            found.append(f"{counted(times, 'box')} of negative width or height")
        if far := _outside(objects, truth):
            found.append(f"{counted(far, 'box')} outside the picture")
        if times := int((empty & ~negative).sum()):
            found.append(f"{counted(times, 'box')} without area")
    return [f"{objects.file}: {', '.join(found)}; counted as pycocotools counts them"] if found else []


def _outside(objects: Objects, truth: Truth) -> int:
    """Count the boxes with an area of which nothing lies in their picture, where its size is known."""
    images = truth.images
    known = (images.widths > 0) & (images.heights > 0)
    if not known.any():
        return 0
    x, y, width, height = objects.boxes.T
    before = (x + width <= 0) | (y + height <= 0)
    beyond = (x >= images.widths[known].min()) | (y >= images.heights[known].min())  # in the smallest picture
    some = np.flatnonzero((before | beyond) & (width > 0) & (height > 0))
    order = np.argsort(images.ids)
    rows = order[np.searchsorted(images.ids[order], objects.image_ids[some])]
    outside = before[some] | (x[some] >= images.widths[rows]) | (y[some] >= images.heights[rows])
    return int((outside & known[rows]).sum())


def _column(found: list[Any], name: str, dtype: Any = np.int64) -> np.ndarray:
    return np.fromiter(map(attrgetter(name), found), dtype, len(found))


def _boxes(found: list[Any]) -> np.ndarray:
    return np.array([row.bbox for row in found], np.float64).reshape(-1, 4)


def _repeated(ids: np.ndarray) -> np.ndarray:
    """Find the rows whose id stands in an earlier row."""
    _, first = np.unique(ids, return_index=True)
    again = np.ones(len(ids), bool)
    again[first] = False
    return np.flatnonzero(again)
