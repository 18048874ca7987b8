"""From options to a split of pictures with several labels, whatever its format."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError, UnknownClasses

from ..classification.folder import Folder, as_one
from ..classification.folders import (
    FolderSamples,
    class_problems,
    classes_of,
    divided_folders,
    lacks,
    samples_of,
    whole_folders,
)
from ..classification.tables import scan_tables
from ..data.folds import fold_of
from ..data.words import WORDS
from ..detection.options import Options as ObjectOptions
from ..detection.splits import read_all, read_split, read_whole, share_of
from ..formats import looks_like
from ..objects.labels import rows
from .label_table import SeveralLabels
from .options import Options
from .samples import LabelSamples, of_objects

TABLE = "table"
OBJECTS = tuple(form for form in Options.__annotations__["format"].__args__ if form != TABLE)
"""The formats of objects."""
_SHARED = (
    "data", "format", "train", "val", "train_images", "val_images", "categories", "exif", "origin", "rotated", "annotator",
    "depth", "on_bad_box", "group",
)  # fmt: skip
_UNREAD = ("train", "train_images", "val_images", "categories", "origin", "rotated", "annotator", "on_bad_box")


def read_labels(options: Options, split: str, classes: Sequence[str] | None = None) -> LabelSamples:
    """Read the split "train" or "val"; `classes` are a checkpoint's, in its order. Raises DataError with every problem."""
    if split not in WORDS:
        raise DataError(f"split {split!r}: expected one of {', '.join(WORDS)}")
    if options.folds:
        return fold_of(read_whole_labels(options, classes), options, split)
    if options.format == TABLE:
        found = read_tables(options, classes)
        if split not in found:
            raise DataError(lacks(options.data, split, {name: one.pictures for name, one in found.items()}))  # type: ignore[misc]
        return found[split].first(options.limit)
    return _objects(options, split, lambda plain: read_split(plain, split, classes)).first(options.limit)


def read_whole_labels(options: Options, classes: Sequence[str] | None = None) -> LabelSamples:
    """Read all pictures, of train and val where the data has both, to be divided into folds. Raises as `read_labels`."""
    if options.format == TABLE:
        labelling, folders = scanned(options)
        folders, o = {"": as_one(folders)}, options
        pictures = whole_folders(o.data, _bare(folders), o.group, None, o.on_bad_sample, o.depth)
        return _labelled(o, labelling, folders, {"": pictures}, classes)[""].first(o.limit)
    return _objects(options, "train", lambda plain: read_whole(plain, classes)).first(options.limit)


def read_unsplit(options: Options, classes: Sequence[str] | None = None) -> LabelSamples:
    """Read all pictures of objects that are not split, or have a train split alone. Raises DataError as `read_labels`."""
    return _objects(options, "train", lambda plain: read_all(plain, classes))


def objects_of(options: Options) -> ObjectOptions:
    """Make the options of the detection task by which the objects are read, pictures without any among them."""
    given: Any = {key: getattr(options, key) for key in _SHARED}
    size, longest = options.sides
    return ObjectOptions(**given, empty=True, size=size, longest=longest, jitter=options.jitter)


def _objects(options: Options, split: str, read: Any) -> LabelSamples:
    try:
        return of_objects(read(objects_of(options)), options)
    except UnknownClasses:
        raise
    except DataError as error:
        raise DataError(f"{error}{_hint(options.data, split)}") from None


def _hint(data: str, split: str) -> str:
    """Say that a folder has a table of labels, and which format reads it; "" where it has none."""
    try:
        found = rows.find(data, split) or rows.flat(data)
        if found is None:
            return ""
        SeveralLabels().columns(found.file, "")
    except (DataError, OSError):
        return ""
    return f"; {found.file.name} may be a table of labels of whole pictures, which format=table reads"


def read_tables(options: Options, classes: Sequence[str] | None = None) -> dict[str, LabelSamples]:
    """Read the splits of tables of labels: train and val, by their own tables or as `val` divides one.

    Raises DataError with every problem.
    """
    (labelling, folders), o = scanned(options), options
    pictures = divided_folders(o.data, _bare(folders), share_of(o.val), o.group, None, o.on_bad_sample, o.depth)
    return _labelled(o, labelling, folders, pictures, classes)


def scanned(options: Options) -> tuple[SeveralLabels, Mapping[str, Folder]]:
    """Scan the tables. Raises DataError for options that they have no use for, and where they lack a part."""
    plain = Options()
    unread = [key for key in _UNREAD if getattr(options, key) != getattr(plain, key)]
    unread += ["val"] if options.val and not share_of(options.val) else []
    if unread:
        tables = "; tables are called train.csv and val.csv, or are one with a column split"
        raise DataError(
            f"{', '.join(unread)}: data of format=table has no use for this; leave it out"
            f"{tables if {'train', 'val'} & {*unread} else ''}"
        )
    labelling = SeveralLabels()
    try:
        return labelling, scan_tables(options.data, group=options.group, labelling=labelling)
    except DataError as error:
        hint = looks_like(options.data, TABLE, OBJECTS) if Path(options.data).is_dir() else ""
        raise DataError(f"{error}{hint}") from None


def _bare(folders: Mapping[str, Folder]) -> dict[str, Folder]:
    """Take the pictures of folders as all of one class, so that they are held out and grouped whatever their labels are."""
    return {
        name: replace(f, classes=("",), index=replace(f.index, labels=np.zeros(len(f.index), np.uint8)))
        for name, f in folders.items()
    }


def with_classes(labelling: SeveralLabels, folders: Mapping[str, Folder]) -> dict[str, Folder]:
    """Give scanned folders the classes of their labels in place of the labels' texts."""
    return {name: replace(f, classes=labelling.classes(f.classes)) for name, f in folders.items()}


def _labelled(
    options: Options,
    labelling: SeveralLabels,
    folders: Mapping[str, Folder],
    pictures: Mapping[str, FolderSamples],
    classes: Sequence[str] | None,
) -> dict[str, LabelSamples]:
    """Add the labels to pictures of scanned tables. Raises DataError where their classes are not those that count."""
    own = with_classes(labelling, folders)
    if wrong := class_problems(own, classes):
        raise DataError("\n  ".join([f"{options.data}:", *wrong]))
    known = classes_of(own, classes)
    if not known:
        raise DataError(f"{options.data}: no row has a label; expected {labelling.expected}")
    truth = {name: labelling.truth(f.classes, known)[f.index.labels] for name, f in folders.items()}
    (first, *_) = truth.values()  # both parts of a table that is divided have its rows
    return {name: LabelSamples(found, known, truth.get(name, first), options) for name, found in pictures.items()}


def apart(
    options: Options, labelling: SeveralLabels, folders: Mapping[str, Folder], classes: Sequence[str] | None
) -> dict[str, LabelSamples]:
    """Make samples of scanned tables as they are, by the names of their splits, also where their classes differ."""
    own = with_classes(labelling, folders)
    known = tuple(dict.fromkeys([*classes_of(own, classes), *(name for f in own.values() for name in f.classes)]))
    return {
        name: LabelSamples(
            samples_of(options.data, _bare({name: f})[name]), known, labelling.truth(f.classes, known)[f.index.labels],
            options,
        )
        for name, f in folders.items()
    }  # fmt: skip
