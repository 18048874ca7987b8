"""A split of pictures with masks: which files it is made of, and one sample after the other."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from trunkline.ground import storage
from trunkline.ground.errors import DataError, Undecided, UnknownClasses

from ...heads.contract import VOID
from ..contract import Sample
from ..data.file_index import FileIndex, IndexBuilder, printable
from ..data.fingerprint import digest, manifest_lines
from ..images.decode import FORMATS, HOW_TO_GO_ON, as_stored, is_turned, read_turned, unsaid
from ..images.fit import resized as fitted
from .formats.encoding import Encoding, Mask, check_agrees, look_at
from .formats.seen import Seen
from .formats.tally import Tally, counted
from .formats.void import decide, word_of
from .options import Options
from .views import wanted

SPLITS = ("train", "val")
_ORIENTATION = 274  # EXIF's tag
LOOKED_AT = 32  # masks that a remark reads


@dataclass(frozen=True, eq=False)
class PixelSamples:
    """One split; a `Samples`. Sample i is row `rows[i]` of the three lists. The target is `mask`, `(H, W)` uint8, 255: void.

    With view=fit it is a Mask of torchvision's, which moves with its picture.
    """

    names: FileIndex
    images: FileIndex
    masks: FileIndex
    encoding: Encoding
    rows: np.ndarray
    options: Options
    excluded: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    notes: tuple[str, ...] = ()  # what the reader remarked
    other_palette: tuple[str, np.ndarray] | None = None  # of another split, with its file, which must be the same

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.encoding.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read and decode a sample. Raises DataError with the file's name, also if picture and mask differ in size."""
        source, mask = self.source(index), self.mask_source(index)
        image, turn = read_turned(source, self.options.depth)
        if self.options.exif == "ignore":
            image = as_stored(image, turn)
        try:
            labels = self.labels(index)
        except Undecided:
            raise
        except DataError as error:
            raise DataError(f"{error}; {HOW_TO_GO_ON}") from None
        if labels.shape != tuple(image.shape[-2:]):
            height, width = image.shape[-2:]
            swapped = labels.shape == (width, height) and is_turned(source, width, height)
            turned = " (turned by its EXIF orientation: exif=ignore reads it as it is stored)" if swapped else ""
            raise DataError(
                f"{mask}: is {labels.shape[1]} x {labels.shape[0]} pixels; its picture {source} is {width} x {height}{turned}; "
                f"{HOW_TO_GO_ON}"
            )
        if self.options.exif == "stop" and (both := unsaid(image, turn)):
            raise DataError(f"{source}: {both}; {HOW_TO_GO_ON}")
        if tally := self.__dict__.get("_tally"):
            tally.add(index, labels)
        truth = torch.from_numpy(labels)
        return Sample(
            self.id(index), source, image, {"mask": tv_tensors.Mask(truth) if self.options.view == "fit" else truth}
        )

    def watch(self) -> None:
        """Count from now on what the masks hold, whichever process decodes them; see `watched`."""
        if len(self) > LOOKED_AT:  # else the remarks have counted all of them
            self.__dict__["_tally"] = Tally.of(len(self), len(self.classes))

    def seen(self) -> Any:
        """Return what this process and its loaders counted since `watch`, to travel to the leading worker; or None."""
        tally = self.__dict__.get("_tally")
        return tally.state() if tally else None

    def watched(self, states: Sequence[Any]) -> list[str]:
        """Say what the masks hold, by what each worker has `seen`."""
        return counted(states, self.classes, self.split, self.void) if states and states[0] is not None else []

    def labels(self, index: int) -> np.ndarray:
        """Read the mask, `(H, W)` uint8, 255 for no class.

        Raises DataError for a file that cannot be used, and Undecided where 255 has two readings.
        """
        return self.mask(index).labels

    def mask(self, index: int) -> Mask:
        """Read the mask with what its file stores; raises as `labels`."""
        source = self.mask_source(index)
        found = look_at(source, self.encoding)
        if self.encoding.assumed and (count := int((found.stored.pixels == VOID).sum())):
            self._decide(index, f" in {count / found.labels.size:.1%} of its pixels")
        check_agrees(self.palette, source, found.stored)
        if self.options.strict and found.stored.form:
            raise DataError(f"strict: {source}: {found.stored.form}: would be read as numbers")
        return found

    def _decide(self, index: int, share: str) -> None:
        """Find out, once, whether 255 can be taken as no class; raises Undecided where it cannot."""
        if not self.__dict__.get("_decided"):
            decide(self.encoding, self._readable(), self.mask_source(index), share)
            self.__dict__["_decided"] = True

    def _readable(self) -> Iterator[np.ndarray]:
        """Yield the masks that can be read; what is wrong with others is told when they are decoded."""
        for i in range(len(self)):
            try:
                yield look_at(self.mask_source(i), self.encoding).labels
            except DataError:
                continue

    @cached_property
    def palette(self) -> tuple[str, np.ndarray] | None:
        """The first mask's name and palette, where it has one that can be read: the others must agree with it."""
        if self.other_palette is not None:
            return self.other_palette
        source = self.mask_source(0)
        try:
            palette = look_at(source, self.encoding).stored.palette
        except DataError:
            return None
        return None if palette is None else (source, palette)

    def id(self, index: int) -> str:
        """Return the name that picture and mask share, below the data's folder."""
        return printable(self.names.path(self.rows[index]))

    def source(self, index: int) -> str:
        """Return the picture's address."""
        return storage.join(self.options.data, os.fsdecode(self.images.path(self.rows[index])))

    def mask_source(self, index: int) -> str:
        """Return the mask's address."""
        return storage.join(self.options.data, os.fsdecode(self.masks.path(self.rows[index])))

    def groups(self, training: bool) -> np.ndarray | None:
        """Number the samples `(N,)` int64: those with the same number go in one batch.

        In training the number says, with view=fit, whether a picture is at least as wide as high, as a detector's does; None
        where all are cut to alike squares. Otherwise it is the picture's size as it is seen: its mask's, or that fitted.
        """
        fit = self.options.view == "fit"
        if training and (not fit or self.options.scale_jitter):
            return None
        if training:
            return np.array([w >= h for h, w in self._sizes], np.int64)
        seen = self._sizes
        if fit and not wanted(self.options):
            seen = [fitted(h, w, *self.options.fitted) if h else (h, w) for h, w in seen]
        return np.array([h << 32 | w for h, w in seen], np.int64)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width of each mask, from its file's head (of a .mat, its picture's); (0, 0) if that cannot be read.

        Decoding reports such a file.
        """
        files = [(self.mask_source(i), self.source(i)) for i in range(len(self))]
        return [_size(picture if mask.endswith(".mat") else mask) for mask, picture in files]

    def units(self) -> None:
        """Return None: no pictures are stored together."""

    def remarks(self) -> list[str]:
        """List what the reader remarked, what the first masks hold, and pictures smaller than the crop of training.

        Raises Undecided where the first masks have a 255 with two readings.
        """
        crops = self.split == "train" and self.options.view == "crop"
        return [*self.notes, *self._first(), *(self._small() if crops else [])]

    def _first(self) -> list[str]:
        """Remark what the first masks hold, and of how many; those that cannot be read are told when they are decoded."""
        seen, first = Seen(), range(min(LOOKED_AT, len(self)))
        for i in first:
            try:
                self.look(seen, i)
            except Undecided:
                raise
            except DataError:
                continue
        whose = f"{'the first ' if len(first) < len(self) else 'all '}{len(first)} masks of {self.split}"
        found = seen.remarks(self.classes, whose, self.void)
        return [*found, "`trunkline check` counts all masks"] if found and len(first) < len(self) else found

    def look(self, seen: Seen, index: int) -> None:
        """Count a mask in `seen`."""
        seen.add(self.mask(index))

    @property
    def void(self) -> str:
        """Which pixels are of no class, and who says so."""
        return word_of(self.encoding, self.options.format, self.options.void)

    def _small(self) -> list[str]:
        crop, short = self.options.crop_side, self.options.short
        scales = [short / min(size) if short and min(size) else 1.0 for size in self._sizes]
        small = [size for size, scale in zip(self._sizes, scales, strict=True) if 0 < round(min(size) * scale) < crop]
        if not small:
            return []
        height, width = min(small, key=min)
        return [
            f"{len(small)} of {len(self)} pictures are smaller than crop={crop} (one is {width} x {height}): what a crop lacks "
            "is padded with pixels of no class"
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Compute `{"digest", "samples", "classes"}`.

        Equal digests mean the same pictures and masks, by sizes and edges of files.
        """
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}

    def manifest(self) -> list[str]:
        """List a line for each picture and each mask."""
        return list(manifest_lines(self._files(), 2 * len(self)))

    def _files(self) -> Iterator[tuple[str, str, str, str | None]]:
        for i in range(len(self)):
            yield self.id(i), self.source(i), "picture", None
            yield f"{self.id(i)} (mask)", self.mask_source(i), "mask", None

    def take(self, rows: np.ndarray, split: str) -> "PixelSamples":
        """Keep the samples where `rows` `(N,)` bool is true, as a split; what the reader remarked stays with train."""
        kept = replace(self, rows=self.rows[rows], split=split)
        return kept if split == "train" else replace(kept, notes=(), excluded={})

    def without(self, reasons: Mapping[str, str]) -> "PixelSamples":
        """Leave out the samples whose ids are in `reasons`; they join `excluded`. Raises DataError if none is left."""
        if not reasons:
            return self
        kept = np.fromiter((self.id(i) not in reasons for i in range(len(self))), bool, len(self))
        if not kept.any():
            raise DataError(f"{self.options.data}: no picture can be used: {next(iter(reasons.values()))}")
        return replace(self, rows=self.rows[kept], excluded={**self.excluded, **reasons})


