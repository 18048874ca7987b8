"""The lists that UCF-101, HMDB-51, Kinetics and Something-Something v2 are published with, and the clips that they name."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trunkline.ground.errors import DataError
from trunkline.ground.links import walk

from ..classification.folder import Folder, class_name
from ..data.file_index import IndexBuilder
from ..data.repairs import counted
from ..data.text import text_of
from .suffixes import CLIPS

_UCF = re.compile(r"(train|test)list0?(\d)\.txt")
_HMDB = re.compile(r"(.+)_test_split(\d)\.txt")
_SSV2 = re.compile(r"(something-something-v2-)?(train|validation|test)\.json")
_KINETICS = {"train": "train", "val": "val", "validate": "val", "validation": "val"}


@dataclass(frozen=True)
class Row:
    """A clip that a list names: `names`, of which one should be there, its label, and where the list says so."""

    names: tuple[str, ...]
    label: str
    where: str


@dataclass(frozen=True)
class Below:
    """The clips below a folder: each path, by its end (`CLASS/name.avi`), by its file's name and by the name without suffix."""

    paths: tuple[str, ...]

    @classmethod
    def of(cls, root: Path) -> "Below":
        """Walk through a folder; folders of frames are clips too."""
        found: dict[str, None] = {}
        for name, wrong in walk(os.fspath(root)):
            suffix = PurePosixPath(name).suffix.lower()
            if not wrong and suffix in CLIPS.known:
                found[name] = None
            elif suffix in CLIPS.frames and "/" in name:
                found[name.rpartition("/")[0]] = None
        return cls(tuple(found))

    def finder(self) -> Callable[[Sequence[str]], str | None]:
        """Return a function from the names of a row to the path of its clip; None where there is none."""
        ends: dict[str, list[str]] = {}
        for path in self.paths:
            own = PurePosixPath(path)
            stem = own.name if own.suffix.lower() not in CLIPS.known else own.stem
            for key in {f"{own.parent.name}/{stem}", stem}:
                ends.setdefault(key, []).append(path)

        def find(names: Sequence[str]) -> str | None:
            for name in names:
                if len(found := ends.get(name, ())) == 1:
                    return found[0]
            return None

        return find


def form_of(root: Path) -> str:
    """Find which of the published lists lie in a folder, or one below it; "" where none does."""
    names = [file.name for file in _near(root)]
    if any(_UCF.fullmatch(name) for name in names):
        return "ucf101"
    if sum(bool(_HMDB.fullmatch(name)) for name in names) > 1:
        return "hmdb51"
    if any(name.startswith("something-something-v2") and _SSV2.fullmatch(name) for name in names):
        return "ssv2"
    return "kinetics" if any(_is_kinetics(file) for file in _near(root) if file.suffix == ".csv") else ""


def scan_published(root: Path, form: str, split: int = 1) -> dict[str, Folder]:
    """Read the lists of a data set: `{"train": ..., "val": ...}`; what is published as test stands under val.

    Raises DataError where a list is missing or is none.
    """
    lists = {"ucf101": _ucf, "hmdb51": _hmdb, "kinetics": _kinetics, "ssv2": _ssv2}[form](root, split)
    if missing := [name for name in ("train", "val") if not lists.get(name)]:
        raise DataError(f"{root}: has no list of {' and '.join(missing)} for format={form}{_wanted(form, split)}")
    find = Below.of(root).finder()
    return {name: _folder(name, rows, find, form) for name, rows in sorted(lists.items())}


def _wanted(form: str, split: int) -> str:
    return {
        "ucf101": f"; expected trainlist0{split}.txt and testlist0{split}.txt, in it or in ucfTrainTestlist/",
        "hmdb51": f"; expected CLASS_test_split{split}.txt for each class, in it or in testTrainMulti_7030_splits/",
        "kinetics": "; expected train.csv and validate.csv (or val.csv) with columns label, youtube_id, time_start, time_end",
        "ssv2": "; expected something-something-v2-train.json and something-something-v2-validation.json",
    }[form]


def _near(root: Path) -> list[Path]:
    """List the files of a folder and of the folders in it that hold lists, in order."""
    found = [file for file in root.iterdir() if file.is_file()]
    for folder in (f for f in root.iterdir() if f.is_dir() and re.search(r"list|split|annot|label", f.name, re.I)):
        found += [file for file in folder.iterdir() if file.is_file()]
    return sorted(found)


