"""Look at a whole data set of COCO's or VOC's format: every picture decoded, every object measured."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from ..checked import BOX, NONE, Check, Picture, Pictures, below
from ..data.repairs import counted
from ..images.decode import as_stored, decode_turned, unsaid
from ..objects.index import ObjectIndex
from ..objects.masks import to_bitmap
from ..objects.polygons import NO_MASK
from .options import Options
from .samples import BoxSamples, bad, bad_boxes, describe
from .splits import has, read_all, read_split, share_of

_BEYOND = 1.0  # pixels that a box may be outside its picture
_APART = 3.0  # pixels that a box may differ from that of its mask


@dataclass(frozen=True)
class _Facts(Picture):
    odd: tuple[str, ...] = ()


def check_boxes(
    root: str | os.PathLike[str],
    form: str,
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check a folder in COCO's or VOC's format, for `trunkline check`.

    `classes` are a checkpoint's; the data's objects may have no others. `options` are the task's.

    `counts` are objects by class. Problems: files that cannot be read, pictures that are missing, damaged or of another
    size, boxes without area or outside their picture. Oddities: boxes that reach beyond their picture, objects listed
    twice, masks that are empty or do not fit their boxes, pictures without objects.
    """
    result = Check(os.fspath(root), counted="objects")
    pictures = Pictures(result, loaders, progress)
    seen: dict[str, BoxSamples] = {}
    classes = tuple(classes) if classes else None
    plain = Options(data=os.fspath(root), format=form, on_bad_box="skip", empty=True, **options)  # type: ignore[arg-type]
    for split in splits_of(plain):
        try:
            samples = _read(plain, split, classes)
        except DataError as error:
            result.problems += [{"file": split, "what": line} for line in str(error).splitlines()]
            continue
        seen[split] = samples
        classes, before = samples.classes, len(result.problems)
        _objects(result, split, samples)
        if split in ("train", ALL) and not len(samples.index.labels[~samples.bad]):
            result.problems.append({"file": split, "what": "no picture has an object that could be trained on"})
        if samples.bad.all():  # then on_bad_box=skip leaves nothing
            result.keep_all(before)
        examine, name = partial(_examine, samples), partial(below, split, samples.id)
        for i, facts in pictures.look(split, len(samples), examine, name, len(result.problems)):
            result.oddities += [{"file": name(i), "what": what} for what in facts.odd]
    pictures.compare(seen, plain.group)
    return result


ALL = "all"  # what is not split


def splits_of(options: Options) -> tuple[str, ...]:
    """List the splits to look at: train and val, or all where the data is not split."""
    try:
        split = share_of(options.val) or any(has(options, name) for name in ("train", "val"))
        whole = None if split else read_all(options)
    except DataError:  # told by the look at the splits
        return ("train", "val")
    return ("train", "val") if whole is None else (ALL,)


def _read(options: Options, split: str, classes: tuple[str, ...] | None) -> BoxSamples:
    """Read all pictures of a split, with masks where every object has one."""

    def read(options: Options) -> BoxSamples:
        return read_all(options, classes) if split == ALL else read_split(options, split, classes)

    if options.format not in ("voc", "csv", "yolo-obb"):
        found = read(replace(options, head="mask_rcnn"))
        said = found.index.wrong_masks
        if len(said) < len(found.index.labels) or not all(what == NO_MASK for what in said.values()):
            return _of_boxes(found)
    return read(options)


def _of_boxes(found: BoxSamples) -> BoxSamples:
    """Take objects without a mask as good for boxes, and remark them."""
    index = found.index
    wrong = {at: said for at, said in index.wrong_masks.items() if said != NO_MASK}
    if not (lacking := len(index.wrong_masks) - len(wrong)):
        return found
    said = f"{counted(lacking, 'object')} without a mask: head=mask_rcnn trains with on_bad_box=skip, which leaves them out"
    index = replace(index, wrong_masks=wrong, remarks=(*index.remarks, said), folder="")
    return replace(found, index=index, bad=bad(index, found.options))


def _objects(result: Check, split: str, samples: BoxSamples) -> None:
    index = samples.index
    result.oddities += [{"file": split, "what": what} for what in samples.remarks() if not what.startswith("left out")]
    for at, said in index.wrong_masks.items():
        result.problem(split, f"a mask that cannot be used: {describe(index, at, 'coco')}: {said}", BOX)
    counts = np.bincount(index.labels.astype(np.int64), minlength=len(index.classes))
    result.counts[split] = dict(zip(index.classes, counts.tolist(), strict=True))

    def named(at: np.integer) -> str:
        return describe(index, int(at), samples.options.format)

    for at in np.flatnonzero(bad_boxes(index, samples.options.format)):
        if at not in index.wrong_masks:
            result.problem(split, f"a box without area or outside: {named(at)}", BOX)
    for at in np.flatnonzero(_beyond(index)):
        result.oddities.append({"file": split, "what": f"a box reaches beyond its picture: {named(at)}"})
    row = np.repeat(np.arange(len(index)), np.diff(index.starts))
    table = np.column_stack([row, index.labels, index.boxes])
    _, first, times = np.unique(table, axis=0, return_index=True, return_counts=True)
    for at in first[times > 1]:
        result.oddities.append({"file": split, "what": f"the same object twice: {named(at)}"})
    empty = int((np.diff(index.starts) == 0).sum())
    if empty:
        result.oddities.append(
            {"file": split, "what": f"{empty} pictures without objects (trained on with empty=true)"}
        )


def _beyond(index: ObjectIndex) -> np.ndarray:
    sizes = np.repeat(index.sizes, np.diff(index.starts), 0)[:, ::-1]
    low, high = index.boxes[:, :2], index.boxes[:, :2] + index.boxes[:, 2:]
    beyond = np.maximum(-low, high - sizes).max(1, initial=0.0)
    return (beyond > _BEYOND) & ~bad_boxes(index, "coco")


def _examine(samples: BoxSamples, i: int) -> _Facts:
    source, row = samples.source(i), samples.rows[i]
    try:
        data = storage.read(source)
        image, turned = decode_turned(data, samples.options.depth)
        if samples.options.exif == "ignore":
            image = as_stored(image, turned)
    except OSError as error:
        return _Facts(problem=unread(source, error))
    except DataError as error:
        return _Facts(problem=str(error))
    height, width = image.shape[-2:]
    said = tuple(samples.index.sizes[row].tolist())
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if (height, width) != said:
        return _Facts(f"is {width} x {height} pixels; its annotation says {said[1]} x {said[0]}")
    if samples.options.exif == "stop" and (both := unsaid(image, turned)):
        return _Facts(both)
    return _Facts("", width, height, len(data), digest, tuple(_mask_oddities(samples, row)) if samples.masks else ())


def _mask_oddities(samples: BoxSamples, row: int) -> list[str]:
    index, found = samples.index, []
    own = index.objects(row)
    for at in range(own.start, own.stop):
        given = index.segmentation(at)
        if index.flags[at] or at in index.wrong_masks or given is None:
            continue
        mask = to_bitmap(given, *index.sizes[row].tolist())
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            found.append(f"an empty mask: {describe(index, at, 'coco')}")
            continue
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        own_box = index.boxes[at]
        apart = np.abs(box - np.concatenate([own_box[:2], own_box[:2] + own_box[2:]])).max()
        if apart > _APART:
            found.append(f"a mask and a box that differ by {apart:.0f} pixels: {describe(index, at, 'coco')}")
    return found
