"""Where the files of a detection split lie, by format, and the split that is read from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError, UnknownClasses
from trunkline.ground.names import nearest

from ..data.folds import fold_of
from ..data.split import split_rows
from ..data.words import WORDS
from ..formats import looks_like
from ..objects import voc_layout
from ..objects.index import ObjectIndex, coco_index, joined, only, voc_index
from ..objects.labels.labelled import Reading, index_of
from ..objects.labels.table import has_split, read_labels
from ..objects.names import check_names, placed
from ..objects.sizes import sized
from .options import Options
from .samples import BoxSamples, bad


@dataclass
class Part:
    """What the files of a split say: the folder of its pictures, and the index; of VOC's also the listed names."""

    images: str
    index: ObjectIndex
    listed: tuple[str, ...] = ()


def read_split(options: Options, split: str, classes: Sequence[str] | None = None) -> BoxSamples:
    """Read the split "train" or "val". `classes` are a checkpoint's, in its order.

    Where `val` is a share, it is held out of one set. Raises DataError with every problem.
    """
    if split not in WORDS:
        raise DataError(f"split {split!r}: expected one of {', '.join(WORDS)}")
    _check(options)
    share = share_of(options.val)
    if options.folds:
        return fold_of(read_whole(options, classes), options, split)
    if share and has(options, "val"):
        raise DataError(f"val={share:g}: {options.data} has a val of its own; leave val= out")
    found = read_all(options, classes) if share else _read(options, split, False, classes)
    if share:
        _refuse_empty_groups(found)
        names, labels = found.grouped or (), np.zeros(len(found.index), np.int64)
        group = "" if names else options.group
        held = split_rows(found.index.name, labels, ("",), share, group, groups=names)
        found = replace(found, rows=np.flatnonzero(held == (split == "val")))
    return _limited(found, split)


def read_all(options: Options, classes: Sequence[str] | None = None) -> BoxSamples:
    """Read all pictures of data that is not split, or that has a train split alone."""
    _check(options)
    return _read(options, "train", True, classes)


def read_whole(options: Options, classes: Sequence[str] | None = None) -> BoxSamples:
    """Read all pictures, of train and val where the data has both, to be divided into folds.

    Raises DataError as `read_split`, and where both have pictures of the same name with other objects.
    """
    if not (has(options, "train") and has(options, "val")):
        return _limited(_refuse_empty_groups(read_all(options, classes)), "val")
    train, val = (_read(options, split, False, None) for split in ("train", "val"))
    both = joined([train.images, val.images], [train.index, val.index])
    index = _in_order(both.index, classes, options.data)
    found = replace(
        train, images=both.images, index=index, rows=both.rows, bad=bad(index, options), listed=train.listed + val.listed,
        notes=both.notes,
    )  # fmt: skip
    return _limited(_refuse_empty_groups(found), "val")


def _refuse_empty_groups(found: BoxSamples) -> BoxSamples:
    """Return samples that are to be divided. Raises DataError where their table says a group of some of them alone."""
    if lacking := sum(not name for name in found.index.groups):
        raise DataError(
            f"{found.options.data}: {lacking} of {len(found.index)} pictures have an empty group, which decides on which side "
            "of a split they are: fill in the column, or leave it out"
        )
    return found


def _read(options: Options, split: str, whole: bool, classes: Sequence[str] | None) -> BoxSamples:
    """Read a split, or what is not split (`whole`), with every picture."""
    masks = options.head == "mask_rcnn"
    try:
        part = _READERS.get(options.format, _of_tools)(options, split, whole, masks)
    except DataError as error:
        hint = "" if _given(options, split) else looks_like(options.data, options.format, _FORMATS)
        if not hint:
            raise
        raise DataError(f"{error}{hint}") from None
    index = sized(part.index, part.images, options.exif)
    _check_pixels(index, options)
    index = _in_order(_chosen(index, options), classes, options.data)
    return BoxSamples(
        part.images, index, np.arange(len(index)), options, masks, bad(index, options), listed=part.listed
    )


def _check_pixels(index: ObjectIndex, options: Options) -> None:
    """Raise DataError where all boxes lie within the first pixel: they are shares of the pictures' sides."""
    if len(index.boxes) and index.sizes.min() > 2 and (index.boxes[:, :2] + index.boxes[:, 2:]).max() <= 1:
        hint = "; YOLO's files are read by format=yolo" if options.format == "csv" else ""
        raise DataError(
            f"{options.data}: all boxes lie between 0 and 1: shares of the pictures' sides, where pixels are expected{hint}"
        )


def _limited(found: BoxSamples, split: str) -> BoxSamples:
    """Keep the pictures that are trained on or scored. Raises DataError where there is none."""
    options, index, rows = found.options, found.index, found.rows
    if options.limit or (split == "train" and not options.empty):
        rows = rows[found.with_objects()[rows]]
    rows = rows[: options.limit or None]
    if not len(rows):
        raise DataError(f"{options.data}: the {split} split has no picture{' with objects' if len(index) else ''}")
    return replace(found, rows=rows)


