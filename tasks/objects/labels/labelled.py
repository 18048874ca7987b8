"""Labelled pictures, whatever tool labelled them, and the index that is built of them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Any, Literal

import numpy as np

from trunkline.ground.errors import DataError

from ...data.repairs import Repair, Repairs, counted
from ..coco_fill import extent
from ..index import ObjectIndex
from ..polygons import NO_MASK, as_raw

Box = tuple[float, float, float, float]
Number = float | Decimal
MOST = 20  # problems that are listed
LONG = 25  # characters beyond which a number has more digits than a float is ever written with
_DIGITS = 60
_NEAR = 0.01  # pixels beyond an edge that count as none


@dataclass
class Labelled:
    """An object: its class, its box x, y, width, height in pixels from 0, and polygons or a run-length code, or None.

    `flag`: a crowd (COCO), a difficult one (VOC). `score`: a detector's, of 0 to 1; None of people's labels.
    `flag`: a crowd (COCO), a difficult one (VOC). `wrong` says why its outline cannot be used, and begins with PARTLY where
    the rest of it can.
    """

    name: str
    box: Box
    mask: Any = None
    flag: bool = False
    score: float | None = None
    wrong: str = ""


@dataclass
class Picture:
    """A picture by its path below the folder of images, its sides in pixels (0: not said), and its objects.

    `group` is what its table says it belongs to, perhaps ""; None where nothing says it.
    """

    file: str
    width: int
    height: int
    objects: list[Labelled]
    group: str | None = None


@dataclass
class Labels:
    """A split: the folder of its pictures, the pictures, the classes in the data's order (None: it declares none).

    `notes` are repairs and remarks, a line each.
    """

    images: str
    pictures: list[Picture]
    classes: tuple[str, ...] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Reading:
    """How what has two readings is read.

    form       the format, as the options have it (`yolo`, `yolo-seg`)
    exif       `turn`: labels are of a picture as its EXIF orientation shows it; `ignore`: as it is stored; `stop`: refuse
               pictures that are turned and whose size is not said
    rotated    `enclose`: take the upright box around a rotated one; `stop`: refuse it
    annotator  whose labels count where several people labelled a picture: an id, an e-mail address, `first` or `last`
    group      the column of a table that says which pictures belong together; by default one called group
    """

    form: str = ""
    exif: Literal["stop", "turn", "ignore"] = "stop"
    rotated: Literal["stop", "enclose"] = "stop"
    annotator: str = ""
    group: str = ""


class Wrong(list[str]):
    """What is wrong with the files of a split."""

    def stop(self) -> None:
        """Raise DataError if there is anything, of which the first MOST are told."""
        if self:
            more = [f"… and {len(self) - MOST} more"] if len(self) > MOST else []
            raise DataError("\n".join([*self[:MOST], *more]))


def index_of(found: Labels, masks: bool) -> ObjectIndex:
    """Build the index of labelled pictures, with `masks` with their polygons.

    The classes are those that the data declares, else the sorted names of its objects.
    """
    objects = [o for picture in found.pictures for o in picture.objects]
    known = found.classes or tuple(sorted({o.name for o in objects}))
    number = {name: n for n, name in enumerate(known)}
    names = [os.fsencode(picture.file) for picture in found.pictures]
    raws = [b"" if o.mask is None else bytes(as_raw(o.mask)) for o in objects] if masks else []
    return ObjectIndex(
        classes=known,
        category_ids=np.arange(1, len(known) + 1),
        image_ids=np.arange(1, len(names) + 1),
        names=np.frombuffer(b"".join(names), np.uint8),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        sizes=np.array([(p.height, p.width) for p in found.pictures], np.int32).reshape(-1, 2),
        starts=np.concatenate([[0], np.cumsum([len(p.objects) for p in found.pictures])]).astype(np.int64),
        boxes=np.array([o.box for o in objects], np.float64).reshape(-1, 4),
        labels=np.array([number[o.name] for o in objects], np.min_scalar_type(max(1, len(known)))),
        flags=np.array([o.flag for o in objects], np.uint8),
        area=np.array([_area(o, p) for p in found.pictures for o in p.objects], np.float64),
        object_ids=np.arange(1, len(objects) + 1),
        masks=np.frombuffer(b"".join(raws), np.uint8),
        mask_ends=np.cumsum([len(raw) for raw in raws], dtype=np.int64),
        notes=tuple(line for line in found.notes if isinstance(line, Repair)),
        remarks=tuple(line for line in found.notes if not isinstance(line, Repair)),
        wrong_masks=_wrong_masks(objects, masks),
        groups=tuple(p.group or "" for p in found.pictures) if any(p.group is not None for p in found.pictures) else (),
    )


def _wrong_masks(objects: Sequence[Labelled], masks: bool) -> dict[int, str]:
    """Say by their places which objects have an outline that cannot be used, and with `masks` which have none."""
    lacking = {i: NO_MASK for i, o in enumerate(objects) if masks and o.mask is None}
    return lacking | {i: o.wrong for i, o in enumerate(objects) if o.wrong}


def outlined(name: str, points: Sequence[tuple[float, float]], where: str = "") -> Labelled:
    """Make an object of a polygon; one of fewer than three points encloses nothing, and `wrong` says so after `where`."""
    if len(points) >= 3:
        return Labelled(name, around(points), [[v for point in points for v in point]])
    box = around(points) if points else (0.0, 0.0, 0.0, 0.0)
    return Labelled(name, box, wrong=f"{where}a polygon of {counted(len(points), 'point')}; expected three or more")


def _area(one: Labelled, picture: Picture) -> float:
    """Compute the area of an object's mask in pixels, as pycocotools does; without one, of its box."""
    known = extent(as_raw(one.mask), picture.height, picture.width) if one.mask is not None else None
    return known[1] if known else one.box[2] * one.box[3]