def in_order(encoding: Encoding, classes: Sequence[str], data: str, hint: str = "") -> Encoding:
    """Renumber an encoding to the positions in a checkpoint's classes, matched by name.

    A class that the data lacks gets the colour black. Raises DataError for classes that the model does not know.
    """
    number = {name: n for n, name in enumerate(classes)}
    if unknown := [name for name in encoding.classes if name not in number]:
        named, known = ", ".join(unknown), ", ".join(classes)
        raise UnknownClasses(
            f"{data}: has the classes {named}, which the model does not know; it knows {known}{hint}",
            f"{data}: has the classes {named}, and the training split has none of them; it has {known}: both splits need the "
            f"same classes{hint}",
        )
    place = {n: number[name] for n, name in enumerate(encoding.classes)} | {255: 255}
    colours = dict(zip(encoding.classes, encoding.palette, strict=True))
    palette = tuple(colours.get(name, (0, 0, 0)) for name in classes)
    return replace(
        encoding, classes=tuple(classes), values={k: place[v] for k, v in encoding.values.items()}, palette=palette
    )


def texts(names: Sequence[str]) -> FileIndex:
    """Pack names into a compact index."""
    builder = IndexBuilder()
    for name in names:
        builder.add(os.fsencode(name), 0)
    return builder.build()


def _size(source: str) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: reported when it is decoded
            with Image.open(source, formats=FORMATS) as image:
                turned = image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
