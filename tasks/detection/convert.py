"""From a data set of one format to the same objects in another."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trunkline.ground.errors import DataError

from ..data.repairs import Repair, counted, refuse
from ..data.words import WORDS, calling
from ..images.decode import stored_size
from ..objects.labels.labelled import Labelled, Picture
from ..objects.labels.write import Copies, Split, write
from ..objects.polygons import NO_MASK, PARTLY
from ..objects.sizes import measured
from .options import Options
from .samples import NARROW, BoxSamples, bad_boxes
from .splits import has, read_all, read_split, share_of


@dataclass
class Converted:
    """What was written: pictures and objects by split, the classes; what was mended or remarked, and what was lost."""

    out: str
    format: str
    pictures: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def convert(options: Options, form: str, out: Path, copies: Copies, strict: bool = False) -> Converted:
    """Write the data that the options name below `out`, in another format: each split that is there, else all as train.

    With `strict` everything that was mended is a problem. Raises DataError with every problem of the data, before anything
    is written.
    """
    with calling("source_format"):
        found = _splits(options)
        for samples in found.values():
            _check_sizes(samples)
    if strict:
        refuse(Repair(line) for samples in found.values() for line in samples.index.notes)
    classes = next(iter(found.values())).classes
    splits = [Split(name, Path(samples.images), _pictures(samples)) for name, samples in found.items()]
    result = Converted(str(out), form, classes=classes)
    for name, samples in found.items():
        result.notes += [n for n in (*samples.index.notes, *samples.index.remarks) if n not in result.notes]
        result.pictures[name] = len(samples)
        result.objects[name] = sum(len(p.objects) for p in splits[len(result.objects)].pictures)
    what = (
        "masks that cannot be used, of which the box is kept"
        if options.format == "coco"
        else "outlines that enclose nothing, left out"
    )
    unusable = sum(_unusable(samples, at) for samples in found.values() for at in samples.index.wrong_masks)
    result.lost = [f"{what}, in {counted(unusable, 'object')}"] if unusable else []
    if left := sum(int(_useless(samples).sum()) for samples in found.values()):
        result.lost.append(
            f"boxes that end before they begin, of no area or outside their picture, left out, in {counted(left, 'object')}"
        )
    if options.exif == "ignore" and (turned := sum(map(_turned, found.values()))):
        result.lost.append(
            "that labels are of the pictures as they are stored, beside an EXIF orientation that turns them (read the copy with "
            f"exif=ignore), in {counted(turned, 'picture')}"
        )
    result.lost += write(form, out, splits, classes, copies, crowds=options.format != "voc")
    return result


def _useless(samples: BoxSamples) -> np.ndarray:
    """Mark the objects whose box training refuses in any format, `(M,)` bool; in pictures of unknown size those without sides."""
    index = samples.index
    known = np.repeat((index.sizes > 1).all(1), np.diff(index.starts))
    return np.where(known, bad_boxes(index, "coco"), (index.boxes[:, 2:] < NARROW).any(1))


def _turned(samples: BoxSamples) -> int:
    """Count the pictures whose EXIF orientation turns them."""
    with ThreadPoolExecutor(8) as pool:
        return sum(turned > 1 for _, _, turned in pool.map(stored_size, map(samples.source, range(len(samples)))))


def _check_sizes(samples: BoxSamples) -> None:
    """Raise DataError for pictures of another size than their labels say, by which shares would be wrong."""
    names = [samples.id(i) for i in range(len(samples))]
    turned, stored = (measured(samples.images, names, exif) for exif in ("turn", "ignore"))
    stated = samples.index.sizes[samples.rows]
    there = (stored > 1).all(1)
    wrong = np.flatnonzero(there & (stated != turned).any(1) & (stated != stored).any(1)).tolist()
    if wrong:
        lines = [
            f"{names[i]}: is {stored[i][1]} x {stored[i][0]} pixels; its labels say {stated[i][1]} x {stated[i][0]}"
            for i in wrong[:20]
        ]
        more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
        hint = ["a table's width and height beside corners are the picture's: rename them where they are the box's"]
        raise DataError(
            "\n  ".join([f"{samples.images}:", *lines, *more, *(hint if samples.options.format == "csv" else [])])
        )


def _splits(options: Options) -> dict[str, BoxSamples]:
    """Read the splits that are there; the classes of the first hold for all, and what is in another one is added."""
    there = ["train", "val"] if share_of(options.val) else [split for split in WORDS if has(options, split)]
    if not there:
        return {"train": read_all(options)}
    first = {split: read_split(options, split) for split in there}
    names = list(dict.fromkeys(name for samples in first.values() for name in samples.classes))
    ordered = next(iter(first.values())).classes
    classes = (*ordered, *(name for name in names if name not in ordered))
    if classes == ordered and all(samples.classes == classes for samples in first.values()):
        return first
    return {split: read_split(options, split, _sorted(classes, options)) for split in there}


def _sorted(classes: Sequence[str], options: Options) -> tuple[str, ...]:
    """Sort the classes of formats that declare none."""
    return tuple(sorted(classes)) if options.format in ("voc", "labelme", "labelstudio", "csv") else tuple(classes)


def _pictures(samples: BoxSamples) -> list[Picture]:
    """Take the pictures of a split with all their objects, also those that are not trained on."""
    index, found, useless = samples.index, [], _useless(samples)
    for row in samples.rows.tolist():
        own = index.objects(row)
        height, width = index.sizes[row].tolist()
        objects = [
            Labelled(index.classes[index.labels[at]], tuple(index.boxes[at].tolist()), _mask(samples, at), bool(index.flags[at]))
            for at in range(own.start, own.stop) if not (useless[at] or _no_outline(samples, at))
        ]  # fmt: skip
        found.append(Picture(index.name(row), width, height, objects))
    if not found:
        raise DataError(f"{samples.options.data}: has no picture")
    return found


def _unusable(samples: BoxSamples, at: int) -> bool:
    """Say whether an object has a mask of which nothing can be used."""
    wrong = samples.index.wrong_masks.get(at, NO_MASK)
    return not wrong.startswith((PARTLY, NO_MASK))


def _no_outline(samples: BoxSamples, at: int) -> bool:
    """Say whether an object is nothing but such an outline; COCO's have boxes of their own."""
    return samples.options.format != "coco" and _unusable(samples, at)


def _mask(samples: BoxSamples, at: int):
    wrong = samples.index.wrong_masks.get(at)
    if not samples.masks or (wrong and not wrong.startswith(PARTLY)):
        return None
    return samples.index.segmentation(at)
