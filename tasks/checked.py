"""What a look at a whole data set found."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from trunkline.ground.errors import DataError

from .data.file_loaders import Crash, run_all
from .data.groups import crossing, group_names

SHOWN = 20  # lines of a kind in the summary


SAMPLE, BOX = "on_bad_sample=skip", "on_bad_box=skip"
NONE: Mapping[str, Any] = {}  # no options


@dataclass
class Check:
    """What a data set holds. `problems` stop a training; `oddities` do not. Both are `{"file", "what"}`.

    A problem that a setting leaves out has it as `skip`, too.

    `counts` has the number of `counted` (files, objects or pixels) by split, then by class. `sizes` has minimum, median
    and maximum of width and height in pixels (upright) and of bytes; `formats` and `modes` are Pillow's names. `leaks`
    are groups of files with the same bytes in train and val, `conflicts` the same in two classes, `repeats` the same
    within one split (where files have a class: within one class of it).
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
    counted: str = "files"  # what `counts` counts

    def problem(self, file: str, what: str, skip: str = "") -> None:
        """Add a problem; `skip` is a setting that leaves it out."""
        self.problems.append({"file": file, "what": what} | ({"skip": skip} if skip else {}))

    def keep_all(self, since: int) -> None:
        """Say no setting beside the problems from position `since` on: leaving them out would leave nothing of a split."""
        for problem in self.problems[since:]:
            problem.pop("skip", None)

    @property
    def ok(self) -> bool:
        """Whether training would start and read every file."""
        return not self.problems

    def measure(self, sizes: Sequence[tuple[int, int, int]]) -> None:
        """Fill in `sizes` from each picture's width, height and bytes."""
        for name, values in zip(("width", "height", "bytes"), zip(*sizes, strict=True), strict=False):
            self.sizes[name] = (min(values), float(np.median(values)), max(values))

    def compare(self, digests: Mapping[bytes, Sequence[tuple[str, str]]]) -> None:
        """Fill in `leaks` and `repeats`. `digests` has the split and name of each picture by its bytes' digest."""
        for same in digests.values():
            names = [name for _, name in same]
            if len({split for split, _ in same}) > 1:
                self.leaks.append(names)
            elif len(names) > 1:
                self.repeats.append(names)

    def compare_groups(self, splits: Mapping[str, Any], group: str) -> None:
        """Remark groups that have samples in train and in val, as training does; a `group` that fits no file is a problem.

        `splits` are samples by the names of splits; `group` is the option of that name.
        """
        try:
            if {"train", "val"} <= splits.keys():
                self.oddities += [
                    {"file": "val", "what": said} for said in crossing(splits["train"], splits["val"], group)
                ]
            else:
                for samples in splits.values():
                    group_names(samples, group)
        except DataError as error:
            self.problems.append({"file": ".", "what": str(error)})

    def to_json(self) -> dict[str, Any]:
        """Return every field and `ok`, as plain data."""
        return {**asdict(self), "ok": self.ok}

    def summary(self) -> str:
        """Write the result as text for a person."""
        return "\n".join(_summary(self))

    __str__ = summary


@dataclass(frozen=True)
class Picture:
    """What a look at one picture found: a problem; or its width and height in pixels, its bytes, and a digest of these."""

    problem: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    digest: bytes = b""


P = TypeVar("P", bound=Picture)


def below(split: str, name: Callable[[int], str], i: int) -> str:
    """Name a picture with its split before it."""
    return f"{split}/{name(i)}"


@dataclass
class Pictures:
    """A look at every picture of a data set, split by split, by `loaders` processes (None: one a core)."""

    result: Check
    loaders: int | None
    progress: bool
    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    digests: dict[bytes, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def look(
        self, split: str, count: int, examine: Callable[[int], P], name: Callable[[int], str], since: int
    ) -> Iterator[tuple[int, P]]:
        """Examine a split's pictures, and yield the numbers and facts of the good ones, in the order in which they are done.

        A bad one becomes a problem under its name. Where all are bad, no problem from position `since` on says which setting
        leaves it out, as nothing of the split would be left.
        """
        good = len(self.sizes)
        for i, found in run_all(examine, count, self.loaders, f"checking {split}", self.progress):
            if isinstance(found, Crash) or found.problem:
                self.result.problem(name(i), found.what if isinstance(found, Crash) else found.problem, SAMPLE)
                continue
            self.sizes.append((found.width, found.height, found.size))
            self.digests[found.digest].append((split, name(i)))
            yield i, found
        if len(self.sizes) == good:
            self.result.keep_all(since)
        self.result.files += count

    def compare(self, splits: Mapping[str, Any], group: str) -> None:
        """Say the pictures' sizes, and which have the same bytes; `splits` and `group` are those of `compare_groups`."""
        self.result.measure(self.sizes)
        self.result.compare(self.digests)
        self.result.compare_groups(splits, group)


def _summary(result: Check) -> list[str]:
    lines = [f"{result.root}: {result.files} files in {result.seconds:.1f} s"]
    for split, counts in result.counts.items():
        few = dict(list(counts.items())[:SHOWN])
        more = f", and {len(counts) - SHOWN} more classes" if len(counts) > SHOWN else ""
        each = ", ".join(f"{name} {n}" for name, n in few.items())
        among = (
            "" if [*counts] == [result.counted] else f" in {len(counts)} classes ({each}{more})"
        )  # or without classes
        lines.append(f"  {split}: {sum(counts.values())} {result.counted}{among}")
    for name, (low, middle, high) in result.sizes.items():
        lines.append(f"  {name}: {low:,.0f} to {high:,.0f}, median {middle:,.0f}")
    for name, kinds in (("formats", result.formats), ("modes", result.modes)):
        if kinds:
            lines.append(f"  {name}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    for title, entries in (
        ("problems (training stops at them)", result.problems),
        ("oddities", result.oddities),
    ):
        lines += _listed(title, [f"{entry['file']}: {entry['what']}".replace("\n", "\n      ") for entry in entries])
        skipped = Counter(entry["skip"] for entry in entries if "skip" in entry)
        lines += [f"    {setting} leaves out {n} of them" for setting, n in skipped.items()]
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
