"""A split of pictures with several labels each: the pictures of another reader, and which classes are in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from trunkline.ground.errors import DataError

from ..classification.folders import FolderSamples
from ..contract import Sample
from ..data.fingerprint import digest, manifest_lines
from ..data.repairs import Repair, counted
from ..detection.samples import BoxSamples
from ..images.decode import read_as, stored_size
from ..images.fit import resized
from ..objects.index import ObjectIndex
from ..scores import MOST_NAMED
from .options import Options

_SIDEWAYS = 5  # EXIF orientations from this one on turn a picture by a quarter


@dataclass(frozen=True, eq=False)
class LabelSamples:
    """One split; a `Samples`. The target is `labels`, `(K,)` int8: 1 (there), 0 (not there), -1 (unknown).

    `pictures` are those of a reader of objects, or of tables; row r of `truth` `(N, K)` int8 is of row r of its index. `said`
    is what the reading of labels is remarked by.
    """

    pictures: BoxSamples | FolderSamples
    classes: tuple[str, ...]
    truth: np.ndarray
    options: Options
    said: tuple[str, ...] = ()

    @property
    def excluded(self) -> dict[str, str]:
        """Id to reason, of what was left out."""
        return self.pictures.excluded

    @property
    def known(self) -> np.ndarray:
        """The labels of all samples, `(N, K)` int8."""
        return self.truth[self.pictures.rows]

    @property
    def grouped(self) -> list[str] | None:
        """The name of each sample's group; None where no table says it."""
        return self.pictures.grouped

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        """Read and decode a sample. Raises DataError with the file's name."""
        if isinstance(self.pictures, BoxSamples):
            sample = self.pictures[index]
        else:
            source = self.source(index)
            sample = Sample(self.id(index), source, read_as(source, self.options.depth, self.options.exif))
        labels = torch.from_numpy(self.truth[self.pictures.rows[index]].copy())
        return replace(sample, targets={"labels": labels})

    def id(self, index: int) -> str:
        """Return the picture's path below the folder of pictures."""
        return self.pictures.id(index)

    def source(self, index: int) -> str:
        """Return the picture's address."""
        return self.pictures.source(index)

    def groups(self, training: bool) -> np.ndarray | None:
        """Number the samples `(N,)` int64: those with the same number go in one batch.

        Squares all do. Whole pictures do as a detector's: by their size when resized, and in training by whether they are at
        least as wide as high. In training, pictures of tables all go in one batch, as nothing but their files says their size.
        """
        if self.options.view == "crop" or (training and not isinstance(self.pictures, BoxSamples)):
            return None
        if isinstance(self.pictures, BoxSamples):
            return self.pictures.groups(training)
        return np.array([h << 32 | w for h, w in self._seen], np.int64)

    @cached_property
    def _seen(self) -> list[tuple[int, int]]:
        """Height and width of each picture when resized, by its file's head; (0, 0) where that cannot be read."""
        found = []
        for i in range(len(self)):
            height, width, turned = stored_size(self.source(i))
            if turned >= _SIDEWAYS and self.options.exif != "ignore":
                height, width = width, height
            found.append(resized(height, width, *self.options.sides) if height and width else (0, 0))
        return found

    def units(self) -> None:
        """Return None: each picture is a file by itself."""

    def remarks(self) -> list[str]:
        """List what was mended, what is unknown, and which classes no picture shows."""
        known = self.known
        found = [*self.said, *self.pictures.notes]
        if unknown := int((known < 0).sum()):
            found.append(f"{counted(unknown, 'label')} of {known.size:,} unknown: they count in no loss and no score")
        if empty := int((known == 0).all(1).sum()):
            found.append(f"{counted(empty, 'picture')} of {len(self):,} without any of the classes")
        absent = [name for name, has in zip(self.classes, (known == 1).any(0), strict=True) if not has]
        more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
        return [*found, *([f"no picture with {', '.join(absent[:MOST_NAMED])}{more}"] if absent else [])]

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`.

        Equal digests mean equal ids, labels, sizes, and first and last bytes of files.
        """
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}

    def manifest(self) -> list[str]:
        """List one line a sample: its id, its labels, its file's size and checksum."""
        return list(manifest_lines(self._files(), len(self)))

    def _files(self) -> Iterator[tuple[str, str, str, str | None]]:
        for i, row in enumerate(self.known):
            there, unknown = (
                "|".join(name for name, value in zip(self.classes, row.tolist(), strict=True) if value == wanted)
                for wanted in (1, -1)
            )
            yield self.id(i), self.source(i), f"{there} ?{unknown}" if unknown else there, None

    def first(self, count: int) -> "LabelSamples":
        """Keep the first so many samples; 0 keeps all."""
        return replace(self, pictures=replace(self.pictures, rows=self.pictures.rows[: count or None]))

    def take(self, rows: np.ndarray, split: str) -> "LabelSamples":
        """Keep the samples where `rows` `(N,)` bool is true, as a split; what is said of all stays with train.

        Raises DataError where none is left.
        """
        if not rows.any():
            raise DataError(f"{self.options.data}: no picture is left for {split}; give fewer folds")
        kept = replace(self, pictures=self.pictures.take(rows, split))
        return kept if split == "train" else replace(kept, said=())

    def without(self, reasons: Mapping[str, str]) -> "LabelSamples":
        """Leave out some ids (id to reason), which join `excluded`; return the rest as new samples.

        Raises DataError where none is left.
        """
        if not reasons:
            return self
        kept = np.fromiter((self.id(i) not in reasons for i in range(len(self))), bool, len(self))
        if not kept.any():
            raise DataError(f"{self.options.data}: no picture can be used: {next(iter(reasons.values()))}")
        own = self.pictures
        return replace(self, pictures=replace(own, rows=own.rows[kept], excluded={**own.excluded, **reasons}))


def of_objects(found: BoxSamples, options: Options) -> LabelSamples:
    """Take the classes of objects as labels of their pictures.

    A crowd shows its class as any object does. Objects that are difficult (VOC), and those whose box cannot be used
    (on_bad_box=skip), say nothing: a class that only they have is unknown.
    """
    index = found.index
    crowds, difficult = _flags(index, options.format)
    mute = (found.bad & ~crowds) | difficult
    row = np.repeat(np.arange(len(index)), np.diff(index.starts))
    labels = index.labels.astype(np.int64)
    truth = np.zeros((len(index), len(index.classes)), np.int8)
    truth[row[mute], labels[mute]] = -1
    truth[row[~mute], labels[~mute]] = 1
    said = [*map(Repair, index.notes), *index.remarks, *_said_of(crowds, difficult, found.bad & ~crowds, truth)]
    return LabelSamples(found, index.classes, truth, options, tuple(said))


def _flags(index: ObjectIndex, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Say which objects are crowds, and which are difficult, each `(M,)` bool."""
    flags, none = index.flags.astype(bool), np.zeros(len(index.flags), bool)
    return (none, flags) if form == "voc" else (flags, none)


def _said_of(crowds: np.ndarray, difficult: np.ndarray, bad: np.ndarray, truth: np.ndarray) -> Sequence[str]:
    """Say what becomes of objects that are not like the others."""
    unknown = (
        f"the class of such an object is unknown where no other shows it ({counted(int((truth < 0).sum()), 'label')})"
    )
    lines = {
        f"{counted(int(crowds.sum()), 'crowd')} (iscrowd=1) taken as objects: their class is in the picture": crowds,
        f"{counted(int(difficult.sum()), 'object')} difficult: {unknown}": difficult,
        f"{counted(int(bad.sum()), 'object')} without area or outside the picture: {unknown}": bad,
    }
    return [line for line, which in lines.items() if which.any()]
