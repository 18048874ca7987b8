"""From the format in which data is to another one."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.storage import at_home

from ...tasks.data.repairs import counted
from ...tasks.formats import format_of
from ..runs.files import new_folder
from .convert_weights import weights

Written = Literal["coco", "voc", "yolo", "yolo-seg", "labelme", "labelstudio", "csv"]


@dataclass
class Conversion:
    """What was read and written: counts by split, and lines about what was mended, and what could not be carried over."""

    out: str
    format: str
    source_format: str
    pictures: dict[str, int]
    objects: dict[str, int]
    classes: tuple[str, ...]
    notes: list[str]
    lost: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return every field as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        each = ", ".join(
            f"{split}: {counted(n, 'picture')} with {counted(self.objects[split], 'object')}"
            for split, n in self.pictures.items()
        )
        lines = [
            f"{self.out}: format={self.format}, from {self.source_format}; {each}; {counted(len(self.classes), 'class')}"
        ]
        lines += [f"  {line}" for line in self.notes]
        if self.lost:
            lines += ["  could not be carried over:", *(f"    {line}" for line in self.lost)]
        return "\n".join(lines)


def data(
    source: str | Path,
    *,
    format: Written,
    out: str | Path,
    source_format: str = "auto",
    val: tuple[str, ...] = (),
    pictures: Literal["copy", "link", "none"] = "copy",
    categories: tuple[str, ...] = (),
    exif: Literal["stop", "turn", "ignore"] = "stop",
    origin: int = 1,
    rotated: Literal["stop", "enclose"] = "stop",
    annotator: str = "",
    strict: bool = False,
) -> Conversion:
    """Write a data set of objects in another format, with every number in full precision.

    format         coco, voc, yolo (boxes), yolo-seg (polygons), labelme, labelstudio or csv
    out            a new folder
    source_format  that of the source; auto: told from what lies in its folder
    val            the share of pictures to hold out, as val=0.2, where the source is not split; else its own file of val
    pictures       copy them, link to them, or leave them out (none)
    categories     only objects of these
    exif           labels are of pictures as EXIF turns them (turn), or as they are stored (ignore)
    origin         of VOC's format: the number of the first pixel, 1 or 0
    rotated        of Label Studio's: take the upright box around a rotated one (enclose)
    annotator      of Label Studio's: whose labels count where several people labelled a picture
    strict         take everything that would be mended as a mistake
    """
    from ...tasks.detection.convert import convert
    from ...tasks.detection.options import Options

    source = at_home(source)
    form: Any = format_of(source) if source_format == "auto" else source_format
    known = Options.__annotations__["format"].__args__
    if form not in known:
        raise DataError(
            f"{source}: data of format={form} has no objects that could be converted"
            f"{nearest(form, known)}; read are {', '.join(known)}: say which with source_format="
        )
    folder = new_folder(out, "out")
    masks = form not in ("voc", "csv", "yolo-obb")
    options = Options(
        data=str(source), format=form, val=val, head="mask_rcnn" if masks else "faster_rcnn", on_bad_box="skip", empty=True,
        categories=categories, exif=exif, origin=origin, rotated=rotated, annotator=annotator,
    )  # fmt: skip
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        found = convert(options, format, beside, pictures, strict)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Conversion(str(folder), format, form, found.pictures, found.objects, found.classes, found.notes, found.lost)


KINDS = {"data": data, "weights": weights}


def kind(name: str) -> Callable[..., Any]:
    """Return the function that converts a kind of thing. Raises RecipeError for an unknown one."""
    if name not in KINDS:
        raise RecipeError(f"{name!r}: cannot be converted{nearest(name, KINDS)}; expected {', '.join(KINDS)}")
    return KINDS[name]
