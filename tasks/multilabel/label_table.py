"""Tables that say several labels a picture: in one column, separated, or in a column of 0 and 1 for each class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ..classification.folder import class_name
from ..classification.table_labels import NAMES, Labelling, Split, names_of
from ..data.table_rows import header
from ..objects.labels import rows
from ..objects.labels.spelled import TAKEN, as_whole, told, twofold
from ..objects.voc_file import WORDS as WORDS_OF_FLAGS

LABELS = ("labels", "classes", "tags", "categories", *rows.LABEL)
"""What a column of labels may be called."""
SIGNS = "|;"
"""What separates labels in a cell."""
NOTHING = "(none)"
_FLAGS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": -1, "-1": -1, "-1.0": -1}
_SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class Answer:
    """What a row says: the classes that are there, and those of which nobody knows; `sign` separated them, if any did."""

    present: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    sign: str = ""

    @property
    def text(self) -> str:
        """The same as one text."""
        said = "|".join(self.present) or NOTHING
        return f"{said} ?{'|'.join(self.unknown)}" if self.unknown else said


@dataclass(frozen=True)
class ClassColumns(rows.Columns):
    """The columns of a table with a column for each of `classes`; `names` are the columns' own."""

    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class SeveralLabels(Labelling):
    """Several labels a picture; it remembers what each row's text means. One is made for each reading of a folder.

    A cell of labels has them separated by `|` or `;`, or is a list (JSON lines); an empty one says that no class is there.
    In columns of classes, 1 is there, 0 is not there, and an empty cell or -1 is unknown.
    """

    expected = "columns file and labels (separated by | or ;), or file and a column of 0 and 1 for each class"
    hint = ": write all labels of a picture into one row, or leave out the row that is wrong"

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.declared: tuple[str, ...] = ()  # the classes that columns say, in their order; empty where cells do
        self._first: Path | None = None
        self._beside: dict[Path, list[str]] = {}  # columns that are not read, of tables with a column of labels
        self._names: dict[str, str] = {}
        self._mended: Counter[str] = Counter()

    def columns(self, file: Path, group: str) -> rows.Columns:
        """Find a table's columns. Raises DataError where it has boxes, no labels, or says them as no other table does."""
        found, names = rows.columns_of(file, group, LABELS), header(file, self.expected)
        if boxes := found.corners or found.sides:
            raise DataError(
                f"{file}: has columns of boxes ({', '.join(boxes)}): format=csv takes the classes of a picture's objects as its "
                "labels; for labels of whole pictures (format=table) remove these columns"
            )
        used = {found.file, found.split, found.score, found.group, found.crowd, *found.size}
        other = [name for name in names if name not in used and name != found.label]
        if self._first and bool(found.label) == bool(self.declared):
            ways = ("in one column", "in a column for each class")[:: -1 if self.declared else 1]
            raise DataError(f"{file}: says labels {ways[1]}, and {self._first.name} {ways[0]}: say them in one way")
        if found.label:
            self._first, self._beside[file] = self._first or file, other
            return found
        return self._of_classes(file, found, other)

    def _of_classes(self, file: Path, found: rows.Columns, other: Sequence[str]) -> ClassColumns:
        """Take columns as those of classes."""
        if not other:
            raise DataError(f"{file}: has no column of labels; expected {self.expected}")
        classes = tuple(class_name(name.strip()) for name in other)
        if "" in classes:
            raise DataError(f"{file}: a column has no name: call it as its class, or leave it out (an index, say)")
        if again := sorted({name for name in classes if classes.count(name) > 1}):
            raise DataError(f"{file}: two columns are called {', '.join(again)}")
        if signs := [name for name in classes if {*SIGNS} & {*name} or name == NOTHING]:
            raise DataError(f"{file}: the column {signs[0]!r} may be one class or several: call it by one class's name")
        if self._first and (extra := [name for name in classes if name not in self.declared]):
            raise DataError(
                f"{file}: has the columns {', '.join(extra[:_SHOWN])}, which {self._first.name} lacks: each class needs a "
                "column there too, or take the column out"
            )
        self._first, self.declared = self._first or file, self.declared or classes
        return ClassColumns(**vars(found), classes=classes, names=tuple(other))

    def label(self, said: dict[str, Any], columns: rows.Columns) -> str:
        """Return what a row says as one text, which `answers` has the meaning of. Raises ValueError for what is no label."""
        answer = self._flags(said, columns) if isinstance(columns, ClassColumns) else self._cell(said, columns)
        known = self.answers.setdefault(answer.text, answer)
        if answer.sign and not known.sign:
            self.answers[answer.text] = answer
        return answer.text

    def _cell(self, said: dict[str, Any], columns: rows.Columns) -> Answer:
        """Read a cell of labels."""
        value, sign = said.get(columns.label or ""), ""
        if isinstance(value, list):
            if not all(isinstance(part, str) for part in value):
                raise ValueError(f"{columns.label}={value!r}: expected a list of texts")
            parts = [part.strip() for part in value]
        else:
            text = rows.label_of(said, columns)
            signs = [one for one in SIGNS if one in text]
            if len(signs) > 1:
                raise ValueError(f"{columns.label}={text!r}: has {' and '.join(signs)}; separate labels by one of them")
            sign = "".join(signs)
            parts = [part.strip() for part in text.split(sign)] if sign else [text]
        names = [class_name(part) for part in parts if part]
        if odd := [name for name in names if {*SIGNS} & {*name} or name == NOTHING]:
            raise ValueError(f"{columns.label}={odd[0]!r}: is no name of a class")
        kept = tuple(sorted({*names}))
        self._mended["empty labels between separators, left out"] += len(parts) > 1 and len(names) < len(parts)
        self._mended["a label that stands twice in a cell, counted once"] += len(kept) < len(names)
        return Answer(kept, sign=sign)

    def _flags(self, said: dict[str, Any], columns: ClassColumns) -> Answer:
        """Read the cells of the columns of classes."""
        values = dict.fromkeys(self.declared, -1)  # a class whose column a table lacks is unknown there
        for key, name in zip(columns.names, columns.classes, strict=True):
            cell = said.get(key)
            text = "" if cell is None else str(cell).strip().lower()
            if text in _FLAGS:
                values[name] = _FLAGS[text]
            elif text in WORDS_OF_FLAGS:
                values[name] = int(WORDS_OF_FLAGS[text])
                self._mended["words (true, false, yes, no) taken as 1/0"] += 1
            else:
                raise ValueError(
                    f"{key}={cell!r}: expected 1 (there), 0 (not there), or an empty cell or -1 (unknown); leave out a column "
                    "that is no class"
                )
        there, unknown = (tuple(name for name, value in values.items() if value == wanted) for wanted in (1, -1))
        return Answer(there, unknown)

    def refuse(self, split: Split) -> None:
        """Note a table whose labels are separated in two ways, or may be one or several; count what was mended."""
        for what, count in self._mended.items():
            split.repairs.add(what, "row", count)
        self._mended.clear()
        if self.declared:
            return
        first: dict[str, str] = {}
        labels = {name for said in split.pictures.values() for name in self.answers[said.label].present}
        for said in split.pictures.values():
            answer = self.answers[said.label]
            first.setdefault(answer.sign, said.where)
            for name in answer.present:
                if "," in name and {part.strip() for part in name.split(",")} & labels:
                    what = f"the label {name!r} may be one class or several: separate labels by |"
                    split.problems.append((said.where, what))
        if {*SIGNS} <= first.keys():
            other = first[";"]
            what = f"separates labels by |, and {other} by ;, which may be part of a name: use one of them"
            split.problems.append((first["|"], what))

    def settle(self, split: Split) -> None:
        """Do nothing: labels are mended for all splits together, in `named`."""

    def named(self, base: Path, splits: Mapping[str, Split]) -> list[str]:
        """Give numbered classes their names; note labels that may be something else. Return what is to be said of it."""
        if self.declared:
            uses = [(split, split.table.name, name) for split in splits.values() for name in self.declared]
        else:
            uses = [
                (split, said.where, name) for split in splits.values() for said in split.pictures.values()
                for name in self.answers[said.label].present
            ]  # fmt: skip
            self._look(base, splits, uses)
        labels = {label for _, _, label in uses}
        plain = dict(zip(labels, labels, strict=True))
        if not self.declared and (whole := as_whole(labels)):
            plain = whole
            for split in splits.values():
                split.repairs.add(TAKEN, "file", len(split.pictures))
        names, notes = names_of(base, splits, [(split, where, plain[label]) for split, where, label in uses])
        self._names = {label: names.get(own, own) for label, own in plain.items()}
        self.declared = tuple(self._names.get(name, name) for name in self.declared)
        return notes

    def _look(self, base: Path, splits: Mapping[str, Split], uses: Sequence[tuple[Split, str, str]]) -> None:
        """Note labels of cells that may be numbers of one class, or that other columns say too."""
        labels = {label: (split, where) for split, where, label in reversed(uses)}
        for several in twofold(labels):
            split, where = labels[several[0]]
            split.problems.append((where, told(several)))
        signs = any(self.answers[said.label].sign for split in splits.values() for said in split.pictures.values())
        if labels and {*labels} <= {"0", "1", "-1"} and not signs and not (base / NAMES).is_file():
            split, where = next(iter(labels.values()))
            what = (
                "labels of 0 and 1 alone may be two classes called so, or say whether one class is there: write the classes' "
                "names, or call the column as its class"
            )
            split.problems.append((where, what))
        for split in splits.values():
            if both := [name for name in self._beside.get(split.table, ()) if class_name(name.strip()) in labels]:
                what = (
                    f"has a column of labels and columns called as labels ({', '.join(both[:_SHOWN])}): which of them say the "
                    "labels? Leave the others out"
                )
                split.problems.append((split.table.name, what))

    def place(self, label: str) -> str:
        """Return nothing: pictures are sorted by their paths alone."""
        return ""

    def classes(self, texts: Sequence[str]) -> tuple[str, ...]:
        """List the classes: of columns, in their order; else the sorted names in rows with these texts."""
        used = {name for text in texts for name in self.answers[text].present}
        return self.declared or tuple(sorted({self._names.get(name, name) for name in used}))

    def truth(self, texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Say for each text which classes are there, `(N, K)` int8: 1, 0, or -1 where nobody knows.

        Of a class that the columns do not have nobody knows.
        """
        number = {name: n for n, name in enumerate(classes)}
        found = np.zeros((len(texts), len(classes)), np.int8)
        if self.declared:
            found[:, [n for name, n in number.items() if name not in self.declared]] = -1
        for row, text in zip(found, texts, strict=True):
            for names, value in ((self.answers[text].present, 1), (self.answers[text].unknown, -1)):
                row[[number[self._names.get(name, name)] for name in names]] = value
        return found
