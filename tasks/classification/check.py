"""Decode every photo of class folders, compare all files by their bytes, and say everything that is wrong or odd."""

import hashlib
import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from ..checked import NONE, SAMPLE, Check
from ..data.file_index import printable
from ..data.file_loaders import run_in_order
from ..images.decode import FORMATS, decode
from .folder import OTHER_NAMES, SPLITS, Folder
from .folder_scan import renames, scan
from .folders import (
    ONE_CLASS,
    absent,
    class_problems,
    classes_of,
    empty_problems,
    group_problems,
    layout_problems,
    samples_of,
)

SMALL = 32  # pixels; a picture with a shorter side below this is odd


LONG = 5.0  # a picture with a longer side above this multiple of the shorter is odd


def check_folders(
    root: str | os.PathLike[str],
    form: str = "auto",
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check every file of class folders or of a table. `classes` are the ones to expect; `options` are the task's.

    Problems: files that cannot be read or decoded, and a layout or class lists that do not fit. Oddities: very small or
    very long pictures. Groups of files with the same bytes are listed too. Raises DataError where `root` is missing or
    holds no such folders.
    """
    group = options.get("group", "")
    folders = scan(root, form, group)
    result = Check(os.fspath(root))
    wrong = group_problems(folders, group, divided=False)
    result.problems += [{"file": ".", "what": what} for what in wrong]
    result.problems += [{"file": ".", "what": what} for what in class_problems(folders, classes)]
    result.problems += [{"file": where, "what": what} for where, what in empty_problems(folders, None)]
    one = {name for folder in folders.values() for name in folder.classes}
    if len(one) == 1 and not classes:
        (name,) = one
        result.problems.append({"file": ".", "what": ONE_CLASS.format(name, storage.join(root, name))})
    for folder in folders.values():
        result.problems += [{"file": where, "what": what} for where, what in folder.problems]
        for where, what in folder.strays.items():
            result.problem(where, what, SAMPLE if folder.skippable(where) else "")
        said = [*folder.notes, *_lacks(folder, folders, classes)]
        result.oddities += [{"file": folder.place, "what": what} for what in said]
    result.oddities += [{"file": where, "what": what} for where, what in _beside(root, folders)]
    files = _Files(os.fspath(root), folders, options.get("depth", ""))
    facts = run_in_order(partial(_examine, files), _Facts, len(files), loaders, "checking", progress)
    _tell(result, files, facts)
    if not wrong:
        result.compare_groups({name or "all": samples_of(root, folder) for name, folder in folders.items()}, group)
    result.files = len(files)
    return result


def _beside(root: str | os.PathLike[str], folders: Mapping[str, Folder]) -> list[tuple[str, str]]:
    """Say which folders beside train/ and val/ may be splits of another name, and what becomes of them."""
    if not {*folders} & {*SPLITS} or any(folder.table for folder in folders.values()):
        return []
    names = sorted(e.name for e in storage.entries(root) if e.folder and not e.name.startswith("."))
    if "val" not in folders:
        return [("val/", line) for line in layout_problems(folders, 0, lambda: renames(names))]
    others = [name for name in names if name not in SPLITS and name.lower() in OTHER_NAMES]
    return [(f"{name}/", "is not read: train/ and val/ are") for name in others]


def _lacks(folder: Folder, folders: Mapping[str, Folder], classes: Sequence[str] | None) -> list[str]:
    """Say which of the classes that count no file of a split is of, where that is not told as a problem."""
    known = {name: number for number, name in enumerate(classes_of(folders, classes))}
    if (classes is None and folder.name != "val") or not {*folder.classes} <= known.keys():
        return []
    numbers = np.array([known[name] for name in folder.classes], np.int64)
    return absent(tuple(known), numbers[folder.index.labels])


class _Files:
    """All files of all splits under one number each."""

    def __init__(self, root: str, folders: Mapping[str, Folder], depth: str = "") -> None:
        self.root, self.folders, self.depth = root, list(folders.values()), depth
        self.starts = np.cumsum([0, *(len(folder.index) for folder in self.folders)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def path(self, number: int) -> bytes:
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        return self.folders[at].index.path(number - int(self.starts[at]))

    def address(self, number: int) -> str:
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        return storage.join(self.root, self.folders[at].index.address(number - int(self.starts[at])))

    def place(self, number: int) -> tuple[str, str]:
        """Find the split ("all" for an undivided folder) and the class of a file."""
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        folder = self.folders[at]
        return folder.name or "all", folder.classes[folder.index.labels[number - int(self.starts[at])]]


class _Facts(NamedTuple):
    problem: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    format: str = ""
    mode: str = ""
    digest: bytes = b""


def _examine(files: _Files, number: int) -> _Facts:
    try:
        data = bytes(storage.read(files.address(number)))
    except OSError as error:
        return _Facts(problem=unread(files.address(number), error))
    kind, mode = _kind(data)
    facts = _Facts("", 0, 0, len(data), kind, mode, hashlib.blake2b(data, digest_size=16).digest())
    try:
        image = decode(bytearray(data), files.depth)
    except DataError as error:
        return facts._replace(problem=str(error))
    return facts._replace(width=image.shape[2], height=image.shape[1])


def _kind(data: bytes) -> tuple[str, str]:
    """Read a file's format and mode as Pillow names them; both are empty where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.format or "", image.mode
        except Exception:  # `decode` says what is wrong
            return "", ""


def _tell(result: Check, files: _Files, facts: list[_Facts]) -> None:
    result.counts = {
        folder.name or "all": dict(
            zip(
                folder.classes,
                np.bincount(folder.index.labels, minlength=len(folder.classes)).tolist(),
                strict=True,
            )
        )
        for folder in files.folders
    }
    good = [fact for fact in facts if not fact.problem]
    for name, values in (
        ("width", [fact.width for fact in good]),
        ("height", [fact.height for fact in good]),
        ("bytes", [fact.size for fact in good]),
    ):
        if values:
            result.sizes[name] = (min(values), float(np.median(values)), max(values))
    result.formats = dict(Counter(fact.format for fact in good).most_common())
    result.modes = dict(Counter(fact.mode for fact in good).most_common())
    some = len(good) < len(facts)
    usable = {files.place(number) for number, fact in enumerate(facts) if not fact.problem} if some else set()
    for number, fact in enumerate(facts):
        if fact.problem:  # of a class that has others
            skip = SAMPLE if files.place(number) in usable else ""
            result.problem(printable(files.path(number)), fact.problem, skip)
        elif what := _odd(fact):
            result.oddities.append({"file": printable(files.path(number)), "what": what})
    _tell_duplicates(result, files, facts)


def _odd(fact: _Facts) -> str:
    short, long = sorted((fact.width, fact.height))
    if short < SMALL:
        return f"is very small: {fact.width} x {fact.height} pixels"
    if long > LONG * short:
        return f"is very long: {fact.width} x {fact.height} pixels"
    return ""


def _tell_duplicates(result: Check, files: _Files, facts: list[_Facts]) -> None:
    same: dict[bytes, list[int]] = defaultdict(list)
    for number, fact in enumerate(facts):
        if fact.size:
            same[fact.digest].append(number)
    for numbers in same.values():
        if len(numbers) < 2:
            continue
        places = [files.place(number) for number in numbers]
        names = [printable(files.path(number)) for number in numbers]
        across = len({split for split, _ in places}) > 1
        mixed = len({cls for _, cls in places}) > 1
        if across:
            result.leaks.append(names)
        if mixed:
            result.conflicts.append(names)
        if len(set(places)) < len(places):
            result.repeats.append(names)
