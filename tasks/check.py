"""Decode and validate a whole data set in parallel, and say everything that is wrong or odd with it."""

import os
from collections.abc import Sequence
from typing import Literal

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from .checked import Check
from .classification.check import check_folders
from .detection.check import check_boxes
from .formats import format_of
from .segmentation.check import check_masks


def check(
    root: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    format: Literal["auto", "folders", "coco", "voc", "sbd", "pairs", "camvid", "cityscapes", "ade20k"] = "auto",
    masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Check:
    """Walk the class folders of `root`, decode every photo, compare all files by their bytes.

    A folder in another format is known by its folders' names, or by `format`: of COCO's and VOC's the objects are looked at
    (`tasks/detection/check.py`), of the others the masks, and of VOC's with `masks` (`tasks/segmentation/check.py`).
    `classes` are those to expect (a checkpoint's). `workers` processes (None: one a core; 0: this one, which a crashing
    decoder ends). Raises DataError where `root` is missing or its layout is unknown; everything else is in the result.
    """
    if workers is not None and workers < 0:
        raise DataError(f"workers={workers}: expected 0 or more")
    form = format_of(root) if format == "auto" else format
    masks = masks or (form == "voc" and format == "auto" and not os.path.isdir(storage.join(root, "Annotations")))  # noqa: PTH112
    if masks and form != "voc":
        raise DataError(f"masks=true: looks at the masks of VOC's format, and {os.fspath(root)} is of format={form}")
    if form in ("coco", "voc") and not masks:
        return check_boxes(root, form, classes, workers=workers, progress=progress)
    if form != "folders":
        return check_masks(root, form, classes, workers=workers, progress=progress)
    return check_folders(root, classes, workers=workers, progress=progress)
