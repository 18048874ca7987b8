"""How the rows of a table say labels: what a task takes of them, and what it refuses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError
from trunkline.ground.names import nearest

from ..data.repairs import Repairs
from ..data.text import text_of
from ..objects.labels import rows
from ..objects.labels.labelled import twice
from ..objects.labels.spelled import TAKEN, as_whole, told, twofold
from .folder import class_name

NAMES = "classes.txt"


@dataclass
class Said:
    """What a row says of a picture, and where: its table and line."""

    label: str
    group: str
    where: str


@dataclass
class Split:
    """The pictures of a split by their path, as its table says them."""

    table: Path
    repairs: Repairs
    pictures: dict[str, Said] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    column: str = ""  # of groups


class Labelling(ABC):
    """How rows say labels; a row's label is one text, whatever it means.

    expected  the columns that a table should have
    hint      what follows where two rows of a picture say different labels
    """

    expected = ""
    hint = ""

    @abstractmethod
    def columns(self, file: Path, group: str) -> rows.Columns:
        """Find a table's columns. Raises DataError where they say no labels, or something else too."""

    @abstractmethod
    def label(self, said: dict[str, Any], columns: rows.Columns) -> str:
        """Return the label of a row by its cells; "" where it has none. Raises ValueError for what is no label."""

    @abstractmethod
    def refuse(self, split: Split) -> None:
        """Note labels of a table that cannot be taken; it is asked of each split of a table when that is read."""

    @abstractmethod
    def settle(self, split: Split) -> None:
        """Mend labels of a split, and note what is wrong with them."""

    @abstractmethod
    def named(self, base: Path, splits: Mapping[str, Split]) -> list[str]:
        """Give numbered classes their names; return what is to be said of that."""

    def place(self, label: str) -> str:
        """Return what pictures are sorted by before their paths."""
        return label


class OneLabel(Labelling):
    """One label a picture."""

    expected = "columns file and label"

    def columns(self, file: Path, group: str) -> rows.Columns:
        """Find a table's columns. Raises DataError where it has boxes or no column of labels."""
        columns = rows.columns_of(file, group)
        if boxes := columns.corners or columns.sides:
            raise DataError(
                f"{file}: has columns of boxes ({', '.join(boxes)}), and a classifier takes whole pictures: train on boxes with "
                "the recipe detect and format=csv, or remove these columns"
            )
        if not columns.label:
            raise rows.without_labels(file)
        return columns

    def label(self, said: dict[str, Any], columns: rows.Columns) -> str:
        """Return the text of the column of labels."""
        return rows.label_of(said, columns)

    def refuse(self, split: Split) -> None:
        """Note labels that are several in one."""
        labels = {said.label for said in split.pictures.values()}
        for said in split.pictures.values():
            signs = [s for s in "|;," if s in said.label]
            if any(s == "|" or {p.strip() for p in said.label.split(s)} & labels for s in signs):
                what = f"the label {said.label!r} is several: a classifier takes one class a file"
                split.problems.append((said.where, what))

    def settle(self, split: Split) -> None:
        """Take labels that all are written as 1.0 as 1, and note those that are one number in several spellings."""
        labels = {said.label for said in split.pictures.values()}
        for several in twofold(labels):
            first = {said.label: said.where for said in reversed(split.pictures.values())}
            split.problems.append((" and ".join(first[label] for label in several), told(several)))
        if plain := as_whole(labels):
            for said in split.pictures.values():
                said.label = plain[said.label]
            split.repairs.add(TAKEN, "file", len(split.pictures))

    def named(self, base: Path, splits: Mapping[str, Split]) -> list[str]:
        """Give numbered classes their names, the lines of `classes.txt`; return what is to be said of that."""
        every = [(split, said) for split in splits.values() for said in split.pictures.values()]
        names, notes = names_of(base, splits, [(split, said.where, said.label) for split, said in every])
        for _, said in every:
            said.label = names.get(said.label, said.label)
        return notes


def names_of(
    base: Path, splits: Mapping[str, Split], labels: Sequence[tuple[Split, str, str]]
) -> tuple[dict[str, str], list[str]]:
    """Find the names of numbered labels, the lines of `classes.txt`, counted from 0; and what is to be said of that.

    `labels` are each label with its split and where it stands; what is wrong with one is noted there.
    """
    if not (base / NAMES).is_file():
        return {}, []
    names = [class_name(line.strip()) for line in text_of(base / NAMES).rstrip().splitlines()]
    numbered = bool(labels) and all(label.isdecimal() for _, _, label in labels)
    if again := twice(names):
        next(iter(splits.values())).problems.append((NAMES, f"names {', '.join(again)} twice"))
    found: dict[str, str] = {}
    told: set[str] = set()
    for split, where, label in labels:
        if numbered and int(label) < len(names):
            found[label] = names[int(label)]
        if label not in told and (wrong := _unnamed(label, names, numbered)):
            split.problems.append((where, wrong))
        told.add(label)
    if not numbered:
        return {}, []
    shown = ", ".join(f"{n} is {name}" for n, name in enumerate(names[:5]))
    return found, [f"labels are positions in {NAMES}, counted from 0: {shown}{', …' if len(names) > 5 else ''}"]


def _unnamed(label: str, names: list[str], numbered: bool) -> str:
    """Say why `classes.txt` does not name a label; "" where it does."""
    if not numbered:
        return "" if label in names else f"the label {label!r} is not in {NAMES}{nearest(label, names)}"
    if int(label) >= len(names) or not names[int(label)]:
        return f"the label {label}: {NAMES} has no such line (lines are counted from 0, and it has {len(names)})"
    if label in names and names[int(label)] != label:
        return f"the label {label} may be a line of {NAMES}, counted from 0 ({names[int(label)]}), or the class called {label}"
    return ""