def number(text: str) -> Number:
    """Read a number: as a float, or exactly where it is written with more digits than a float has. Raises ValueError."""
    if "_" in text:
        raise ValueError(text)
    return Decimal(text) if len(text) > LONG else float(text)


def box_of_shares(cx: Number, cy: Number, w: Number, h: Number, width: int, height: int) -> Box:
    """Compute x, y, width, height in pixels of a box whose centre and sides are shares of the picture's (YOLO's)."""
    if not all(isinstance(v, float) for v in (cx, cy, w, h)):
        with localcontext(prec=_DIGITS):
            cx, cy, w, h = (Decimal(v) for v in (cx, cy, w, h))
            found = width * (cx - w / 2), height * (cy - h / 2), width * w, height * h
            return tuple(float(v) for v in found)  # type: ignore[return-value]
    return width * (cx - w / 2), height * (cy - h / 2), width * w, height * h  # type: ignore[return-value, operator]


def shares_of_box(box: Box, width: int, height: int) -> list[str]:
    """Write a box as `box_of_shares` reads it, to the last bit."""
    x, y, w, h = box
    plain = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
    if box_of_shares(*plain, width, height) == box:
        return [repr(v) for v in plain]
    with localcontext(prec=_DIGITS):
        dx, dy, dw, dh = (Decimal(v) for v in box)
        return [f"{v:.40e}" for v in ((dx + dw / 2) / width, (dy + dh / 2) / height, dw / width, dh / height)]


def of_share(share: Number, side: int, whole: int = 1) -> float:
    """Compute pixels of a share of a side; `whole` is what the whole side is called: 1, or 100 for percent."""
    if isinstance(share, Decimal):
        with localcontext(prec=_DIGITS):
            return float(share / whole * side)
    return share / whole * side if whole != 1 else share * side


def share_of(pixels: float, side: int, whole: int = 1) -> str:
    """Write pixels as a share that `of_share` reads, to the last bit."""
    plain = pixels / side * whole
    if of_share(plain, side, whole) == pixels:
        return repr(plain)
    with localcontext(prec=_DIGITS):
        return f"{Decimal(pixels) / side * whole:.40e}"


def around(points: Sequence[tuple[float, float]]) -> Box:
    """Compute the upright box x, y, width, height around points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def pairs_of(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """Take x, y, x, y, … as points."""
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def cut(one: Labelled, width: int, height: int, lost: Repairs) -> Labelled:
    """Cut what reaches beyond its picture at the edge, as shares of its sides (YOLO's) are 0 to 1; count what is lost."""
    x, y, w, h = one.box
    if min(x, y) < -_NEAR or x + w > width + _NEAR or y + h > height + _NEAR:
        lost.add("boxes beyond their picture, cut at its edge", "object")
        left, top = max(x, 0.0), max(y, 0.0)
        one = replace(one, box=(left, top, min(x + w, width) - left, min(y + h, height) - top))
    if isinstance(one.mask, list) and any(
        v < -_NEAR or v > m + _NEAR for p in one.mask for v, m in _sides(p, width, height)
    ):
        lost.add("polygons beyond their picture, whose points are moved to its edge", "object")
        one = replace(one, mask=[[min(max(v, 0.0), m) for v, m in _sides(p, width, height)] for p in one.mask])
    return one


def _sides(polygon: Sequence[float], width: int, height: int) -> list[tuple[float, int]]:
    return [(v, height if n % 2 else width) for n, v in enumerate(polygon)]


def twice(names: Sequence[str]) -> list[str]:
    """List the names that stand there more than once."""
    return sorted(name for name, times in Counter(names).items() if times > 1)
