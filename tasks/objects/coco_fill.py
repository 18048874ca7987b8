"""What an annotation does not say and its mask does: its box and its area, as pycocotools' `loadRes` fills them in."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from .coco_json import UNREADABLE, Problems

NULL = msgspec.Raw(b"null")


def fill(found: Sequence[Any], sizes: dict[int, tuple[int, int]], problems: Problems) -> None:
    """Give a box and an area to the annotations that lack one; count how many, and report those that have no mask either.

    `sizes` are height and width by image, 0 where the file does not say.
    """
    without = []
    for row in found:
        if row.bbox is not None and row.area is not None:
            continue
        known = extent(row.segmentation, *sizes.get(row.image_id, (0, 0)))
        if row.bbox is None:
            if known is None:
                without.append(f"annotation {row.id}: has no bbox, and no segmentation that would tell it")
                continue
            row.bbox = known[0]
            problems.repairs.add("bbox: absent, taken from the mask", "annotation")
        if row.area is None:
            _, _, width, height = row.bbox
            row.area = known[1] if known else width * height
            whose = "mask" if known else "box"
            problems.repairs.add(f"area: absent, taken from the {whose}", "annotation")
    problems.some(range(len(without)), lambda i: without[i])


def extent(raw: msgspec.Raw, height: int, width: int) -> tuple[tuple[float, float, float, float], float] | None:
    """Measure a segmentation's box (x, y, width, height) and area in pixels; None where it draws nothing.

    Where the picture's size is not said (0), a polygon is drawn on a canvas that just holds it.
    """
    from pycocotools import mask

    from .masks import to_code

    try:
        given = msgspec.json.decode(raw) if raw != NULL else None
        if not given:
            return None
        if isinstance(given, list):
            given = [p for p in given if len(p) >= 6 and len(p) % 2 == 0]
            if not given:
                return None
            numbers = np.concatenate([np.asarray(p, np.float64) for p in given])
            height = height or max(1, math.ceil(numbers[1::2].max()))
            width = width or max(1, math.ceil(numbers[0::2].max()))
        else:
            height, width = given["size"]
        code: Any = to_code(given, height, width)
        x, y, w, h = (float(v) for v in mask.toBbox(code))
        return (x, y, w, h), float(mask.area(code))
    except (*UNREADABLE, TypeError, ValueError, KeyError, OverflowError):  # reported where masks are read
        return None