def _ucf(root: Path, split: int) -> dict[str, list[Row]]:
    lists: dict[str, list[Row]] = {}
    for file in _near(root):
        named = _UCF.fullmatch(file.name)
        if not named or int(named[2]) != split:
            continue
        rows = lists.setdefault("train" if named[1] == "train" else "val", [])
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if not line.strip():
                continue
            name = line.split()[0]
            label, _, clip = name.rpartition("/")
            if not label:
                raise DataError(f"{file}: line {number}: {line.strip()!r}: expected CLASS/NAME.avi")
            stem = PurePosixPath(clip).stem
            rows.append(Row((f"{label}/{stem}", stem), PurePosixPath(label).name, f"{file.name}: line {number}"))
    return lists


def _hmdb(root: Path, split: int) -> dict[str, list[Row]]:
    lists: dict[str, list[Row]] = {}
    for file in _near(root):
        named = _HMDB.fullmatch(file.name)
        if not named or int(named[2]) != split:
            continue
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if not line.strip():
                continue
            name, _, mark = line.strip().rpartition(" ")
            if mark not in ("0", "1", "2"):
                raise DataError(
                    f"{file}: line {number}: {line.strip()!r}: expected NAME.avi and 1 (train), 2 (test) or 0"
                )
            if mark != "0":
                stem = PurePosixPath(name.strip()).stem
                row = Row((f"{named[1]}/{stem}", stem), named[1], f"{file.name}: line {number}")
                lists.setdefault("train" if mark == "1" else "val", []).append(row)
    return lists


def _is_kinetics(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        return {"label", "youtube_id"} <= {name.strip() for name in text.readline().split(",")}


def _kinetics(root: Path, split: int) -> dict[str, list[Row]]:
    lists: dict[str, list[Row]] = {}
    for file in (f for f in _near(root) if f.suffix == ".csv" and _is_kinetics(f)):
        with file.open(encoding="utf-8-sig", newline="") as text:
            for number, row in enumerate(csv.DictReader(text), 2):
                name = _KINETICS.get((row.get("split") or file.stem).strip().lower())
                if name is None:
                    continue
                key, where = row["youtube_id"].strip(), f"{file.name}: line {number}"
                try:
                    ends = f"_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
                except (KeyError, TypeError, ValueError):
                    raise DataError(f"{file}: line {number}: expected numbers as time_start and time_end") from None
                lists.setdefault(name, []).append(Row((key + ends, key), row["label"].strip(), where))
    return lists


def _ssv2(root: Path, split: int) -> dict[str, list[Row]]:
    lists: dict[str, list[Row]] = {}
    for file in _near(root):
        named = _SSV2.fullmatch(file.name)
        if not named or named[2] == "test":
            continue
        try:
            entries = json.loads(text_of(file))
            rows = [
                Row((str(one["id"]),), one["template"].replace("[", "").replace("]", ""), f"{file.name}: entry {n}")
                for n, one in enumerate(entries)
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{file}: expected a list of objects with id and template, as published") from None
        lists["train" if named[2] == "train" else "val"] = rows
    return lists


def _folder(name: str, rows: list[Row], find: Callable[[Sequence[str]], str | None], form: str) -> Folder:
    """Build the index of a split. Of Kinetics, whose clips vanish from the net, missing ones are counted, not told."""
    said: dict[str, Row] = {}
    strays: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    missing = 0
    for row in rows:
        path = find(row.names)
        if path is None:
            missing += 1
            if form != "kinetics":
                strays[row.where] = f"there is no clip {row.names[0]} (nor two of that name) below the data"
        elif (first := said.setdefault(path, row)).label != row.label:
            problems.append((row.where, f"{path}: has the label {row.label!r}, and in {first.where} {first.label!r}"))
    labels = sorted({class_name(row.label) for row in rows})
    builder = IndexBuilder()
    for path in sorted(said, key=lambda path: (class_name(said[path].label), path)):
        builder.add(os.fsencode(path), labels.index(class_name(said[path].label)))
    notes = [f"{len(said)} clips found of {len(rows)} listed ({form}'s {name}; the list's digest is {_digest(rows)})"]
    if repeated := len(rows) - missing - len(said):
        notes.append(f"{counted(repeated, 'row')} of clips that stand there twice, counted once")
    if not said:
        problems.append((name, "no clip of the list is there"))
    return Folder(name, tuple(labels), builder.build(), strays, problems, table=f"the list of {name}", notes=notes)


def _digest(rows: Iterable[Row]) -> str:
    """Compute BLAKE2b, 64 bits, over the names and labels of a list, in any order."""
    lines = sorted(f"{row.names[0]}\t{row.label}" for row in rows)
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
