"""A split of pictures with boxes (and masks): which files it is made of, and one sample after the other."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..contract import Sample
from ..data.fingerprint import digest, manifest_lines
from ..data.repairs import counted
from ..images.decode import HOW_TO_GO_ON, is_turned, read_image, stored_size
from ..objects.geometry import resized
from ..objects.index import ObjectIndex, coco_index, names_of, root_of, voc_index
from ..objects.masks import to_bitmap
from ..objects.polygons import PARTLY
from ..scores import MOST_NAMED
from .names import MOST, check_names, placed
from .options import Options
from .transforms import box_tensor
from .views import wanted

SPLITS = ("train", "val")
NARROW = 0.01  # pixels; a box with a shorter side has no area


@dataclass(frozen=True, eq=False)
class BoxSamples:
    """One split; a `Samples`. Sample i is row `rows[i]` of the index.

    Targets: `boxes` (BoundingBoxes, x1 y1 x2 y2), `labels` int64 from 0, `original` (height, width), and with masks
    `masks` (Mask, `(n, H, W)` uint8). The objects of `bad`, crowds among them, are left out.
    """

    images: str
    index: ObjectIndex
    rows: np.ndarray
    options: Options
    masks: bool
    bad: np.ndarray  # for each of the index's objects, whether it is left out
    excluded: dict[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()  # VOC's names of the index's pictures, which its result files use

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.index.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read and decode a sample.

        Raises DataError with the file's name, also where its size is not the annotated one.
        """
        row, source = self.rows[index], self.source(index)
        image = read_image(source)
        height, width = image.shape[-2:]
        said = tuple(self.index.sizes[row].tolist())
        if (height, width) != said:
            swapped = (width, height) == said and is_turned(source, width, height)
            raise DataError(
                f"{source}: is {width} x {height} pixels; its annotation says {said[1]} x {said[0]}"
                f"{' (turned by its EXIF orientation)' if swapped else ''}; {HOW_TO_GO_ON}"
            )
        own = self.index.objects(row)
        at = np.arange(own.start, own.stop)[~self.bad[own]]
        boxes = self.index.boxes[at]
        corners = torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32))
        targets: dict[str, Any] = {
            "boxes": box_tensor(corners, (height, width)),
            "labels": torch.from_numpy(self.index.labels[at].astype(np.int64)),
            "original": (height, width),
        }
        if self.masks:
            planes = [to_bitmap(self.index.segmentation(int(i)), height, width) for i in at]
            stacked = np.stack(planes) if planes else np.zeros((0, height, width), np.uint8)
            targets["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))
        return Sample(self.id(index), source, image, targets)

    def id(self, index: int) -> str:
        """Return the picture's path below the folder of images."""
        return self.index.name(self.rows[index])

    def source(self, index: int) -> str:
        """Return the picture's address."""
        return storage.join(self.images, self.id(index))

    def groups(self, training: bool) -> np.ndarray | None:
        """Number the samples `(N,)` int64: those with the same number go in one batch.

        In training the number says whether a picture is at least as wide as high; None with `jitter`, where any
        pictures can go in one batch. Otherwise it is the picture's size when resized, or its own size where it is seen
        several times.
        """
        sizes = self.index.sizes[self.rows]
        if training:
            return None if self.options.jitter else (sizes[:, 1] >= sizes[:, 0]).astype(np.int64)
        if wanted(self.options):
            return sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1]
        seen = [resized(h, w, self.options.size, self.options.longest) for h, w in sizes.tolist()]
        return np.array([h << 32 | w for h, w in seen], np.int64)

    def units(self) -> None:
        """Return None: each picture is a file by itself."""

    def remarks(self) -> list[str]:
        """List the file's repairs, objects that are not trained on and the pictures without any other, absent classes."""
        return [*self.index.notes, *self._left_out(), *self._crowds(), *self._absent()]

    def _left_out(self) -> list[str]:
        counts = self.left_out()
        rows = np.flatnonzero(counts)
        partly = sum(said.startswith(PARTLY) for said in self.index.wrong_masks.values())
        lines = [f"left out what is degenerate in the masks of {counted(partly, 'object')}, of which the rest is kept"]
        if not len(rows):
            return lines if partly else []
        total, names = int(counts.sum()), ", ".join(self.id(i) for i in rows[:5])
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        what = "without area or outside the picture" + (", or without a usable mask" if self.index.wrong_masks else "")
        return [f"left out {counted(total, 'box')} {what}: {names}{more}", *(lines if partly else [])]

    def _crowds(self) -> list[str]:
        """Say how many objects are crowds (COCO) or difficult (VOC), and how many pictures have nothing else."""
        flags = np.concatenate([[0], np.cumsum(self.index.flags > 0)])
        of_each, objects = flags[self.index.starts[1:]] - flags[self.index.starts[:-1]], np.diff(self.index.starts)
        if not (total := int(of_each.sum())):
            return []
        only = int(((of_each == objects) & (objects > 0)).sum())
        count = f"{total:,} of {counted(int(objects.sum()), 'object')} are"
        if self.options.format == "coco":
            said = f"{count} crowds (iscrowd=1), which are not trained on, and no error to find or to miss"
        else:
            said = f"{count} difficult, which are trained on and not scored"
        return [f"{said}; {counted(only, 'picture')} have no other" if only else said]

    def _absent(self) -> list[str]:
        """Say which classes no object of this split has that is trained on or scored."""
        kept = np.concatenate([np.arange(s.start, s.stop) for s in map(self.index.objects, self.rows)])
        there = np.bincount(self.index.labels[kept[~self.bad[kept]]], minlength=len(self.classes)) > 0
        absent = [name for name, has in zip(self.classes, there, strict=True) if not has]
        more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
        return [f"no object of {', '.join(absent[:MOST_NAMED])}{more}"] if absent else []

    def left_out(self) -> np.ndarray:
        """Count the objects of each sample that are neither trained on nor scored, `(N,)` int64.

        Crowds are not among them.
        """
        crowds = self.index.flags.astype(bool) if self.options.format == "coco" else np.zeros(len(self.bad), bool)
        before = np.concatenate([[0], np.cumsum(self.bad & ~crowds)])
        return (before[self.index.starts[1:]] - before[self.index.starts[:-1]])[self.rows]

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`.

        Equal digests mean equal ids, objects, sizes, and first and last bytes of files.
        """
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}

    def manifest(self) -> list[str]:
        """List one line a sample: its id, a hash of its objects, its file's size and checksum."""
        return list(manifest_lines(self._files(), len(self)))

    def _files(self) -> Iterator[tuple[str, str, str, str | None]]:
        for i, row in enumerate(self.rows):
            yield self.id(i), self.source(i), f"objects {self.index.mark(row)}", None

    def without(self, reasons: Mapping[str, str]) -> "BoxSamples":
        """Leave out some ids (id to reason), which join `excluded`; return the rest as new samples.

        Raises DataError where none is left.
        """
        if not reasons:
            return self
        kept = np.fromiter((self.id(i) not in reasons for i in range(len(self))), bool, len(self))
        if not kept.any():
            raise DataError(f"{self.images}: no picture can be used: {next(iter(reasons.values()))}")
        return replace(self, rows=self.rows[kept], excluded={**self.excluded, **reasons})


def read_split(options: Options, split: str, classes: Sequence[str] | None = None) -> BoxSamples:
    """Read the split "train" or "val". `classes` are a checkpoint's, in its order.

    Raises DataError with every problem.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    masks, listed = options.head == "mask_rcnn", ()
    if options.format == "voc":
        if masks:
            raise DataError("head=mask_rcnn needs masks of objects, which VOC's boxes do not have: use format=coco")
        lists = _voc_lists(options, split)
        index, images = voc_index(lists, classes), str(root_of(lists[0]).parent)
        check_names([index.name(row) for row in range(len(index))], options.data)
        listed = tuple(name for path in lists for name in names_of(path))
    else:
        file = _coco_file(options, split)
        images = _coco_images(options, split, file)
        index = placed(_in_order(coco_index(file, masks), classes, file), images, file)
    index = sized(index, images)
    bad = _bad(index, options)
    rows = np.arange(len(index))
    if options.limit or (split == "train" and not options.empty):
        before = np.concatenate([[0], np.cumsum(~bad)])
        rows = np.flatnonzero(before[index.starts[1:]] > before[index.starts[:-1]])
    if options.limit:
        rows = rows[: options.limit]
    if not len(rows):
        raise DataError(f"{options.data}: the {split} split has no picture{' with objects' if len(index) else ''}")
    return BoxSamples(images, index, rows, options, masks, bad, listed=listed)


def sized(index: ObjectIndex, images: str) -> ObjectIndex:
    """Fill in the sizes of pictures that the annotations do not say, from the pictures' files.

    Raises DataError naming pictures whose EXIF orientation turns them: boxes may be meant before or after that.
    """
    rows = np.flatnonzero((index.sizes == 0).any(1))
    if not len(rows):
        return index
    sizes, turned = np.array(index.sizes), []
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(stored_size, (storage.join(images, index.name(row)) for row in rows.tolist()))
        for row, (height, width, orientation) in zip(rows.tolist(), found, strict=True):
            if orientation > 1:
                turned.append(index.name(row))
            sizes[row] = max(height, 1), max(width, 1)  # what cannot be read is told when it is decoded
    if turned:
        more = f" and {len(turned) - MOST} more" if len(turned) > MOST else ""
        raise DataError(
            f"{images}: the annotations say no width and height, and the EXIF orientation of {', '.join(turned[:MOST])}{more} "
            "turns the picture: boxes may be meant before or after that. Write each picture's width and height with its boxes: "
            "those of the picture as it is shown"
        )
    return replace(index, sizes=sizes, folder="")


def _bad(index: ObjectIndex, options: Options) -> np.ndarray:
    """Mark the objects that cannot be trained on, `(M,)` bool: crowds, and objects without area or outside the picture.

    Raises DataError listing the latter, unless `on_bad_box=skip`.
    """
    crowds = index.flags.astype(bool) if options.format == "coco" else np.zeros(len(index.flags), bool)
    wrong = bad_boxes(index, options.format) & ~crowds
    if (wrong.any() or index.wrong_masks) and options.on_bad_box == "stop":
        rows = np.flatnonzero(wrong)
        lines = [describe(index, int(i), options.format) for i in rows]
        lines += [f"{describe(index, i, 'coco')}: segmentation: {said}" for i, said in index.wrong_masks.items()]
        count = len(lines)
        lines = lines[:MOST] + ([f"and {count - MOST} more"] if count > MOST else [])
        masks = ", or with a mask that cannot be used" if index.wrong_masks else ""
        title = f"{options.data}: {counted(count, 'box')} without area, or outside the picture{masks}:"
        raise DataError("\n  ".join([title, *lines]) + "\nmend them, or leave them out with on_bad_box=skip")
    useless = [i for i, said in index.wrong_masks.items() if not said.startswith(PARTLY)]
    wrong[useless] = True
    return crowds | wrong


def bad_boxes(index: ObjectIndex, form: str) -> np.ndarray:
    """Mark the objects without area within their picture, `(M,)` bool.

    In VOC's format these include objects at most one pixel wide or high. A side of less than a hundredth of a pixel
    counts as none: networks compute in fp32, where it can be 0.
    """
    least = 1 if form == "voc" else 0
    sizes = np.repeat(index.sizes, np.diff(index.starts), 0)
    low = np.maximum(index.boxes[:, :2], 0)
    high = np.minimum(index.boxes[:, :2] + index.boxes[:, 2:], sizes[:, ::-1])
    inside, large = (high - low >= NARROW).all(1), (index.boxes[:, 2:] > least).all(1)
    return np.logical_not(np.logical_and(inside, large), dtype=bool)


def describe(index: ObjectIndex, at: int, form: str) -> str:
    """Describe an object by its picture, class, number and box, as its file has them."""
    row = int(np.searchsorted(index.starts, at, "right")) - 1
    x, y, width, height = index.boxes[at].tolist()
    voc = form == "voc"
    numbers = (x + 1, y + 1, x + width, y + height) if voc else (x, y, width, height)
    said = f"{'xmin, ymin, xmax, ymax' if voc else 'x, y, width, height'} {', '.join(f'{v:g}' for v in numbers)}"
    return f"{index.name(row)}: {index.classes[index.labels[at]]}, id {index.object_ids[at]}, {said}"


def _in_order(index: ObjectIndex, classes: Sequence[str] | None, file: str) -> ObjectIndex:
    """Renumber the labels as positions in the checkpoint's classes, which are matched by name.

    Raises DataError where two categories share a name, or where objects have a class that the checkpoint lacks.
    """
    repeated = sorted({name for name in index.classes if index.classes.count(name) > 1})
    if repeated:
        raise DataError(f"{file}: two categories are called {', '.join(repeated)}")
    if classes is None or tuple(classes) == index.classes:
        return index
    number = {name: i for i, name in enumerate(classes)}
    used = {index.classes[n] for n in np.unique(index.labels)}
    if unknown := sorted(used - number.keys()):
        raise DataError(
            f"{file}: objects of {', '.join(unknown)}, which the model does not know; it knows {', '.join(classes)}"
        )
    place = np.array([number.get(name, 0) for name in index.classes], np.int64)
    ids = dict(zip(index.classes, index.category_ids.tolist(), strict=True))
    free = iter(range(int(index.category_ids.max(initial=0)) + 1, 2**31))
    return replace(
        index, classes=tuple(classes), labels=place[index.labels].astype(np.min_scalar_type(len(classes))),
        category_ids=np.array([ids[name] if name in ids else next(free) for name in classes], np.int64), folder="",
    )  # fmt: skip


def _voc_lists(options: Options, split: str) -> list[Path]:
    root = Path(options.data)
    given = options.train if split == "train" else options.val
    lists = [root / name for name in given]
    if not given:
        found = [root / f"ImageSets/Main/{split}.txt", *sorted(root.glob(f"VOC*/ImageSets/Main/{split}.txt"))]
        lists = [path for path in found if path.is_file()]
    lacking = [path for path in lists if not path.is_file()]
    if lacking or not lists:
        raise DataError(
            f"{options.data}: there is no {', '.join(map(str, lacking)) or f'ImageSets/Main/{split}.txt'}; expected VOC's "
            f"folders (Annotations, ImageSets/Main, JPEGImages), or {split}=LIST below it"
        )
    if len({root_of(path).parent for path in lists}) > 1:
        raise DataError(f"{options.data}: the lists {', '.join(map(str, lists))} must be of roots beside each other")
    return lists


def _coco_file(options: Options, split: str) -> str:
    given = options.train if split == "train" else options.val
    if len(given) > 1:
        raise DataError(f"{split}={','.join(given)}: one annotation file is read")
    if given:
        return storage.join(options.data, given[0])
    words = {"train": ("train",), "val": ("val", "valid")}[split]
    try:
        there = [e.name for e in storage.entries(storage.join(options.data, "annotations")) if not e.folder]
    except OSError:
        there = []
    found = [f"annotations/{name}" for name in there if name.endswith(".json")
             and name.removeprefix("instances_").startswith(words)]  # fmt: skip
    if not found:
        found = [f"{word}/_annotations.coco.json" for word in words
                 if Path(options.data, word, "_annotations.coco.json").is_file()]  # fmt: skip
    if len(found) == 1:
        return storage.join(options.data, found[0])
    raise DataError(
        f"{options.data}: {'several annotation files' if found else 'no annotation file'} for {split} "
        f"({', '.join(found) or f'annotations/instances_{split}*.json'}); give {split}=FILE below it"
    )


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