def share_of(val: tuple[str, ...]) -> float:
    """Read `val=0.2` as the share to hold out; 0 where it names files. Raises DataError for a share that cannot be."""
    try:
        share = float(val[0]) if len(val) == 1 else 0.0
    except ValueError:
        return 0.0
    if len(val) == 1 and not 0 < share < 1:
        raise DataError(f"val={val[0]}: the share to hold out is a number between 0 and 1, as val=0.2")
    return share


_FORMATS = Options.__annotations__["format"].__args__
_READ_BY = {
    "train_images": ("coco",), "val_images": ("coco",), "origin": ("voc",), "annotator": ("labelstudio",),
    "rotated": ("labelstudio",),
}  # fmt: skip


def _check(options: Options) -> None:
    """Raise DataError for options that the format has no use for."""
    plain = Options()
    unread = [key for key, forms in _READ_BY.items()
              if options.format not in forms and getattr(options, key) != getattr(plain, key)]  # fmt: skip
    if unread:
        raise DataError(f"{', '.join(unread)}: data of format={options.format} has no use for this; leave it out")
    if options.head == "mask_rcnn" and options.format in ("voc", "csv", "yolo-obb"):
        raise DataError(
            f"head=mask_rcnn needs masks of objects, which format={options.format} does not have: use format=coco"
        )


def _chosen(index: ObjectIndex, options: Options) -> ObjectIndex:
    """Keep the categories that the options name, if they name any."""
    if unknown := [name for name in options.categories if name not in index.classes]:
        raise DataError(
            f"categories={','.join(options.categories)}: {options.data} has no {', '.join(unknown)}"
            f"{nearest(unknown[0], index.classes)}; it has {', '.join(index.classes)}"
        )
    return only(index, options.categories) if options.categories else index


def _of_coco(options: Options, split: str, whole: bool, masks: bool) -> Part:
    file = _coco_file(options, split, whole)
    images = _coco_images(options, split, file)
    index = coco_index(file, masks)
    if again := sorted({name for name in index.classes if index.classes.count(name) > 1}):
        raise DataError(f"{file}: two categories are called {', '.join(again)}")
    stripped = [name.strip() for name in index.classes]
    if again := [name for name in index.classes if stripped.count(name.strip()) > 1]:
        raise DataError(
            f"{file}: the categories {' and '.join(map(repr, again))} differ in blanks alone: make them one, or call them apart"
        )
    return Part(images, placed(index, images, file))


def _of_voc(options: Options, split: str, whole: bool, masks: bool) -> Part:
    lists = _voc_lists(options, split)
    if lists:
        parts, images = [voc_layout.listed(path) for path in lists], str(voc_layout.root_of(lists[0]).parent)
        listed = tuple(name for part in parts for name in part.names)
    else:
        parts, images = _voc_folders(options, split, whole), options.data
        listed = tuple(f"{part.below}/{name}".lstrip("/") for part in parts for name in part.names)
    index = voc_index(parts, options.origin)
    check_names([index.name(row) for row in range(len(index))], options.data)
    return Part(images, index, listed)


def _of_tools(options: Options, split: str, whole: bool, masks: bool) -> Part:
    reading = Reading(options.format, options.exif, options.rotated, options.annotator, options.group)
    given = _given(options, split)
    found = read_labels(options.data, split, given, reading, whole)
    return Part(found.images, index_of(found, masks))


def _given(options: Options, split: str) -> tuple[str, ...]:
    """Return the files or folders that the options name for a split."""
    if split == "train":
        return options.train
    return options.val if split == "val" and not share_of(options.val) else ()


def has(options: Options, split: str) -> bool:
    """Say whether the data has files of a split, by their names or as the options name them."""
    if options.format == "coco":
        return bool(_given(options, split) or _coco_files(options.data, split))
    if options.format == "voc":
        folders = _given(options, split) or WORDS[split]
        return bool(_voc_lists(options, split)) or any(voc_layout.flat(Path(options.data, word)) for word in folders)
    return has_split(options.data, options.format, split, _given(options, split))


_READERS = {"coco": _of_coco, "voc": _of_voc}


