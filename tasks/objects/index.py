"""The images of a split with their objects, as flat arrays: built once from COCO or VOC files, kept in a cache, mapped."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trunkline.ground import storage
from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import DataError

from ..data.folds import joining
from ..data.repairs import Repair, counted
from .coco_file import NULL, Objects, Truth, read_truth
from .polygons import usable
from .voc_file import VocAnnotation, read_annotations
from .voc_layout import VocPart, by_stem, picture_of

VERSION = 4  # of the cache's format
_HERE = "\0"  # stands in the cache for the file's name


@dataclass(frozen=True, eq=False)
class ObjectIndex:
    """Row i is an image; its objects are `starts[i]` to `starts[i + 1]`.

    `names` are paths as one array of bytes, which end at `name_ends`; `sizes` are `(N, 2)` height and width as
    annotated. Of each object: `boxes` `(M, 4)` float64 x, y, width, height from 0; `labels`, positions in `classes`;
    `flags`, 1 for a crowd (COCO) or a difficult one (VOC); `area`; `object_ids`; `masks`, its segmentation's JSON,
    ending at `mask_ends` (COCO, where masks were asked for). `image_ids` are COCO's, or the row's number from 1.
    `category_ids[n]` is COCO's number of class n. `notes` are the file's repairs, a line each, and `remarks` what else a
    person should know of it. `wrong_masks` says what is
    wrong with the mask of an object, by its place; where the reason begins with PARTLY, the rest of it can be used and is
    what `masks` has. A size of 0 is one that the file does not say. `groups` is what each image belongs to, as a table's
    column says; empty where nothing says it.
    """

    classes: tuple[str, ...]
    category_ids: np.ndarray
    image_ids: np.ndarray
    names: np.ndarray
    name_ends: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    flags: np.ndarray
    area: np.ndarray
    object_ids: np.ndarray
    masks: np.ndarray
    mask_ends: np.ndarray
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    wrong_masks: Mapping[int, str] = field(default_factory=dict)
    folder: str = ""  # of the cache that it is mapped from
    file: str = ""  # whose notes the cache's are
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> Any:
        return (_load, (Path(self.folder), self.file)) if self.folder else (ObjectIndex, tuple(vars(self).values()))

    def name(self, row: int) -> str:
        """Return the image's path below the folder of images."""
        return os.fsdecode(_slice(self.names, self.name_ends, row).tobytes())

    def objects(self, row: int) -> slice:
        """Return the slice of an image's objects."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    def segmentation(self, at: int) -> Any:
        """Decode the polygons or the run-length code of an object; None where it has none."""
        found = _slice(self.masks, self.mask_ends, at).tobytes()
        return msgspec.json.decode(found) if found else None

    def mark(self, row: int) -> str:
        """Compute a hash of an image's annotations: 64 bits in hex."""
        own = self.objects(row)
        found = hashlib.blake2b(digest_size=8)
        for column in (self.boxes, self.labels, self.flags, self.area):
            found.update(np.ascontiguousarray(column[own]).tobytes())
        if len(self.mask_ends) and own.stop > own.start:
            first = self.mask_ends[own.start - 1] if own.start else 0
            found.update(self.masks[first : self.mask_ends[own.stop - 1]].tobytes())
        return found.hexdigest()


_ARRAYS = tuple(f.name for f in fields(ObjectIndex) if f.type in ("np.ndarray", np.ndarray))


def _slice(blob: np.ndarray, ends: np.ndarray, row: int) -> np.ndarray:
    return blob[ends[row - 1] if row else 0 : ends[row]]


def coco_index(file: str, masks: bool = False) -> ObjectIndex:
    """Build the index of a COCO annotation file, with `masks` with the objects' segmentations.

    It is cached under the digest of the file's bytes, so that it is quickly read again. Raises DataError with every
    problem of the file.
    """
    try:
        digest = hashlib.sha256(storage.read(file)).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    folder = cache_folder() / "index" / f"{digest[:32]}-{'masks' if masks else 'boxes'}-{VERSION}"
    found = _load(folder, file)
    if found is not None:
        return found
    truth = read_truth(file, masks)
    return _keep(_from_truth(truth, usable(truth.objects, truth.images) if masks else {}), folder, file)


