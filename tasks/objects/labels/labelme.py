"""LabelMe's labels: a JSON file beside each picture, with shapes in pixels.

Shapes of one class and one group (`group_id`) are one object, as LabelMe's own exporter to COCO joins them. Where shapes
overlap, a later one lies over an earlier one, as LabelMe's exporter to VOC draws them. Source: wkentaro/labelme,
`examples/instance_segmentation`.
"""

import base64
import binascii
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ...data.below import files_in
from ...data.repairs import Repairs, counted
from ...data.words import WORDS
from ...images.suffixes import SUFFIXES
from ..coco_json import plainly
from ..polygons import PARTLY
from .labelled import Labelled, Labels, Picture, Reading, Wrong, around, outlined

IGNORED = "__ignore__"  # LabelMe's name for what counts as nothing
BLANKS = "labels with blanks around them taken without"
_CIRCLE = 64  # points of a circle's polygon


class _Shape(msgspec.Struct):
    label: str | int | float
    points: list[tuple[float, float]]
    shape_type: str | None = "polygon"
    group_id: int | str | None = None
    mask: str | None = None
    difficult: Any = None


class _File(msgspec.Struct):
    shapes: list[_Shape]
    imagePath: str | None = None
    imageHeight: float | str | None = None
    imageWidth: float | str | None = None


@dataclass(frozen=True)
class Found:
    """Where a split's files of labels lie: a folder, and the files below it."""

    folder: Path
    files: tuple[str, ...]


def find(data: str, split: str, given: tuple[str, ...] = ()) -> Found | None:
    """Find a split by its folder: `train/`, and `val/` or `valid/`; `given` is another folder below `data`."""
    if len(given) > 1:
        raise DataError(f"{split}={','.join(given)}: one folder is read")
    for word in given or WORDS[split]:
        if ".." in Path(word).parts or Path(word).is_absolute():
            raise DataError(f"{split}={word}: expected a folder below data={data}")
        folder = Path(data, word)
        if folder.is_dir() and (files := files_in(folder, (".json",))):
            return Found(folder, tuple(files))
    return None


def flat(data: str) -> Found | None:
    """Find files of labels that are of no split."""
    files = files_in(Path(data), (".json",))
    return Found(Path(data), tuple(files)) if files else None


def read(found: Found, reading: Reading) -> Labels:
    """Read a split. Raises DataError with everything that is wrong, up to 20 lines."""
    repairs, wrong = Repairs(str(found.folder)), Wrong()
    there = set(files_in(found.folder, tuple(SUFFIXES)))
    pictures, left, difficult = [], [], 0
    for name in found.files:
        said = _read(found.folder / name, wrong)
        if said is None:
            continue
        file = _picture(name, said.imagePath, there, repairs)
        if file not in there:
            wrong.append(f"{found.folder / name}: there is no picture {file} beside it")
            continue
        try:
            width, height = _size(said, repairs)
        except ValueError as error:
            wrong.append(f"{found.folder / name}: {error}")
            continue
        difficult += sum(str(s.difficult).lower() in ("true", "1", "yes") for s in said.shapes)
        objects = list(_objects(said.shapes, str(found.folder / name), repairs, wrong, (width, height)))
        pictures.append(Picture(file, width, height, objects))
    wrong.stop()
    if (
        again := sorted({p.file for p in pictures if sum(q.file == p.file for q in pictures) > 1})
        if len({p.file for p in pictures}) < len(pictures)
        else []
    ):
        raise DataError(f"{found.folder}: two files of labels are of the picture {', '.join(again[:20])}")
    if without := sorted(there - {p.file for p in pictures}):
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        left = [
            f"{found.folder}: {counted(len(without), 'picture')} without labels left out: {', '.join(without[:5])}{more}"
        ]
    if difficult:
        left += [f"{found.folder}: `difficult` is not read: {counted(difficult, 'shape')} of it count as any other"]
    return Labels(str(found.folder), sorted(pictures, key=lambda p: p.file), None, [*repairs.lines(), *left])


def _size(said: _File, repairs: Repairs) -> tuple[int, int]:
    """Read the picture's width and height; zeros where one is not said. Raises ValueError for what is no whole number."""
    sides = []
    for key in ("imageWidth", "imageHeight"):
        value = getattr(said, key) or 0
        if isinstance(value, str):
            repairs.add(f"{key}: numbers written as text taken as numbers", "file")
        try:
            side = float(value)
        except ValueError:
            side = math.nan
        if not side.is_integer() or side < 0:
            raise ValueError(f"{key}={value!r}: expected a whole number of pixels")
        sides.append(int(side))
    if min(sides):
        return sides[0], sides[1]
    repairs.add("imageWidth and imageHeight: absent or 0, taken from the picture", "file")
    return 0, 0


