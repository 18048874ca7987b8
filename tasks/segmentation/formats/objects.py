"""Objects drawn as masks, of COCO's format and of labelling tools: a class for every pixel, the background first."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ....heads.contract import VOID
from ...data.fingerprint import manifest_lines
from ...data.repairs import Repair, counted
from ...detection.options import Options as ObjectOptions
from ...detection.samples import BoxSamples, describe
from ...detection.splits import read_split as read_boxes
from ...detection.splits import read_whole as read_all_boxes
from ...images.decode import MAX_PIXELS
from ...objects.masks import to_bitmap
from ...objects.polygons import NO_MASK
from ..options import Options
from ..samples import PixelSamples, in_order, texts
from .encoding import Mask, numbered
from .mask_file import Stored

BACKGROUND = "background"
OBJECTS = ("coco", "yolo", "yolo-seg", "labelme", "labelstudio")
"""The formats of objects with polygons."""
_SHARED = ("data", "format", "train", "val", "train_images", "val_images", "exif", "depth", "annotator", "group")
"""The options that the objects are read by."""
LATER_COVERS = ("labelme",)
"""The formats in which a later object lies over an earlier one; in the others, where two classes overlap is void."""


@dataclass(frozen=True, eq=False)
class RasterSamples(PixelSamples):
    """One split. `objects` are drawn: `numbers[n]` for their class n, 0 for the background."""

    objects: BoxSamples | None = None
    numbers: tuple[int, ...] = ()

    @property
    def found(self) -> BoxSamples:
        """The objects."""
        assert self.objects is not None
        return self.objects

    def source(self, index: int) -> str:
        """Return the picture's address."""
        return storage.join(self.found.images, os.fsdecode(self.names.path(self.rows[index])))

    def mask_source(self, index: int) -> str:
        """Return what a message calls the mask."""
        return f"{self.found.options.data}: the annotation of {self.id(index)}"

    def mask(self, index: int) -> Mask:
        """Draw the objects' masks on one canvas `(H, W)` uint8: classes from 0, void (255) where two classes overlap.

        Of LabelMe's format, a later object covers an earlier one, and rectangles are filled, as LabelMe draws them. Crowds
        count as their class; categories that were not chosen are background. Raises DataError where the file
        states too many pixels.
        """
        row = int(self.rows[index])
        height, width = (int(side) for side in self.found.index.sizes[row])
        if height * width > MAX_PIXELS:
            raise DataError(
                f"{self.mask_source(index)}: states {width} x {height} pixels; expected those of its picture"
            )
        canvas = np.zeros((height, width), np.uint8)
        own, covers = self.found.index.objects(row), self.options.format in LATER_COVERS
        for at in range(own.start, own.stop):
            number = self.numbers[int(self.found.index.labels[at])]
            if not number:
                continue
            inside = to_bitmap(self._outline(at), height, width).astype(bool)
            other = inside & (canvas != 0) & (canvas != number)
            canvas[inside] = number
            if not covers:
                canvas[other] = VOID
        order = np.full(256, VOID, np.uint8)
        order[list(self.encoding.values)] = list(self.encoding.values.values())
        return Mask(order[canvas], Stored(canvas))

    def take(self, rows: np.ndarray, split: str) -> "RasterSamples":
        """Keep samples as a split; of train only those whose objects cover enough. Raises DataError where none is left."""
        kept = super().take(rows, split)
        assert isinstance(kept, RasterSamples)
        return kept.with_enough() if split == "train" else kept

    def with_enough(self) -> "RasterSamples":
        """Keep the pictures whose objects cover more than `least` pixels. Raises DataError where there is none."""
        least, index = self.options.least, self.found.index
        if not least:
            return self
        covered = np.where(np.array(self.numbers)[index.labels.astype(np.int64)] > 0, index.area, 0.0)
        sums = np.concatenate([[0.0], np.cumsum(covered)])
        rows = self.rows[(sums[index.starts[1:]] - sums[index.starts[:-1]])[self.rows] > least]
        if not len(rows):
            raise DataError(f"{self.options.data}: no picture has objects of more than least={least} pixels")
        return replace(self, rows=rows)

    def _outline(self, at: int) -> Any:
        """Return an object's polygons or code; its box, filled, where it has neither."""
        x, y, w, h = self.found.index.boxes[at].tolist()
        return self.found.index.segmentation(at) or [[x, y, x + w, y, x + w, y + h, x, y + h]]

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        return [(int(h), int(w)) for h, w in self.found.index.sizes[self.rows].tolist()]

    def manifest(self) -> list[str]:
        """List a line for each picture, with the mark of its objects."""
        return list(manifest_lines(self._files(), len(self)))

    def _files(self) -> Iterator[tuple[str, str, str, str | None]]:
        for i, row in enumerate(self.rows.tolist()):
            yield self.id(i), self.source(i), f"objects {self.found.index.mark(row)}", None