def _from_truth(truth: Truth, wrong: Mapping[int, str]) -> ObjectIndex:
    images, objects = truth.images, truth.objects
    place = np.argsort(images.ids, kind="stable")
    row_of = place[np.searchsorted(images.ids[place], objects.image_ids)]
    order = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of, minlength=len(images.ids))
    ids = np.array(list(truth.categories), np.int64)
    by_id = np.argsort(ids)
    labels = by_id[np.searchsorted(ids[by_id], objects.category_ids)]
    names = [os.fsencode(name) for name in images.names]
    masks, ends = _masks(objects, order)
    return ObjectIndex(
        classes=tuple(truth.categories.values()),
        category_ids=ids,
        image_ids=images.ids,
        names=np.frombuffer(b"".join(names), np.uint8),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        sizes=np.stack([images.heights, images.widths], 1).astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=objects.boxes[order],
        labels=labels[order].astype(np.min_scalar_type(len(ids))),
        flags=objects.crowd[order].astype(np.uint8),
        area=objects.area[order],
        object_ids=objects.ids[order],
        masks=masks,
        mask_ends=ends,
        notes=tuple(truth.warnings),
        remarks=tuple(truth.remarks),
        wrong_masks={place: wrong[row] for place, row in enumerate(order.tolist()) if row in wrong} if wrong else {},
    )


