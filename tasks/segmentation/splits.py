"""From options to a split of pictures with masks, whatever its format."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from trunkline.ground.errors import DataError

from ..data.file_index import printable
from ..data.folds import fold_of
from ..data.split import split_rows
from ..detection.splits import share_of
from ..images.decode import HOW_TO_GO_ON
from .formats.layouts import has_split, read_pairs, read_whole_pairs
from .formats.objects import OBJECTS, read_all_objects, read_objects
from .formats.voc import Pairs
from .options import Options
from .samples import SPLITS, PixelSamples, in_order, texts

_LISTED = 20
_READ_BY = {
    "void": ("pairs",), "masks": ("voc",), "sbd": ("voc",), "train_images": ("coco",), "val_images": ("coco",),
    "categories": OBJECTS, "least": OBJECTS, "annotator": ("labelstudio",),
}  # fmt: skip


def read_split(options: Options, split: str, classes: Sequence[str] | None = None) -> PixelSamples:
    """Read the split "train" or "val"; `classes` are a checkpoint's, in its order.

    Raises DataError for options that the format has no use for, and with the problems of the files.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if options.folds:
        return fold_of(read_whole(options, classes), options, split)
    _check(options)
    if options.format in OBJECTS:
        return read_objects(options, split, classes)
    if not (share := share_of(options.val)):
        return _samples(options, read_pairs(options, split), split, classes)
    if has_split(replace(options, val=()), "val"):
        raise DataError(f"val={share:g}: {options.data} has a val of its own; leave val= out")
    found = _samples(options, read_whole_pairs(replace(options, val=())), split, classes)
    held = split_rows(found.id, np.zeros(len(found), np.int64), ("",), share, options.group)
    return found.take(held == (split == "val"), split)


def read_whole(options: Options, classes: Sequence[str] | None = None) -> PixelSamples:
    """Read all pictures, of train and val where the data has both, to be divided into folds. Raises DataError as `read_split`."""
    _check(options)
    if options.format in OBJECTS:
        return read_all_objects(options, classes)
    return _samples(options, read_whole_pairs(options), "val", classes)


def _check(options: Options) -> None:
    if unread := sorted(
        key for key, forms in _READ_BY.items() if options.format not in forms and getattr(options, key)
    ):
        raise DataError(f"{', '.join(unread)}: data of format={options.format} has no use for this; leave it out")
    if outside := [f"{key}={value}" for key in ("masks", "sbd") if _outside(value := getattr(options, key))]:
        raise DataError(f"{', '.join(outside)}: expected a folder below data={options.data}")


def _samples(options: Options, found: Pairs, split: str, classes: Sequence[str] | None) -> PixelSamples:
    """Make samples of pairs. Raises DataError where there is none, or some lack a part."""
    if found.lacking and options.on_bad_sample == "stop":
        raise DataError(_lacking(options.data, found.lacking, bool(found.names)))
    if not found.names:
        reason = next(iter(found.lacking.values()), "it has none")
        raise DataError(f"{options.data}: no picture of {split} can be used: {reason}")
    count = min(len(found.names), options.limit or len(found.names))
    encoding = found.encoding if classes is None else in_order(found.encoding, classes, options.data)
    return PixelSamples(
        texts(found.names), texts(found.images), texts(found.masks), encoding, np.arange(count), options,
        {printable(os.fsencode(name)): reason for name, reason in found.lacking.items()}, split, found.notes,
    )  # fmt: skip


def _lacking(data: str, reasons: Mapping[str, str], others: bool) -> str:
    lines = [f"{name}: {reason}" for name, reason in list(reasons.items())[:_LISTED]]
    more = [f"and {len(reasons) - _LISTED} more"] if len(reasons) > _LISTED else []
    advice = f"; {HOW_TO_GO_ON}" if others else ", and no pair of both"  # of none there is nothing to go on with
    return "\n  ".join([f"{data}: pictures without a mask, or masks without a picture{advice}", *lines, *more])


def _outside(folder: str) -> bool:
    path = PurePath(folder)
    return path.is_absolute() or ".." in path.parts
