"""Tables of pictures and their classes: CSV and JSON lines with a column of files and one of labels.

`train.csv` and `val.csv`, one table with a column `split`, or one table to be split. The rows are put into the order of class
folders (class by class, the files of a folder before its subfolders), so that the same data trains to the same weights.
"""

import os
import unicodedata
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trunkline.ground.errors import DataError
from trunkline.ground.links import LOOP, walk
from trunkline.ground.storage import is_remote

from ..data.file_index import IndexBuilder
from ..data.media import Media
from ..data.repairs import Repairs, counted
from ..data.words import WORDS
from ..images.suffixes import PHOTOS
from ..objects.labels import rows
from ..objects.labels.labelled import Wrong
from ..objects.names import Alike
from .folder import IN_BOTH, OTHER_NAMES, SPLITS, Folder, class_name
from .shards import split_of
from .table_labels import Labelling, OneLabel, Said, Split

_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}


@dataclass(frozen=True)
class _Below:
    """What lies below the data's folder: each path with what is wrong with it, and the folders that are items by themselves."""

    media: Media
    there: dict[str, str]
    frames: frozenset[str]
    composed: dict[str, str]  # by their names in Unicode's form C; macOS writes form D
    alike: Alike

    @classmethod
    def of(cls, files: dict[str, str], media: Media) -> "_Below":
        """Collect it from the files."""
        frames = {name.rpartition("/")[0] for name in files if _suffix(name) in media.frames} - {""}
        there = files | dict.fromkeys(frames, "")
        composed = {unicodedata.normalize("NFC", name): name for name in there}
        return cls(media, there, frozenset(frames), composed, Alike(composed))

    def items(self) -> list[str]:
        """List what somebody may take for data."""
        return [*self.frames, *(name for name in self.there if _suffix(name) in self.media.known)]

    def unfit(self, name: str) -> str:
        """Say why what lies there cannot be used; "" where it can."""
        suffix = _suffix(name)
        fits = name in self.frames or suffix in self.media.read
        return self.there[name] or ("" if fits else self.media.unfit(suffix))


def layout_of(root: str | os.PathLike[str], media: Media = PHOTOS) -> str:
    """Find what says the classes of a folder: "csv" (a table) or "folders".

    Raises DataError where both do, and where there are no folders of classes and the table is none of labels.
    """
    if is_remote(root) or not Path(root).is_dir():
        return "folders"
    base, wrong = Path(root), None
    try:
        columns = {file: rows.columns_of(file) for file in _tables(base)}
        tables = [file for file, found in columns.items() if _has_labels(found)]
        wrong = next(filter(None, (_no_labels(file, found) for file, found in columns.items())), None)
    except DataError as error:
        tables, wrong = [], error
    if not tables and not wrong:
        return "folders"
    folders = _class_folders(base, media)
    if tables and len(folders) > 1:
        names = ", ".join(file.relative_to(base).as_posix() for file in tables)
        raise DataError(
            f"{root}: has folders that may be classes ({', '.join(folders)}, …) and a table of labels ({names}): "
            "give format=folders or format=csv to say which counts"
        )
    if wrong and len(folders) < 2:
        raise wrong
    return "csv" if tables else "folders"


def scan_tables(
    root: str | os.PathLike[str], media: Media = PHOTOS, group: str = "", labelling: Labelling | None = None
) -> dict[str, Folder]:
    """Scan the tables of a folder, by split; the result is as from `scan_folders`, and ids are paths below `root`.

    `group` may name the column that says which pictures belong together; else one called group does. `labelling` says how
    rows say the labels, by default one each. Raises DataError where there is no table, where it lacks a column or has one of
    boxes, and where `root` is elsewhere or has a link to a folder that it lies in.
    """
    labelling = labelling or OneLabel()
    if is_remote(root):
        raise DataError(
            f"{root}: tables (format=csv) are read from folders of this machine; copy the folder, or use shards"
        )
    base = Path(root)
    tables = _tables(base) if base.is_dir() else {}
    if not tables:
        raise DataError(
            f"{root}: has no table; expected train.csv and val.csv (or .tsv, .jsonl), or one table, with "
            f"{labelling.expected}"
        )
    there = dict(walk(os.fspath(base)))
    if loops := [f"{root}/{name}: {LOOP}" for name, wrong in there.items() if wrong == LOOP]:
        raise DataError("\n".join(loops))
    below, splits = _Below.of(there, media), dict[str, Split]()
    for file, split in tables.items():
        for name, found in _read(base, file, split, below, group, labelling).items():
            if name in splits:
                found.problems.append(
                    (_name(file, base), f"has rows of {name}, as {_name(splits[name].table, base)} has")
                )
            splits.setdefault(name, found)
    splits = dict(sorted(splits.items()))
    for split in splits.values():
        labelling.settle(split)
    _compare(splits)
    notes = labelling.named(base, splits)
    used = {name for split in splits.values() for name in split.pictures}
    if unused := sum(name not in used for name in below.items()):
        notes.append(f"{counted(unused, media.noun)} below the data's folder in no row: not used")
    next(iter(splits.values())).notes += notes
    return {name: _folder(base, name, split, labelling) for name, split in splits.items()}