def is_labelme(file: Path) -> bool:
    """Say whether a JSON file is of LabelMe's format."""
    try:
        said = msgspec.json.decode(bytes(storage.read(file)), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return "shapes" in said and "imagePath" in said


def _read(file: Path, wrong: Wrong) -> _File | None:
    try:
        return msgspec.json.decode(bytes(storage.read(file)).removeprefix(b"\xef\xbb\xbf"), type=_File)
    except OSError as error:
        wrong.append(f"{file}: cannot be read ({error.strerror or error})")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = plainly(str(error)) if isinstance(error, msgspec.ValidationError) else f"damaged: {error}"
        wrong.append(
            f"{file}: is not of LabelMe's format ({said}); open it in LabelMe and save it again, or take it away"
        )
    return None


def _picture(name: str, said: str | None, there: set[str], repairs: Repairs) -> str:
    """Find the picture of a file of labels: the one that it names, beside it; else the one that is called as it is."""
    folder, _, own = name.rpartition("/")
    before = f"{folder}/" if folder else ""
    plain = (said or "").replace("\\", "/")
    if plain and f"{before}{plain}" in there and not plain.startswith("../"):
        return f"{before}{plain}"
    last = PureWindowsPath(plain).name
    for file in [f"{before}{last}", *(f"{before}{Path(own).stem}{suffix}" for suffix in sorted(SUFFIXES))]:
        if file in there:
            repairs.add("imagePath: the picture beside the file taken", "file")
            return file
    return f"{before}{last or own}"


def _objects(
    shapes: list[_Shape], file: str, repairs: Repairs, wrong: Wrong, size: tuple[int, int]
) -> Iterator[Labelled]:
    groups: dict[Any, Labelled] = {}
    for n, shape in enumerate(shapes):
        kind = shape.shape_type or "polygon"
        if not isinstance(shape.label, str):
            shape.label = str(shape.label)
            repairs.add("labels that are numbers taken as text", "shape")
        if shape.label == IGNORED or kind in ("point", "line", "linestrip", "points"):
            repairs.add(
                f"{'shapes called ' + IGNORED if shape.label == IGNORED else f'a {kind}, which has no area,'} left out",
                "shape",
            )
            continue
        if (label := shape.label.strip()) != shape.label:
            shape.label = label
            repairs.add(BLANKS, "shape")
        if not label:
            wrong.append(f"{file}: shape {n + 1}: has no label")
            continue
        try:
            one = _drawn(shape, kind, size, f"{file}: shape {n + 1} ({shape.label}): ")
        except (ValueError, OSError) as error:
            wrong.append(f"{file}: shape {n + 1} ({shape.label}): {error}")
            continue
        key = (shape.label, shape.group_id)
        if shape.group_id is None or key not in groups:
            if shape.group_id is not None:
                groups[key] = one
            else:
                groups[n] = one
            continue
        groups[key] = _joined(groups[key], one, file, n, wrong)
        repairs.add("shapes of one group joined to an object", "shape")
    yield from groups.values()


def _joined(one: Labelled, other: Labelled, file: str, n: int, wrong: Wrong) -> Labelled:
    if isinstance(one.mask, dict) or isinstance(other.mask, dict):
        wrong.append(
            f"{file}: shape {n + 1} ({one.name}): masks of one group are not joined; give each a group of its own"
        )
        return one
    if one.wrong or other.wrong:  # the rest counts, where there is one
        kept, lost = (other, one) if one.wrong else (one, other)
        return kept if kept.wrong else replace(kept, wrong=PARTLY + lost.wrong)
    x, y = min(one.box[0], other.box[0]), min(one.box[1], other.box[1])
    right, low = (max(one.box[i] + one.box[i + 2], other.box[i] + other.box[i + 2]) for i in (0, 1))
    masks = None if one.mask is None or other.mask is None else [*one.mask, *other.mask]
    return Labelled(one.name, (x, y, right - x, low - y), masks)


def _drawn(shape: _Shape, kind: str, size: tuple[int, int], where: str) -> Labelled:
    """Compute a shape's box and mask. Raises ValueError for a shape that says none."""
    points, label = shape.points, str(shape.label)
    if not all(math.isfinite(v) for point in points for v in point):
        raise ValueError("its points are not all numbers")
    if kind == "rectangle" and len(points) in (2, 4):
        return Labelled(label, around(points))
    if kind == "polygon":
        return outlined(label, points, where)
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * i / _CIRCLE for i in range(_CIRCLE)]
        outline = [v for t in turns for v in (x + radius * math.cos(t), y + radius * math.sin(t))]
        return Labelled(label, (x - radius, y - radius, 2 * radius, 2 * radius), [outline])
    if kind == "mask" and len(points) == 2 and shape.mask:
        return Labelled(label, *_of_mask(shape, size))
    raise ValueError(f"a {kind} of {counted(len(points), 'point')}; rectangles and circles have two")


def _of_mask(shape: _Shape, size: tuple[int, int]) -> tuple[Any, Any]:
    """Place a mask, a PNG of its box's pixels, in its picture; as a run-length code."""
    from pycocotools import mask

    width, height = size
    if not width or not height:
        raise ValueError("a mask in a picture whose imageWidth and imageHeight are not said")
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask or "", validate=True)), formats=("PNG",)) as image:
            inside = np.asarray(image.convert("L")) > 0
    except (binascii.Error, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"its mask is no PNG ({error})") from None
    left, top = (round(v) for v in shape.points[0])
    rows, columns = inside.shape
    if left < 0 or top < 0 or top + rows > height or left + columns > width:
        raise ValueError(
            f"a mask of {columns} x {rows} pixels at {left}, {top}, beyond its picture of {width} x {height}"
        )
    canvas = np.zeros((height, width), np.uint8, order="F")
    canvas[top : top + rows, left : left + columns] = inside
    code: Any = mask.encode(canvas)
    return tuple(float(v) for v in mask.toBbox(code)), {"size": [height, width], "counts": code["counts"].decode()}
