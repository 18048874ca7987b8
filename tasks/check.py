"""Decode and validate a whole data set in parallel, and say everything that is wrong or odd with it."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.names import load_named, nearest
from trunkline.ground.ranges import problems_of

from .checked import Check
from .data.repairs import Repair
from .formats import format_of
from .held import held
from .table import Row, rows


def check(
    root: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    format: str = "auto",
    masks: bool = False,
    task: str = "",
    loaders: int | None = None,
    progress: bool = True,
    strict: bool = False,
    **options: Any,
) -> Check:
    """Decode every sample of a data folder, compare all files by their bytes, and look at objects and masks.

    classes   those to expect (a checkpoint's)
    format    how the data lies (folders, coco, voc, …, as the tasks have them); auto: by what lies in the folder
    task      whose look it is, where several tasks read the format (VOC's objects, or its masks)
    strict    what would be mended in the data is a problem
    masks     the same as task=segmentation, of VOC's format
    loaders   processes that decode (none: one a core; 0: this one, which a crashing decoder ends)

    `options` are those of the task that decide how its data is read (depth=, exif=, categories=). Raises DataError for a
    wrong argument, and where a root that is read as class folders is missing or holds none. All
    else is in the result.
    """
    if loaders is not None and loaders < 0:
        raise DataError(f"loaders={loaders}: expected 0 or more")
    name, form, said = _chosen(root, format, masks, task)
    row = rows()[name]
    if options:
        _check_options(name, row, options)
    given = {"options": options} if options else {}
    started = time.perf_counter()
    found = load_named(row.check)(root, form, classes, **given, loaders=loaders, progress=progress)
    found.seconds = round(time.perf_counter() - started, 3)
    found.oddities = [{"file": ".", "what": what} for what in said] + found.oddities
    if strict:
        found.problems += [entry for entry in found.oddities if isinstance(entry["what"], Repair)]
        found.oddities = [entry for entry in found.oddities if not isinstance(entry["what"], Repair)]
    return found


def task_of(root: str | os.PathLike[str], format: str = "auto", masks: bool = False, task: str = "") -> tuple[str, str]:
    """Find which task looks at a folder, and the folder's format; the arguments are those of `check`. Raises DataError.

    Where several tasks read the format, it is the one whose kind of files most of the data is of: photos, or clips.
    """
    name, form, _ = _chosen(root, format, masks, task)
    return name, form


class _Chosen(NamedTuple):
    """A task, the format that it reads, and what the folder may be besides."""

    task: str
    format: str
    said: Sequence[str] = ()


def _chosen(root: str | os.PathLike[str], format: str, masks: bool, task: str) -> _Chosen:
    if format == "auto" and _looks_itself(task):
        return _Chosen(task, format)
    form = format_of(root) if format == "auto" else format
    reading = {name: row for name, row in rows().items() if form in row.formats and row.check}
    if not reading:
        known = list(dict.fromkeys(f for row in rows().values() if row.check for f in row.formats))
        raise DataError(f"format={form}: there is none{nearest(form, known)}; there are auto, {', '.join(known)}")
    masks = masks or (form == "voc" and format == "auto" and not task and _has_masks(root))
    if masks and form != "voc":
        raise DataError(f"masks=true: looks at the masks of VOC's format, and {os.fspath(root)} is of format={form}")
    usual, said = "segmentation" if masks else next(iter(reading)), list[str]()
    if form == "csv" and format_of(root) == form:  # a table of boxes
        usual = "detection"
    elif not task and len(media := {name: load_named(row.media) for name, row in reading.items() if row.media}) > 1:
        there = held(root, media)
        usual, said = there.task or usual, there.remarks(media)
    name = task or usual
    if name not in reading:
        own = rows()[name].formats if format == "auto" and name in rows() else ()
        hint = f". It looks like that; where it is none, give format= one of {', '.join(own)}" if own else ""
        raise DataError(
            f"task={name}: does not read format={form}{nearest(name, reading)}; {', '.join(reading)} do{hint}"
        )
    return _Chosen(name, format if format == "auto" and _looks_itself(name) else form, said)


def _looks_itself(task: str) -> bool:
    """Say whether a task's own reader tells the formats that it has from each other, as its option format=auto."""
    row = rows().get(task)
    return row is not None and getattr(load_named(row.options)(), "format", "") == "auto"


def _check_options(name: str, row: Row, options: dict[str, Any]) -> None:
    """Raise DataError for options that the task's look does not read, or that are out of their range."""
    reads = ", ".join(row.looks_by) or "no option"
    wrong = [
        f"{key}={value}: not read in the look of the task {name} at a whole folder{nearest(key, row.looks_by)}; it reads {reads}"
        for key, value in options.items()
        if key not in row.looks_by
    ]
    if wrong := wrong or problems_of(load_named(row.options)(**options)):
        raise DataError("\n".join(wrong))


def _has_masks(root: str | os.PathLike[str]) -> bool:
    """Say whether a folder of VOC's format has masks and no objects."""
    there = [os.path.isdir(storage.join(root, name)) for name in ("SegmentationClass", "Annotations")]  # noqa: PTH112
    return there[0] and not there[1]