def tables_of_labels(root: Path) -> dict[Path, rows.Columns]:
    """Find the tables of a folder that say the classes of pictures or clips, with their columns. Raises DataError."""
    columns = {file: rows.columns_of(file) for file in _tables(root)}
    return {file: found for file, found in columns.items() if _has_labels(found)}


def renamed(root: str | os.PathLike[str]) -> str:
    """Say which table to rename to be found as that of a split; "" where there is none."""
    named = [(file, OTHER_NAMES.get(file.stem.lower())) for file in _files(Path(root))]
    told = [f"{file.name} to {split}{file.suffix}" for file, split in named if split and file.stem not in _SPLIT_OF]
    told += [f"{file.name} to val{file.suffix}" for file, _ in named if file.stem == "test"]
    return f"Rename {' or '.join(told)}" if told else ""


def _files(base: Path) -> list[Path]:
    return sorted(file for file in base.iterdir() if file.suffix.lower() in rows.SUFFIX)


def _tables(base: Path) -> dict[Path, str]:
    """Find the tables, each with its split; "" of one whose column says it, or that is to be split."""
    found: dict[Path, str] = {}
    for split in SPLITS:
        if one := rows.find(os.fspath(base), split):
            found[one.file] = "" if one.only or one.file in found else split
    if not found and (one := rows.flat(os.fspath(base))):
        found[one.file] = ""
    return found


def _has_labels(columns: rows.Columns) -> bool:
    """Say whether a table is of the classes of pictures: not of boxes, and not of results, which have a score."""
    return bool(columns.label and not (columns.corners or columns.sides or columns.score))


def _no_labels(file: Path, columns: rows.Columns) -> DataError | None:
    if columns.label and columns.score:
        said = f"has a column {columns.score}, as a model's results have; if its labels are true ones, leave the column out"
        return DataError(f"{file}: {said}")
    other = columns.label or columns.corners or columns.sides or columns.score
    return None if other else rows.without_labels(file)


def _class_folders(base: Path, media: Media) -> list[str]:
    """List two folders, if there are as many, whose names may be classes: they hold data and are called like no split."""
    inner = [[f for f in (base / split).iterdir() if f.is_dir()] for split in SPLITS if (base / split).is_dir()]
    outer = [f for f in base.iterdir() if f.is_dir() and not split_of(f.name)]
    several = []
    for folders in (*inner, outer):
        shown = sorted(f for f in folders if not f.name.startswith("."))
        holding = [f.relative_to(base).as_posix() for f in islice((f for f in shown if _has_some(f, media)), 2)]
        several = max(several, holding, key=len)
    return several


def _has_some(folder: Path, media: Media) -> bool:
    try:
        return any(_suffix(name) in media.known | media.frames for name, _ in walk(os.fspath(folder)))
    except OSError:
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _read(base: Path, file: Path, split: str, below: _Below, group: str, labelling: Labelling) -> dict[str, Split]:
    """Read a table's rows, by split: `split`, or what a column says of each row."""
    columns, name = labelling.columns(file, group), _name(file, base)
    by_column = bool(columns.split)
    found: dict[str, Split] = {} if by_column and not split else {split: Split(file, Repairs(name))}
    wrong, where, tests = Wrong(), rows.Found(base, file), 0
    lines: list[tuple[str, str]] = []
    for row in rows.rows_of(file, columns, wrong, labelling.label):
        line = f"{name}: line {row.line}"
        own = _SPLIT_OF.get(row.split, "") if by_column else split
        if by_column and (not own or (split and own != split)):
            expected = split or ", ".join(_SPLIT_OF)
            lines.append((line, f"{columns.split}={row.split!r}: expected {expected}"))
        elif own == "test":
            tests += 1
        else:
            one = found.setdefault(own, Split(file, Repairs(name)))
            _add(one, row, line, below, where, labelling)
    found = dict(sorted(found.items())) or {"": Split(file, Repairs(name))}
    first = next(iter(found.values()))
    first.problems += [*((name, text.removeprefix(f"{file}: ")) for text in wrong), *lines]
    if tests:
        first.notes.append(f"{name}: {counted(tests, 'row')} of split=test not read")
    if columns.score:
        first.notes.append(f"{name}: the column {columns.score} is not read: all rows count as true labels")
    for one in found.values():
        one.column = columns.group or ""
        labelling.refuse(one)
    return found


