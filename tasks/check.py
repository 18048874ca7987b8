"""Decode and validate a whole data set in parallel, and say everything that is wrong or odd with it."""

import hashlib
import io
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from . import storage
from .contract import DataError
from .file_workers import Crash, run_all
from .folder_scan import Folder, scan
from .folders import ONE_CLASS, class_problems
from .images import FORMATS, decode
from .index import printable

SMALL = 32  # pixels: a shorter side below it is odd
LONG = 5.0  # a longer side so many times the shorter is odd
SHOWN = 20  # lines of a kind in the summary
_MASKS = {  # folders by which a format of masks is known
    "sbd": {"img", "cls"},
    "cityscapes": {"leftImg8bit", "gtFine"},
    "camvid": {"train", "trainannot"},
    "pairs": {"images", "masks"},
    "ade20k": {"images", "annotations"},
}


@dataclass
class Check:
    """What a data set holds. `problems` stop a training; `oddities` do not. Both are `{"file", "what"}`.

    `counts` is split to class to `counted` (files, or objects); `sizes` has minimum, median and maximum of width and
    height in pixels (upright) and of bytes; `formats` and `modes` are Pillow's names. `leaks` are groups of files with
    the same bytes in train and val, `conflicts` the same in two classes, `repeats` the same within one class of one split.
    """

    root: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)
    oddities: list[dict[str, str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    repeats: list[list[str]] = field(default_factory=list)
    files: int = 0
    seconds: float = 0.0
    counted: str = "files"  # what `counts` are

    @property
    def ok(self) -> bool:
        """Whether training would start and read every file."""
        return not self.problems

    def measure(self, sizes: Sequence[tuple[int, int, int]]) -> None:
        """Fill in `sizes` from each picture's width, height and bytes."""
        for name, values in zip(("width", "height", "bytes"), zip(*sizes, strict=True), strict=False):
            self.sizes[name] = (min(values), float(np.median(values)), max(values))

    def compare(self, digests: Mapping[bytes, Sequence[tuple[str, str]]]) -> None:
        """Fill in `leaks` and `repeats` from the splits and names of the pictures by their bytes' digest."""
        for same in digests.values():
            names = [name for _, name in same]
            if len({split for split, _ in same}) > 1:
                self.leaks.append(names)
            elif len(names) > 1:
                self.repeats.append(names)

    def to_json(self) -> dict[str, Any]:
        """Every field and `ok`, as plain data."""
        return {**asdict(self), "ok": self.ok}

    def summary(self) -> str:
        """The same as text for a person."""
        return "\n".join(_summary(self))

    __str__ = summary


def check(
    root: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    format: Literal["auto", "folders", "coco", "voc", "sbd", "pairs", "camvid", "cityscapes", "ade20k"] = "auto",
    masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Check:
    """Walk the class folders of `root`, decode every photo, compare all files by their bytes.

    A folder in another format is known by its folders' names, or by `format`: of COCO's and VOC's the objects are looked at
    (`tasks/detection/check.py`), of the others the masks, and of VOC's with `masks` (`tasks/segmentation/check.py`).
    `classes` are those to expect (a checkpoint's). `workers` processes (None: one a core; 0: this one, which a crashing
    decoder ends). Raises DataError where `root` is missing or its layout is unknown; everything else is in the result.
    """
    if workers is not None and workers < 0:
        raise DataError(f"workers={workers}: expected 0 or more")
    form = format_of(root) if format == "auto" else format
    masks = masks or (form == "voc" and format == "auto" and not os.path.isdir(storage.join(root, "Annotations")))  # noqa: PTH112
    if masks and form != "voc":
        raise DataError(f"masks=true: looks at the masks of VOC's format, and {os.fspath(root)} is of format={form}")
    if form in ("coco", "voc") and not masks:
        from .detection.check import check_boxes

        return check_boxes(root, form, classes, workers=workers, progress=progress)
    if form != "folders":
        from .segmentation.check import check_masks

        return check_masks(root, form, classes, workers=workers, progress=progress)
    started = time.perf_counter()
    folders = scan(root)
    result = Check(os.fspath(root))
    found = {f"{name}/" if name else "the data": folder.classes for name, folder in folders.items()}
    result.problems += [{"file": ".", "what": what} for what in class_problems(found, classes)]
    one = {name for folder in folders.values() for name in folder.classes}
    if len(one) == 1 and not classes:
        (name,) = one
        result.problems.append({"file": ".", "what": ONE_CLASS.format(name, storage.join(root, name))})
    for folder in folders.values():
        result.problems += [{"file": where, "what": what} for where, what in folder.problems]
        result.problems += [{"file": where, "what": what} for where, what in folder.strays.items()]
    files = _Files(os.fspath(root), folders)
    facts: dict[int, _Facts] = {}
    for i, fact in run_all(partial(_examine, files), len(files), workers, "checking", progress):
        facts[i] = _Facts(problem=fact.what) if isinstance(fact, Crash) else fact
    _tell(result, files, [facts[i] for i in range(len(files))])
    result.files = len(files)
    result.seconds = round(time.perf_counter() - started, 3)
    return result


class _Files:
    """All files of all splits under one number each."""

    def __init__(self, root: str, folders: Mapping[str, Folder]) -> None:
        self.root, self.folders = root, list(folders.values())
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
        """Split and class."""
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
        return _Facts(problem=f"cannot be read ({error.strerror or error})")
    kind, mode = _kind(data)
    facts = _Facts("", 0, 0, len(data), kind, mode, hashlib.blake2b(data, digest_size=16).digest())
    try:
        image = decode(bytearray(data))
    except DataError as error:
        return facts._replace(problem=str(error))
    return facts._replace(width=image.shape[2], height=image.shape[1])


def _kind(data: bytes) -> tuple[str, str]:
    """Format and mode as Pillow names them; empty where it can't."""
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
    for number, fact in enumerate(facts):
        if fact.problem:
            result.problems.append({"file": printable(files.path(number)), "what": fact.problem})
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


def _summary(result: Check) -> list[str]:
    lines = [f"{result.root}: {result.files} files in {result.seconds:.1f} s"]
    for split, counts in result.counts.items():
        few = dict(list(counts.items())[:SHOWN])
        more = f", and {len(counts) - SHOWN} more classes" if len(counts) > SHOWN else ""
        each = ", ".join(f"{name} {n}" for name, n in few.items())
        lines.append(f"  {split}: {sum(counts.values())} {result.counted} in {len(counts)} classes ({each}{more})")
    for name, (low, middle, high) in result.sizes.items():
        lines.append(f"  {name}: {low:,.0f} to {high:,.0f}, median {middle:,.0f}")
    for name, kinds in (("formats", result.formats), ("modes", result.modes)):
        if kinds:
            lines.append(f"  {name}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    for title, entries in (
        ("problems (training stops at them; on_bad_sample=skip leaves out single files)", result.problems),
        ("oddities", result.oddities),
    ):
        lines += _listed(title, [f"{entry['file']}: {entry['what']}" for entry in entries])
    for title, groups in (
        ("the same bytes in train and val: the score counts what was learnt by heart", result.leaks),
        ("the same bytes in two classes", result.conflicts),
        ("the same bytes twice in a class", result.repeats),
    ):
        lines += _listed(title, [" = ".join(group) for group in groups])
    if result.ok:
        lines.append("  no problems: training can start")
    return lines


def _listed(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"    and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return [f"  {title}: {len(entries)}", *(f"    {entry}" for entry in entries[:SHOWN]), *more]


def format_of(root: str | os.PathLike[str]) -> str:
    """The format by what lies in a data folder; `folders` where nothing else is known of it."""
    try:
        there = storage.entries(root)
        names, files = {e.name for e in there if e.folder}, {e.name for e in there if not e.folder}
        inner = (
            {e.name for e in storage.entries(storage.join(root, "annotations"))} if "annotations" in names else set()
        )
    except OSError:
        return "folders"
    if any(name.endswith(".json") for name in inner):
        return "coco"
    if "ImageSets" in names and names & {"Annotations", "SegmentationClass"}:
        return "voc"
    for form, folders in _MASKS.items():
        if folders <= names:
            return form
    if "classes.txt" in files and names & {"images", "masks"}:
        return "pairs"
    roboflow = any(os.path.isfile(os.path.join(root, s, "_annotations.coco.json")) for s in ("train", "valid"))  # noqa: PTH113, PTH118
    return "coco" if roboflow else "folders"