def _in_order(index: ObjectIndex, classes: Sequence[str] | None, data: str) -> ObjectIndex:
    """Renumber the labels as positions in the checkpoint's classes, which are matched by name.

    Raises DataError where objects have a class that the checkpoint lacks.
    """
    if classes is None or tuple(classes) == index.classes:
        return index
    number = {name: i for i, name in enumerate(classes)}
    used = {index.classes[n] for n in np.unique(index.labels)}
    if unknown := sorted(used - number.keys()):
        named, known = ", ".join(unknown), ", ".join(classes)
        raise UnknownClasses(
            f"{data}: objects of {named}, which the model does not know; it knows {known}",
            f"{data}: objects of {named}, and the training split has none of them, so that nothing learns them; it has {known}: "
            "put pictures of them into the training split, or choose with categories= what both splits have",
        )
    place = np.array([number.get(name, 0) for name in index.classes], np.int64)
    ids = dict(zip(index.classes, index.category_ids.tolist(), strict=True))
    free = iter(range(int(index.category_ids.max(initial=0)) + 1, 2**31))
    return replace(
        index, classes=tuple(classes), labels=place[index.labels].astype(np.min_scalar_type(len(classes))),
        category_ids=np.array([ids[name] if name in ids else next(free) for name in classes], np.int64), folder="",
    )  # fmt: skip


def _voc_lists(options: Options, split: str) -> list[Path]:
    """Find the image lists of a split; none where `given` are folders, or no list is there."""
    root = Path(options.data)
    given = _given(options, split)
    lists = [root / name for name in given]
    if not given:
        found = [root / f"ImageSets/Main/{split}.txt", *sorted(root.glob(f"VOC*/ImageSets/Main/{split}.txt"))]
        lists = [path for path in found if path.is_file()]
    if any(path.is_dir() for path in lists):
        return []
    if lacking := [path for path in lists if not path.is_file()]:
        raise DataError(f"{options.data}: there is no {', '.join(map(str, lacking))}; expected VOC's lists below it")
    if len({voc_layout.root_of(path).parent for path in lists}) > 1:
        raise DataError(f"{options.data}: the lists {', '.join(map(str, lists))} must be of roots beside each other")
    return lists


def _voc_folders(options: Options, split: str, whole: bool) -> list[voc_layout.VocPart]:
    """Find XML files that no list names: in `train/` and `val/`, or all below the folder where a share is held out."""
    root = Path(options.data)
    given = _given(options, split)
    there = [word for word in given or WORDS[split] if (root / word).is_dir()]
    found = [
        replace(part, below="/".join(filter(None, (word, part.below))))
        for word in there
        for part in voc_layout.flat(root / word)
    ]
    if whole and not found:
        found = voc_layout.flat(root)
    if found:
        return found
    hint = "; give val=0.2 to hold out a fifth of its pictures" if not whole and voc_layout.flat(root) else ""
    raise DataError(
        f"{options.data}: there is no ImageSets/Main/{split}.txt, and no XML file in {split}/; expected VOC's folders "
        f"(Annotations, ImageSets/Main, JPEGImages), or {split}=LIST below it{hint}"
    )


def _coco_file(options: Options, split: str, whole: bool) -> str:
    given = _given(options, split)
    if len(given) > 1:
        raise DataError(f"{split}={','.join(given)}: one annotation file is read")
    if given:
        return storage.join(options.data, given[0])
    found = _coco_files(options.data, split)
    unsplit = [] if found else _coco_files(options.data, "default")
    if whole:
        found = found or unsplit
    if len(found) == 1:
        return storage.join(options.data, found[0])
    hint = f"; or val=0.2 to hold out a fifth of {unsplit[0]}" if len(unsplit) == 1 else ""
    raise DataError(
        f"{options.data}: {'several annotation files' if found else 'no annotation file'} for {split} "
        f"({', '.join(found) or f'annotations/instances_{split}*.json'}); give {split}=FILE below it{hint}"
    )


def _coco_files(data: str, split: str) -> list[str]:
    """List annotation files of a split by their names, as COCO, CVAT and Roboflow call them; `default`: of no split."""
    words = WORDS.get(split, (split,))
    try:
        there = [e.name for e in storage.entries(storage.join(data, "annotations")) if not e.folder]
    except OSError:
        there = []
    found = [f"annotations/{name}" for name in there if name.endswith(".json")
             and name.removeprefix("instances_").startswith(words)]  # fmt: skip
    roboflow = [f"{word}/_annotations.coco.json" for word in words]
    whole = ["_annotations.coco.json", "result.json", "annotations.json"] if split == "default" else []
    return found or [name for name in roboflow + whole if Path(data, name).is_file()]


def _coco_images(options: Options, split: str, file: str) -> str:
    given = options.train_images if split == "train" else options.val_images
    if given:
        return storage.join(options.data, given)
    name = os.path.basename(file)  # noqa: PTH119 - an address, perhaps
    if name == "_annotations.coco.json":
        return file.removesuffix(f"/{name}")
    stem = name.removesuffix(".json").removeprefix("instances_")
    for folder in (stem, f"images/{stem}", split, f"images/{split}", "images", "JPEGImages"):
        try:
            storage.entries(storage.join(options.data, folder))
        except OSError:
            continue
        return storage.join(options.data, folder)
    raise DataError(f"{options.data}: no folder {stem}/ with the images of {name}; give {split}_images=FOLDER below it")