def _add(split: Split, row: rows.Row, line: str, below: _Below, where: rows.Found, labelling: Labelling) -> None:
    """Take a row into its split, or note what is wrong with it."""
    given = unicodedata.normalize("NFC", row.file).removeprefix("./")
    if ".." in given.replace("\\", "/").split("/"):
        split.problems.append((line, f"{row.file}: leads out of the data's folder"))
        return
    there, composed = below.there, below.composed
    known = there if row.file in there else composed
    if len(several := rows.places(given, known, where)) > 1:
        split.problems.append(
            (line, f"{row.file}: may be {' or '.join(several)}; write its path below the data's folder")
        )
        return
    found = (
        row.file
        if row.file in there
        else composed.get(rows.placed(given, known, where, split.repairs, below.alike) or "")
    )
    reason = ""
    if found is None:
        reason = f"there is no {below.media.noun} {row.file} below {where.data}"
    elif why := below.unfit(found):
        reason = f"{found}: {why}"
    elif not row.label:
        reason = f"{found}: has no label"
    if reason or found is None:
        split.strays[line] = reason
        return
    said = Said(class_name(row.label), row.group, line)
    first = split.pictures.setdefault(found, said)
    if (first.label, first.group) != (said.label, said.group):
        differs = "label" if first.label != said.label else "group"
        what = (
            f"{found}: has the {differs} {getattr(said, differs)!r}, and in {first.where} {getattr(first, differs)!r}"
        )
        split.problems.append((line, what + (labelling.hint if differs == "label" else "")))
    elif first is not said:
        split.repairs.add("files that stand there twice, with the same label, counted once", "row")


def _compare(splits: dict[str, Split]) -> None:
    """Say which pictures are in training and in validation; with another label there they are a problem."""
    if len(splits) < 2:
        return
    train, val = splits["train"], splits["val"]
    both = [name for name in val.pictures if name in train.pictures]
    for name in both:
        a, b = train.pictures[name], val.pictures[name]
        if a.label != b.label:
            val.problems.append((b.where, f"{name}: has the label {b.label!r}, and in {a.where} {a.label!r}"))
    if both:
        more = " …" if len(both) > 3 else ""
        val.notes.append(
            f"{counted(len(both), 'file')} {IN_BOTH}: the score counts what was learnt by heart "
            f"({', '.join(both[:3])}{more})"
        )


def _folder(base: Path, name: str, split: Split, labelling: Labelling) -> Folder:
    """Build the index of a split's pictures, in the order of class folders."""
    order = sorted(split.pictures, key=lambda file: (labelling.place(split.pictures[file].label), _order(file)))
    classes = tuple(sorted({said.label for said in split.pictures.values()}))
    number = {cls: n for n, cls in enumerate(classes)}
    builder = IndexBuilder()
    for file in order:
        builder.add(os.fsencode(file), number[split.pictures[file].label])
    table = _name(split.table, base)
    if not order:
        split.problems.append((table, f"names no file{f' of {name}' if name else ''} that can be used"))
    groups = tuple(split.pictures[file].group for file in order) if split.column else ()
    notes = [*split.repairs.lines(), *split.notes]
    return Folder(
        name, classes, builder.build(), split.strays, split.problems, table=table, groups=groups, column=split.column,
        notes=notes,
    )  # fmt: skip


def _order(file: str) -> tuple[tuple[bool, str], ...]:
    """Make a key that sorts as a walk through folders does: the files of a folder before its subfolders."""
    *folders, last = file.split("/")
    return (*((True, folder) for folder in folders), (False, last))


def _name(file: Path, base: Path) -> str:
    return file.relative_to(base).as_posix()
