"""Masks as COCO writes them: polygons and run-length codes, checked, and changed into one another."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from .coco_file import NULL, Images, Objects
from .coco_json import UNREADABLE, Problems


class _Rle(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_Given = list[list[float]] | _Rle


def checked(objects: Objects, images: Images, problems: Problems, names: Sequence[str]) -> list[Any]:
    """Decode each object's segmentation for pycocotools; add what is wrong with one to `problems`, under its name.

    Polygons are lists of x, y, x, y, … of three points or more (four numbers would be taken for a box); a run-length
    code is of its image's height and width, and fills it. Wrong ones are left out of the list.
    """
    found, wrong = [], []
    for name, (given, said) in zip(names, _each(objects, images), strict=True):
        if said:
            wrong.append(f"{name}: segmentation: {said}")
        elif isinstance(given, list):
            found.append(given)
        else:
            found.append({"size": list(given.size), "counts": given.counts})
    problems.some(range(len(wrong)), lambda i: wrong[i])
    return found


PARTLY = "in part: "
NO_MASK = "has no mask; expected polygons or a run-length code"


def usable(objects: Objects, images: Images) -> dict[int, str]:
    """Find the annotations whose segmentation is wrong: what is wrong, by row.

    Where polygons can be used beside others that cannot, the segmentation keeps those, and the reason begins with PARTLY.
    """
    assert objects.segmentation is not None
    wrong = {row: said for row, (_, said) in enumerate(_each(objects, images)) if said}
    for row, said in wrong.items():
        try:
            given = msgspec.json.decode(objects.segmentation[row], type=list[list[float]])
        except UNREADABLE:
            continue
        if kept := [polygon for polygon in given if not _wrong_polygons([polygon])]:
            objects.segmentation[row] = as_raw(kept)
            wrong[row] = PARTLY + said
    return wrong


def _each(objects: Objects, images: Images) -> Iterator[tuple[Any, str]]:
    assert objects.segmentation is not None
    order = np.argsort(images.ids, kind="stable")
    rows = order[np.searchsorted(images.ids, objects.image_ids, sorter=order)]
    sizes = np.stack([images.heights, images.widths], 1)
    unknown = (sizes == 0).all(1)
    decode = msgspec.json.Decoder(_Given).decode
    for raw, row in zip(objects.segmentation, rows, strict=True):
        if raw == NULL:
            yield None, NO_MASK
            continue
        try:
            given = decode(raw)
        except UNREADABLE as error:
            yield None, f"expected polygons or a run-length code ({error})"
            continue
        size = list(given.size) if unknown[row] and isinstance(given, _Rle) else sizes[row].tolist()
        yield given, _wrong_polygons(given) if isinstance(given, list) else _wrong_rle(given, size)


def _wrong_polygons(polygons: list[list[float]]) -> str:
    if not polygons:
        return "has no polygon"
    for polygon in polygons:
        if len(polygon) % 2 or len(polygon) < 6:
            return f"a polygon of {len(polygon)} numbers; expected x, y of three points or more"
    return ""


def _wrong_rle(rle: _Rle, size: list[int]) -> str:
    if list(rle.size) != size:
        return (
            f"a run-length code of {rle.size[0]} x {rle.size[1]} (height x width); the image has {size[0]} x {size[1]}"
        )
    try:
        counts = rle.counts if isinstance(rle.counts, list) else counts_of(rle.counts)
    except ValueError as error:
        return f"a damaged run-length code ({error})"
    if any(count < 0 for count in counts):
        return f"a run-length code with a negative run, {min(counts)}"
    if sum(counts) != size[0] * size[1]:
        return f"a run-length code of {sum(counts)} pixels; the image has {size[0] * size[1]}"
    return ""


def counts_of(text: str) -> list[int]:
    """Decode the run lengths of a compressed code, as pycocotools' `rleFrString` does.

    Numbers have five bits a character, from 48 on, the lowest first; the sixth bit says that more follow, the highest
    of the last character is the sign; from the fourth number on they are differences to the number two places before.
    Raises ValueError where the code is cut off or has another character.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"the character {letter!r}")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("it ends within a number")
    return counts


def as_raw(segmentation: Any) -> msgspec.Raw:
    """Encode polygons or a code as JSON."""
    return msgspec.Raw(msgspec.json.encode(segmentation))