def read_objects(options: Options, split: str, classes: Sequence[str] | None) -> RasterSamples:
    """Read the split "train" or "val" of a format of objects; `classes` are a checkpoint's.

    Raises DataError with every problem of the annotations, for objects without a mask, for categories that cannot be used,
    and where no picture is left.
    """
    found = _drawn(options, read_boxes(_boxes(options), split), split, classes)
    return found.with_enough() if split == "train" else found


def read_all_objects(options: Options, classes: Sequence[str] | None) -> RasterSamples:
    """Read all pictures of a format of objects, of train and val together. Raises DataError as `read_objects`."""
    return _drawn(options, read_all_boxes(_boxes(options)), "val", classes)


def _boxes(options: Options) -> ObjectOptions:
    given: Any = {key: getattr(options, key) for key in _SHARED}
    return ObjectOptions(**given, head="mask_rcnn", on_bad_box="skip", empty=True)


def _drawn(options: Options, objects: BoxSamples, split: str, classes: Sequence[str] | None) -> RasterSamples:
    """Make samples whose masks are these objects, drawn."""
    wrong = dict(objects.index.wrong_masks)
    boxes = [at for at, said in wrong.items() if said == NO_MASK and options.format in LATER_COVERS]
    if listed := [f"{describe(objects.index, i, options.format)}: segmentation: {said}" for i, said in wrong.items()
                  if i not in boxes][:20]:  # fmt: skip
        raise DataError(f"{options.data}: objects whose masks cannot be used:\n  " + "\n  ".join(listed))
    names = options.categories or objects.classes
    if unknown := [name for name in names if name not in objects.classes]:
        raise DataError(
            f"categories={','.join(unknown)}: {options.data} has no such categories; it has {', '.join(objects.classes)}"
        )
    if BACKGROUND in names:
        raise DataError(
            f"{options.data}: a category is called {BACKGROUND}, which is what lies beside all objects here"
        )
    if len(names) > VOID - 1:
        raise DataError(
            f"{options.data}: has {len(names)} categories; expected up to {VOID - 1}, or choose with categories="
        )
    number = {name: n for n, name in enumerate(names, 1)}
    encoding = numbered((BACKGROUND, *names))
    hint = "" if options.categories else "; choose some of COCO's with categories="
    numbers = np.array([number.get(name, 0) for name in objects.classes])
    index = objects.index
    notes = (*map(Repair, index.notes), *index.remarks, *objects.notes, *_overlaps(options, len(boxes)))
    files = texts([index.name(row) for row in range(len(index))])
    return RasterSamples(
        files, files, files, encoding if classes is None else in_order(encoding, classes, options.data, hint),
        objects.rows[: options.limit or None], options, split=split, notes=notes,
        objects=objects,
        numbers=tuple(numbers.tolist()),
    )  # fmt: skip


def _overlaps(options: Options, boxes: int) -> list[str]:
    """Say how LabelMe's shapes are drawn."""
    if options.format not in LATER_COVERS:
        return []
    filled = f"; {counted(boxes, 'rectangle')} filled" if boxes else ""
    return [f"where shapes overlap, the later one covers the earlier, as LabelMe draws them{filled}"]