def _masks(objects: Objects, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if objects.segmentation is None:
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    given = [b"" if raw == NULL else raw for raw in map(objects.segmentation.__getitem__, order.tolist())]
    ends = np.cumsum([memoryview(raw).nbytes for raw in given], dtype=np.int64)
    return np.frombuffer(b"".join(given), np.uint8), ends


def voc_index(parts: Sequence[VocPart], origin: int = 1) -> ObjectIndex:
    """Build the index of VOC's annotations; the classes are the sorted names of the objects.

    `origin` is the number of the first pixel: VOC counts from 1. Raises DataError with every problem.
    """
    found: list[VocAnnotation] = []
    names: list[bytes] = []
    notes: list[str] = []
    for part in parts:
        found += (own := read_annotations(part.annotations, part.names, part.repairs))
        pictures = by_stem(part.pictures)
        before = f"{part.below}/" if part.below else ""
        files = (picture_of(pictures, n, a.filename) for a, n in zip(own, part.names, strict=True))
        names += [os.fsencode(f"{before}{file}") for file in files]
        notes += part.repairs.lines()
    objects = [o for annotation in found for o in annotation.objects]
    known = tuple(sorted({o.name for o in objects}))
    number = {name: i for i, name in enumerate(known)}
    corners = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    boxes = np.concatenate(
        [corners[:, :2] - origin, corners[:, 2:] - corners[:, :2] + 1], 1
    )  # the last pixel is within
    zeros = int((corners[:, :2] == 0).any(1).sum())
    said = f"xmin or ymin is 0 in {counted(zeros, 'box')}, and VOC counts from 1: origin=0 reads boxes that are counted from 0"
    return ObjectIndex(
        classes=known,
        category_ids=np.arange(1, len(known) + 1),
        image_ids=np.arange(1, len(found) + 1),
        names=np.frombuffer(b"".join(names), np.uint8),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        sizes=np.array([(a.height, a.width) for a in found], np.int32).reshape(-1, 2),
        starts=np.concatenate([[0], np.cumsum([len(a.objects) for a in found])]).astype(np.int64),
        boxes=boxes,
        labels=np.array([number[o.name] for o in objects], np.min_scalar_type(max(1, len(known)))),
        flags=np.array([o.difficult for o in objects], np.uint8),
        area=boxes[:, 2] * boxes[:, 3],
        object_ids=np.arange(1, len(objects) + 1),
        masks=np.zeros(0, np.uint8),
        mask_ends=np.zeros(0, np.int64),
        notes=tuple(notes),
        remarks=(said,) if zeros and origin == 1 else (),
    )


def _keep(index: ObjectIndex, folder: Path, file: str) -> ObjectIndex:
    """Save the index in the cache and map it from there; return it unchanged where nothing can be written.

    Files of the same bytes share it, so the notes are stored without the file's name.
    """
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        for name in _ARRAYS:
            np.save(beside / f"{name}.npy", getattr(index, name))
        said = {
            "classes": index.classes,
            "notes": [_HERE + line.removeprefix(file) if line.startswith(file) else line for line in index.notes],
            "remarks": index.remarks,
            "wrong_masks": [*index.wrong_masks.items()],
        }
        (beside / "said.json").write_text(json.dumps(said), encoding="utf-8")
        if _load(folder, file) is None:  # there is none, or a damaged one
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
    except OSError:
        return index
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _load(folder, file) or index


def _load(folder: Path, file: str) -> ObjectIndex | None:
    try:
        said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        texts = {
            "notes": tuple(
                file + line.removeprefix(_HERE) if line.startswith(_HERE) else line for line in said["notes"]
            ),
            "remarks": tuple(said["remarks"]),
            "wrong_masks": dict(said["wrong_masks"]),
        }
    except (OSError, ValueError, EOFError, KeyError):
        return None
    return ObjectIndex(tuple(said["classes"]), **arrays, **texts, folder=str(folder), file=file)


def only(index: ObjectIndex, names: Sequence[str]) -> ObjectIndex:
    """Keep the objects of these classes, in this order; a remark counts the others. Raises KeyError for an unknown class."""
    place = {name: n for n, name in enumerate(index.classes)}
    chosen = [place[name] for name in names]
    number = np.zeros(len(index.classes), np.int64)
    number[chosen] = np.arange(len(chosen))
    keep = np.isin(index.labels, chosen)
    before = np.concatenate([[0], np.cumsum(keep)])
    at = np.flatnonzero(keep)
    masks, ends = index.masks, index.mask_ends
    if len(ends):
        pieces = [_slice(masks, ends, i) for i in at.tolist()]
        masks, ends = np.concatenate([*pieces, masks[:0]]), np.cumsum([len(p) for p in pieces], dtype=np.int64)
    left = int(len(keep) - keep.sum())
    said = f"left out {counted(left, 'object')} of categories that were not chosen"
    return replace(
        index, classes=tuple(names), category_ids=index.category_ids[chosen], starts=before[index.starts],
        boxes=index.boxes[at], labels=number[index.labels[at].astype(np.int64)].astype(np.min_scalar_type(len(chosen))),
        flags=index.flags[at], area=index.area[at], object_ids=index.object_ids[at], masks=masks, mask_ends=ends,
        wrong_masks={int(before[i]): said for i, said in index.wrong_masks.items() if keep[i]},
        remarks=(*index.remarks, *([said] if left else [])), folder="",
    )  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """Two splits as one: the folder of all pictures, the index, which rows count once, `(N,)`, and remarks."""

    images: str
    index: ObjectIndex
    rows: np.ndarray
    notes: tuple[str, ...]


def joined(images: Sequence[str], indexes: Sequence[ObjectIndex]) -> Joined:
    """Put the pictures of two splits together, by the folders that their names are relative to.

    Classes are matched by name. Where both count their pictures from the same number, all are numbered anew, which is said;
    a picture that stands in both with the same objects counts once. Raises DataError where it has other objects there.
    """
    base, below = _common(images)
    names = [
        os.fsencode(f"{place}{i.name(row)}") for place, i in zip(below, indexes, strict=True) for row in range(len(i))
    ]
    classes, numbers = _united(indexes)
    ids = np.concatenate([i.image_ids for i in indexes])
    again = len(np.unique(ids)) < len(ids)
    groups = _groups(indexes)
    objects, first = np.cumsum([0, *(len(i.labels) for i in indexes)]), len(indexes[0])
    bytes_ = np.cumsum([0, *(len(i.masks) for i in indexes)])
    labels = [np.array(n, np.int64)[i.labels.astype(np.int64)] for n, i in zip(numbers, indexes, strict=True)]
    flat: dict[str, Any] = {
        f: np.concatenate([getattr(i, f) for i in indexes])
        for f in ("sizes", "boxes", "flags", "area", "object_ids", "masks")
    }
    whole = ObjectIndex(
        **flat,
        classes=tuple(classes),
        category_ids=np.array([*classes.values()], np.int64),
        image_ids=np.arange(1, len(ids) + 1) if again else ids,
        names=np.frombuffer(b"".join(names), np.uint8),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        starts=np.concatenate([np.zeros(1, np.int64), *(i.starts[1:] + n for i, n in zip(indexes, objects, strict=False))]),
        labels=np.concatenate(labels).astype(np.min_scalar_type(max(1, len(classes)))),
        mask_ends=np.concatenate([i.mask_ends + before for i, before in zip(indexes, bytes_, strict=False)]),
        notes=tuple(dict.fromkeys(line for i in indexes for line in i.notes)),
        remarks=tuple(dict.fromkeys(line for i in indexes for line in i.remarks)),
        wrong_masks={at + int(n): why for i, n in zip(indexes, objects, strict=False) for at, why in i.wrong_masks.items()},
        groups=groups,
    )  # fmt: skip
    notes = [joining([f"{counted(len(i), 'picture')} of {s}" for i, s in zip(indexes, ("train", "val"), strict=True)])]
    notes += ["both number their pictures from the same number: all are numbered anew, from 1"] * again
    row_of = {name: row for row, name in enumerate(names[:first])}
    both = [(row_of[name], row) for row, name in enumerate(names[first:], first) if name in row_of]
    if wrong := [whole.name(b) for a, b in both if whole.mark(a) != whole.mark(b)]:
        raise DataError(
            f"{base}: {counted(len(wrong), 'picture')} in train and in val with other objects: {', '.join(wrong[:3])}; leave "
            "each in one of them, as in folds a picture counts once"
        )
    if both:
        notes.append(Repair(f"pictures that stand in train and in val, counted once: {len(both)}"))
    rows = np.setdiff1d(np.arange(len(names)), [b for _, b in both])
    return Joined(base, whole, rows, tuple(notes))


def _groups(indexes: Sequence[ObjectIndex]) -> tuple[str, ...]:
    """Join the groups of train and val. Raises DataError where only one of them says groups."""
    having = [bool(i.groups) for i in indexes]
    if any(having) and not all(having):
        said, silent = ("train", "val") if having[0] else ("val", "train")
        raise DataError(f"the table of {said} has a column of groups, and that of {silent} has none: give it one, too")
    return tuple(name for i in indexes for name in i.groups)


def _united(indexes: Sequence[ObjectIndex]) -> tuple[dict[str, int], list[list[int]]]:
    """Return the classes of all with their category ids, the first one's first, and for each index what its numbers become."""
    classes: dict[str, int] = {}
    for index in indexes:
        for name, number in zip(index.classes, index.category_ids.tolist(), strict=True):
            taken = {*classes.values()}
            classes.setdefault(name, number if number not in taken else max(taken) + 1)
    place = {name: n for n, name in enumerate(classes)}
    return classes, [[place[name] for name in index.classes] for index in indexes]


def _common(folders: Sequence[str]) -> tuple[str, list[str]]:
    """Find the deepest folder that holds all these, and what leads from it to each: empty, or ending in a slash."""
    parts = [folder.rstrip("/").split("/") for folder in folders]
    depth = next(
        (n for n, several in enumerate(zip(*parts, strict=False)) if len({*several}) > 1), min(map(len, parts))
    )
    return "/".join(parts[0][:depth]) or "/", ["".join(f"{p}/" for p in own[depth:]) for own in parts]
