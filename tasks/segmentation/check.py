"""Look at a whole data set of masks: every picture and mask decoded, every pixel counted."""

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

from ...heads.contract import VOID
from ..checked import NONE, SAMPLE, Check, Picture, Pictures
from ..images.decode import as_stored, decode_turned, unsaid
from .formats.seen import Seen
from .formats.void import lacking, undecided
from .options import Options
from .samples import SPLITS, PixelSamples
from .splits import read_split


@dataclass(frozen=True)
class _Facts(Picture):
    pixels: tuple[int, ...] = ()  # of each class's number, and of 255
    form: str = ""


def check_masks(
    root: str | os.PathLike[str],
    form: Any,
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check a folder of pictures and masks, for `trunkline check`.

    `classes` are a checkpoint's; the data may have no others. `options` are the task's. `counts` are pixels by class.
    Problems: missing or damaged files, masks of another size than their picture, values and colours of no class, a split
    without a pixel of any class. Oddities: a mask without a pixel of any class, classes without a pixel in training, files
    that are left out, groups that are in train and in val.
    """
    result = Check(os.fspath(root), counted="pixels")
    pictures = Pictures(result, loaders, progress)
    palette: tuple[str, np.ndarray] | None = None
    read: dict[str, PixelSamples] = {}
    plain = Options(data=os.fspath(root), format=form, on_bad_sample="skip", **options)
    for split in SPLITS:
        try:
            samples = read_split(plain, split, classes)
        except DataError as error:
            result.problems += [{"file": split, "what": line.strip()} for line in str(error).splitlines()]
            continue
        read[split] = samples
        told = len(result.problems)
        for name, what in samples.excluded.items():
            result.problem(name, what, SAMPLE)
        result.oddities += [{"file": split, "what": note} for note in samples.notes]
        samples = replace(samples, other_palette=palette)
        palette = palette or samples.palette
        seen, first = Seen(), -1
        void_is_known = replace(samples, encoding=replace(samples.encoding, assumed=False))
        for i, facts in pictures.look(split, len(samples), partial(_examine, void_is_known), samples.id, told):
            seen.count(facts.pixels, facts.form)
            if facts.pixels[VOID] and (first < 0 or i < first):
                first = i
            if not any(facts.pixels[:VOID]):
                result.oddities.append({"file": samples.id(i), "what": "its mask has no pixel of any class"})
        _counted(result, split, samples, seen, first)
    pictures.compare(read, plain.group)
    return result


def _counted(result: Check, split: str, samples: PixelSamples, seen: Seen, first: int) -> None:
    """Tell what all masks of a split hold; `first` is the first one with void, -1: none has."""
    counts = seen.pixels[: len(samples.classes)].tolist()
    result.counts[split] = dict(zip(samples.classes, counts, strict=True))
    if not any(counts):
        result.problems.append({"file": split, "what": "no mask has a pixel of any class"})
        return
    if samples.encoding.assumed and first >= 0 and (without := lacking(samples.encoding, seen.pixels)):
        error = undecided(samples.encoding, without, samples.mask_source(first))
        result.problems.append({"file": split, "what": str(error)})
        return
    whose = f"all {seen.masks} masks"
    result.oddities += [{"file": split, "what": what} for what in seen.remarks(samples.classes, whose, samples.void)]


def _examine(samples: PixelSamples, i: int) -> _Facts:
    source = samples.source(i)
    try:
        data = bytes(storage.read(source))
        image, turned = decode_turned(bytearray(data), samples.options.depth)
        image = as_stored(image, turned) if samples.options.exif == "ignore" else image
        height, width = image.shape[-2:]
    except OSError as error:
        return _Facts(unread(source, error))
    except DataError as error:
        return _Facts(str(error))
    try:
        mask = samples.mask(i)
    except DataError as error:
        return _Facts(str(error))
    labels = mask.labels
    if labels.shape != (height, width):
        return _Facts(f"is {width} x {height} pixels; its mask {labels.shape[1]} x {labels.shape[0]}")
    if samples.options.exif == "stop" and (both := unsaid(image, turned)):
        return _Facts(both)
    pixels = np.bincount(labels.ravel(), minlength=VOID + 1).tolist()
    found = hashlib.blake2b(data, digest_size=16).digest()
    return _Facts("", width, height, len(data), found, tuple(pixels), mask.stored.form)
