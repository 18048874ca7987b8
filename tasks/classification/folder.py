"""The class folders of one split: the form in which a walk through folders, a listing, shards and tables all give them."""

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..data.file_index import FileIndex, IndexBuilder, joined, printable
from ..data.folds import joining
from ..data.repairs import Repair, counted

SPLITS = ("train", "val")
IN_BOTH = "in train and in val"


OTHER_NAMES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "val",
    "testing": "val",
    "eval": "val",
}


@dataclass
class Folder:
    """The class folders of one split: `index.labels` count in `classes`.

    `strays` are files left out, id to reason; `empty` the folders of classes without a picture, id to what they hold.
    """

    name: str  # "train", "val", or "" where the root itself holds the classes
    classes: tuple[str, ...]
    index: FileIndex
    strays: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (file or folder, what is wrong)
    empty: dict[str, str] = field(default_factory=dict)
    table: str = ""  # the file that says the classes, where it is not the folders
    groups: tuple[str, ...] = ()  # of each row, what its column of groups says
    column: str = ""  # that column's name
    notes: list[str] = field(default_factory=list)  # repairs and remarks

    def skippable(self, where: str) -> bool:
        """Say whether something is left of the split, and of the class, when the stray file `where` is left out."""
        return len(self.index) > 0 and not any(where.startswith(f"{cls}/") for cls in self.empty)

    @property
    def place(self) -> str:
        """Name the folder or table as messages do."""
        return self.table or (f"{self.name}/" if self.name else "the data")


def as_one(folders: Mapping[str, Folder]) -> Folder:
    """Put the splits of a data set together, to be divided into folds.

    The classes are those of all. A picture that stands in two tables counts once, which is said; where only one of them has a
    column of groups, that is a problem.
    """
    first, *others = folders.values()
    if not others:
        return replace(first, name="")
    parts = [_kept(first, set()), *(_kept(other, _paths(first)) for other in others)]
    classes = tuple(sorted({name for part in parts for name in part.classes}))
    number = {name: n for n, name in enumerate(classes)}
    indexes = [
        replace(p.index, labels=np.array([number[c] for c in p.classes], np.int64)[p.index.labels]) for p in parts
    ]
    notes = [line for p in parts for line in p.notes]
    sizes = [f"{counted(len(p.index), 'sample')} of {p.place}" for p in parts]
    there = {
        name for p, index in zip(parts, indexes, strict=True) for name in np.array(classes)[np.unique(index.labels)]
    }
    problems = [problem for p in folders.values() for problem in p.problems]
    having = [p.place for p in parts if p.column]
    if 0 < len(having) < len(parts):
        lacking = ", ".join(p.place for p in parts if not p.column)
        problems.append((having[0], f"has a column of groups, and {lacking} has none: give it one, too"))
    return Folder(
        "", classes, joined(indexes), {k: v for p in parts for k, v in p.strays.items()}, problems,
        {k: v for p in parts for k, v in p.empty.items() if class_name(k.rpartition("/")[2]) not in there},
        " and ".join(p.table for p in parts if p.table), tuple(name for p in parts for name in p.groups), parts[0].column,
        [*notes, joining(sizes)],
    )  # fmt: skip


def _paths(folder: Folder) -> set[bytes]:
    return {folder.index.path(row) for row in range(len(folder.index))} if folder.table else set()


def _kept(folder: Folder, known: set[bytes]) -> Folder:
    """Leave out the pictures that are known already, and say so. What a split says of doubles is over, too."""
    index = folder.index
    notes = [line for line in folder.notes if IN_BOTH not in line]
    twice = np.fromiter((index.path(row) in known for row in range(len(index))), bool, len(index)) if known else None
    if twice is None or not twice.any():
        return replace(folder, notes=notes)
    builder = IndexBuilder()
    kept = np.flatnonzero(~twice).tolist()
    for row in kept:
        builder.add(index.path(row), int(index.labels[row]))
    groups = tuple(folder.groups[row] for row in kept) if folder.groups else ()
    notes.append(
        Repair(f"{folder.place}: samples that stand in train too, counted once in {counted(int(twice.sum()), 'row')}")
    )
    return replace(folder, index=builder.build(), groups=groups, notes=notes)


def class_name(name: str) -> str:
    """Convert a folder's name to the class's name: Unicode's normal form C (macOS writes D), always printable."""
    return unicodedata.normalize("NFC", printable(os.fsencode(name)))
