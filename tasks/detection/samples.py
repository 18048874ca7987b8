"""A split of pictures with boxes (and masks): which files it is made of, and one sample after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..contract import Sample
from ..data.fingerprint import digest, manifest_lines
from ..data.repairs import Repair, counted
from ..images.decode import HOW_TO_GO_ON, as_stored, is_turned, read_turned, unsaid
from ..images.fit import box_tensor, resized
from ..objects.index import ObjectIndex
from ..objects.masks import to_bitmap
from ..objects.names import MOST
from ..objects.polygons import PARTLY
from ..scores import MOST_NAMED
from .options import Options
from .views import wanted

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
    notes: tuple[str, ...] = ()  # what the reader remarked

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
        image, turned = read_turned(source, self.options.depth)
        if self.options.exif == "ignore":
            image = as_stored(image, turned)
        height, width = image.shape[-2:]
        said = tuple(self.index.sizes[row].tolist())
        if (height, width) != said:
            swapped = (width, height) == said and is_turned(source, width, height)
            raise DataError(
                f"{source}: is {width} x {height} pixels; its annotation says {said[1]} x {said[0]}"
                f"{' (turned by its EXIF orientation: exif=ignore reads it as it is stored)' if swapped else ''}; {HOW_TO_GO_ON}"
            )
        if self.options.exif == "stop" and (both := unsaid(image, turned)):
            raise DataError(f"{source}: {both}; {HOW_TO_GO_ON}")
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

    @property
    def grouped(self) -> list[str] | None:
        """The name of each sample's group; None where no table says it. Of a row that says none it is the sample's own id."""
        names = self.index.groups
        return [names[row] or self.index.name(row) for row in self.rows.tolist()] if names else None

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
        return [
            *map(Repair, self.index.notes),
            *self.index.remarks,
            *self.notes,
            *self._left_out(),
            *self._crowds(),
            *self._absent(),
        ]

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
        if self.options.format != "voc":
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
        crowds = self.index.flags.astype(bool) if self.options.format != "voc" else np.zeros(len(self.bad), bool)
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

    def with_objects(self) -> np.ndarray:
        """Mark the index's pictures that have an object which is trained on or scored, `(N,)` bool."""
        before = np.concatenate([[0], np.cumsum(~self.bad)])
        return before[self.index.starts[1:]] > before[self.index.starts[:-1]]

    def take(self, rows: np.ndarray, split: str) -> "BoxSamples":
        """Keep the samples where `rows` `(N,)` bool is true, as a split; of train only those with objects, unless `empty`.

        Raises DataError where none is left.
        """
        kept = self.rows[rows]
        if split == "train" and not self.options.empty:
            kept = kept[self.with_objects()[kept]]
        if not len(kept):
            raise DataError(f"{self.options.data}: no picture of {split} has objects; give fewer folds")
        return replace(self, rows=kept) if split == "train" else replace(self, rows=kept, notes=(), excluded={})

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


def bad(index: ObjectIndex, options: Options) -> np.ndarray:
    """Mark the objects that cannot be trained on, `(M,)` bool: crowds, and objects without area or outside the picture.

    Raises DataError listing the latter, unless `on_bad_box=skip`.
    """
    crowds = index.flags.astype(bool) if options.format != "voc" else np.zeros(len(index.flags), bool)
    wrong = bad_boxes(index, options.format) & ~crowds
    if (wrong.any() or index.wrong_masks) and options.on_bad_box == "stop":
        rows = [i for i in np.flatnonzero(wrong).tolist() if i not in index.wrong_masks]  # those are told below
        lines = [describe(index, i, options.format) for i in rows]
        key = "segmentation: " if options.format == "coco" else ""
        lines += [f"{describe(index, i, 'coco')}: {key}{said}" for i, said in index.wrong_masks.items()]
        count = len(lines)
        lines = lines[:MOST] + ([f"and {count - MOST} more"] if count > MOST else [])
        masks = ", or with a mask that cannot be used" if index.wrong_masks else ""
        title = f"{options.data}: {counted(count, 'box')} without area, or outside the picture{masks}:"
        left = not (crowds | wrong | _useless(index)).all()
        advice = "mend them, or leave them out with on_bad_box=skip" if left else "mend them: no other object is left"
        raise DataError("\n  ".join([title, *lines]) + f"\n{advice}")
    return crowds | wrong | _useless(index)


def _useless(index: ObjectIndex) -> np.ndarray:
    """Mark the objects with a mask of which nothing can be used, `(M,)` bool."""
    found = np.zeros(len(index.labels), bool)
    found[[i for i, said in index.wrong_masks.items() if not said.startswith(PARTLY)]] = True
    return found


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
