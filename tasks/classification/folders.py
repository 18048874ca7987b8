"""Class folders: `root/train/CLASS/photo.jpg` and `root/val/CLASS/photo.jpg`, or `root/CLASS/photo.jpg` to be split."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.names import nearest

from ..contract import Sample
from ..data.file_index import FileIndex, printable
from ..data.fingerprint import digest, manifest_lines
from ..data.split import split_rows
from ..images.decode import read_image
from ..scores import MOST_NAMED
from .folder import as_one
from .folder_scan import SPLITS, Folder, renames, scan
from .tables import renamed

SHOWN = 20  # problems in one message
ONE_CLASS = "holds a single class, {}: there is nothing to tell apart. If its folders are the classes, give data={}"


@dataclass(frozen=True, eq=False)
class FolderSamples:
    """One split of class folders; a `Samples`. Row `rows[i]` of the index is sample i.

    `numbers[n]` is the position in `classes` of the index's label n; `excluded` is id to reason.
    """

    root: str
    split: str
    classes: tuple[str, ...]
    index: FileIndex
    rows: np.ndarray
    numbers: np.ndarray
    excluded: dict[str, str] = field(default_factory=dict)
    depth: str = ""  # how pictures of more than 8 bits a channel are read
    notes: tuple[str, ...] = ()  # of a table: repairs and remarks
    names: tuple[str, ...] = ()  # of a table: the group of each row of the index

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read and decode a sample: `targets` is `{"label": int}`. Raises DataError with the file's name."""
        source = self.source(index)
        label = int(self.numbers[self.index.labels[self.rows[index]]])
        return Sample(self.id(index), source, read_image(source, self.depth), {"label": label})

    def id(self, index: int) -> str:
        """Return the path below the data folder with forward slashes, as "train/ants/x.jpg"."""
        return printable(self.index.path(self.rows[index]))

    def source(self, index: int) -> str:
        """Return the file's address, without decoding it."""
        return storage.join(self.root, self.index.address(self.rows[index]))

    def remarks(self) -> list[str]:
        """Say what was mended in a table or is odd in it, and which classes no sample is of."""
        alone = [f"{self.classes[0]} is the only class: every answer is right"] if len(self.classes) == 1 else []
        return [*self.notes, *alone, *absent(self.classes, self.labels)]

    def units(self) -> np.ndarray | None:
        """Number the samples `(N,)` int64: those with the same number are read together. None without shards."""
        return None if self.index.parts is None else self.index.parts.units()[self.rows]

    @property
    def labels(self) -> np.ndarray:
        """The class of every sample as a position in `classes`, int64 `(N,)`."""
        return self.numbers[self.index.labels[self.rows]]

    @property
    def grouped(self) -> list[str] | None:
        """The name of each sample's group; None where no table says it. Of a row that says none it is the sample's own id."""
        return [self.names[row] or self.id(i) for i, row in enumerate(self.rows)] if self.names else None

    def groups(self, training: bool) -> None:
        """Return None: every sample gets the same shape."""

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`.

        Equal digests mean equal ids, classes, sizes, and first and last bytes of files.
        """
        return {"digest": digest(self.manifest_lines()), "samples": len(self), "classes": list(self.classes)}

    def manifest(self) -> list[str]:
        """List one line a sample (id, class, size, checksum), for `fingerprint.compare`."""
        return list(self.manifest_lines())

    def manifest_lines(self) -> Iterator[str]:
        """Yield the lines of the manifest."""
        index = self.index
        files = (
            (
                printable(index.path(row)),
                storage.join(self.root, index.address(row)),
                self.classes[self.numbers[index.labels[row]]],
                index.mark(row),
            )
            for row in self.rows
        )
        return manifest_lines(files, len(self))

    def take(self, rows: np.ndarray, split: str) -> "FolderSamples":
        """Keep the samples where `rows` `(N,)` bool is true, as a split; what is said of all stays with train."""
        kept = replace(self, rows=self.rows[rows], split=split)
        return kept if split == "train" else replace(kept, excluded={}, notes=())

    def without(self, reasons: Mapping[str, str]) -> "FolderSamples":
        """Leave out some ids (id to reason), which join `excluded`; return the rest as new samples.

        Raises DataError where a class loses its last sample.
        """
        if not reasons:
            return self
        kept = np.fromiter((self.id(i) not in reasons for i in range(len(self))), bool, len(self))
        shorter = replace(self, rows=self.rows[kept], excluded={**self.excluded, **reasons})
        counts = np.bincount(shorter.labels, minlength=len(self.classes))
        gone = np.flatnonzero((counts == 0) & (np.bincount(self.labels, minlength=len(self.classes)) > 0))
        if len(gone):
            names = ", ".join(self.classes[c] for c in gone)
            some = "\n".join(f"  {name}: {what}" for name, what in list(reasons.items())[:SHOWN])
            raise DataError(f"{self.root}: no file of {self.split or 'the data'} can be used for: {names}\n{some}")
        return shorter


def read_folders(
    root: str | os.PathLike[str],
    split: str,
    *,
    val: float = 0.0,
    group: str = "",
    classes: Sequence[str] | None = None,
    on_bad_sample: str = "stop",
) -> FolderSamples:
    """Read one split of class folders, "train" or "val".

    Raises DataError where that split is missing, and as `read_splits`, which reads both at once.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    found = read_splits(root, val=val, group=group, classes=classes, on_bad_sample=on_bad_sample)
    if split not in found:
        raise DataError(lacks(root, split, found))
    return found[split]


def lacks(root: str | os.PathLike[str], split: str, found: Mapping[str, FolderSamples]) -> str:
    """Say that data has no such split."""
    return f"{root}: has no {split}/, only {', '.join(f'{name}/' for name in found)}"


def read_splits(
    root: str | os.PathLike[str],
    *,
    val: float = 0.0,
    group: str = "",
    classes: Sequence[str] | None = None,
    on_bad_sample: str = "stop",
    depth: str = "",
    form: str = "auto",
) -> dict[str, FolderSamples]:
    """Read `{"train": ..., "val": ...}` from class folders, or from tables of files and labels.

    They are `root/{train,val}/CLASS/...`, or `root/CLASS/...` of which the share `val`, above 0 and below 1, is held out.
    Classes are the folders' sorted names, or `classes` in their order (those of a checkpoint). Photos in subfolders of a
    class belong to it. Nothing is decoded. Files that are no photos by their name, or in no class folder, are problems;
    with `on_bad_sample="skip"` they are listed in `excluded` instead. Other problems are empty classes in what is trained
    on, classes that training or `classes` lack, and links that lead to nothing or back. Raises one DataError with all
    problems. With `classes`, and in val/, classes may be absent or empty. A root with only val/ gives only that split.
    `depth` is as `read_image` takes it, `form` as `scan`.
    """
    return divided_folders(root, scan(root, form, group), val, group, classes, on_bad_sample, depth)


def divided_folders(
    root: str | os.PathLike[str],
    folders: Mapping[str, Folder],
    val: float,
    group: str,
    classes: Sequence[str] | None,
    on_bad_sample: str,
    depth: str = "",
) -> dict[str, FolderSamples]:
    """Make splits of folders that were scanned, as `read_splits` does."""
    table = any(folder.table for folder in folders.values())
    texts = layout_problems(folders, val, partial(_hint, root, table))
    splits = _read(root, folders, classes, on_bad_sample, depth, group, bool(val), texts)
    if not val:
        return splits
    ((name, whole),) = splits.items()
    if whole.names:
        said = f"{folders[name].place}: files of the same group are kept on one side of val={val}"
        whole = replace(whole, notes=(*whole.notes, said))
    pattern = "" if whole.names else group
    held = split_rows(whole.id, whole.labels, whole.classes, val, pattern, groups=whole.names)
    return {"train": whole.take(~held, "train"), "val": whole.take(held, "val")}


def read_whole(
    root: str | os.PathLike[str],
    *,
    group: str = "",
    classes: Sequence[str] | None = None,
    on_bad_sample: str = "stop",
    depth: str = "",
    form: str = "auto",
) -> FolderSamples:
    """Read all samples, whatever split they are of, to be divided into folds. Raises DataError as `read_splits`."""
    return whole_folders(root, scan(root, form, group), group, classes, on_bad_sample, depth)


def whole_folders(
    root: str | os.PathLike[str],
    folders: Mapping[str, Folder],
    group: str,
    classes: Sequence[str] | None,
    on_bad_sample: str,
    depth: str = "",
) -> FolderSamples:
    """Make one set of folders that were scanned, as `read_whole` does."""
    return _read(root, {"": as_one(folders)}, classes, on_bad_sample, depth, group, True, [])[""]


def _read(
    root: str | os.PathLike[str],
    folders: Mapping[str, Folder],
    classes: Sequence[str] | None,
    on_bad_sample: str,
    depth: str,
    group: str,
    divided: bool,
    texts: list[str],
) -> dict[str, FolderSamples]:
    """Make samples of the folders. Raises DataError with `texts` and all that is wrong with them."""
    table = any(folder.table for folder in folders.values())
    problems = [(where, what) for folder in folders.values() for where, what in folder.problems]
    problems += empty_problems(folders, classes)
    strays = [(where, what) for folder in folders.values() for where, what in folder.strays.items()]
    problems += strays if on_bad_sample != "skip" else []
    texts = texts + group_problems(folders, group, divided)
    texts += class_problems(folders, classes)
    texts += [f"{where}: {what}" for where, what in problems]
    if texts:
        left = strays and all(f.skippable(where) for f in folders.values() for where in f.strays)
        skippable = ("rows that cannot be used" if table else "files that cannot be used") if left else ""
        raise DataError(_message(root, texts, skippable if on_bad_sample != "skip" else ""))
    order = classes_of(folders, classes)
    return {name: replace(samples_of(root, f, order), depth=depth) for name, f in folders.items()}


def _hint(root: str | os.PathLike[str], table: bool) -> str:
    return renamed(root) if table else renames(sorted(entry.name for entry in storage.entries(root)))


def layout_problems(folders: Mapping[str, Folder], val: float, hint: Callable[[], str]) -> list[str]:
    """List where the folders that were found do not fit the `val` that was asked for.

    `hint` says which names may mean val/.
    """
    if "val" in folders:
        own = folders["val"].place
        return [f"val={val}: the data folder has its own {own}; leave val= out, or move {own} away"] if val else []
    if not val:
        first = next(iter(folders.values()))
        place = first.place if first.name or first.table else "the class folders"
        said = hint() if "train" in folders or first.table else ""
        own = "table of val" if first.table else "val/"
        return [f"there is no {own} beside {place}: give val=0.2 to hold out a fifth of each class. {said}".rstrip()]
    return [] if 0 < val < 1 else [f"val={val}: the share to hold out is a number between 0 and 1, as val=0.2"]


def group_problems(folders: Mapping[str, Folder], group: str, divided: bool) -> list[str]:
    """List where the groups of a table are said twice or, of data that is `divided`, are empty."""
    grouped = [folder for folder in folders.values() if folder.groups]
    if group and (other := next((f for f in grouped if f.column.strip().lower() != group.strip().lower()), None)):
        return [
            f"group={group!r}: {other.place} has no such column, and its column {other.column} says groups: leave group= out "
            "to take that, or rename the column to look for a pattern in paths"
        ]
    lacking = [(folder, sum(not text for text in folder.groups)) for folder in grouped if divided]
    return [f"{f.place}: {n} of {len(f.groups)} rows have an empty group" for f, n in lacking if n]


def class_problems(found: Mapping[str, Folder], expected: Sequence[str] | None) -> list[str]:
    """List where folders have classes that the checkpoint lacks, or without a checkpoint that training lacks.

    Classes that a folder lacks are no problem: `remarks` says them. Beside names that nobody knows they may be the same ones
    misspelt, which is said.
    """
    first = "the checkpoint" if expected is not None else next(iter(found.values())).place
    names = classes_of(found, expected)
    problems = []
    if not names and any(folder.problems for folder in found.values()):
        return []  # nothing could be read there, which is told
    for place, other in ((folder.place, folder.classes) for folder in found.values()):
        extra = sorted(set(other) - set(names))
        if not extra:
            continue
        lacking = sorted(set(names) - set(other))
        lines = [f"the classes of {first} and {place} differ:"]
        lines += [f"    {first}: {_names(names)}", f"    {place}: {_names(other)}"]
        lines += [f"    only in {place}: {_names(extra)}"]
        lines += [f"    only in {first}: {_names(lacking)}"] if lacking else []
        near = {name: nearest(name, lacking or names) for name in extra[:SHOWN]}
        lines += [f"    {name}{said}" for name, said in near.items() if said]
        problems.append("\n".join(lines))
    return problems


def classes_of(found: Mapping[str, Folder], expected: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that count: a checkpoint's, else those of training (without train/, of the folder that is there)."""
    return tuple(expected) if expected is not None else next(iter(found.values())).classes


def empty_problems(found: Mapping[str, Folder], expected: Sequence[str] | None) -> list[tuple[str, str]]:
    """List the empty classes of what is trained on, and splits without any picture.

    In what is only scored, an empty class is one that it lacks.
    """
    problems = []
    for name, folder in found.items():
        trained = expected is None and name != "val"
        problems += folder.empty.items() if trained else []
        if not trained and folder.classes and not len(folder.index):
            problems.append((folder.place, "holds no file of any class"))
    return problems


def absent(classes: Sequence[str], labels: np.ndarray) -> list[str]:
    """Say which of the classes have no sample: a line, or none."""
    there = np.bincount(labels, minlength=len(classes)) > 0
    names = [name for name, has in zip(classes, there, strict=True) if not has]
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    over = f"scored over the {int(there.sum())} of {len(classes)} classes that are there"
    return [f"no file of {', '.join(names[:MOST_NAMED])}{more}: {over}"]


def samples_of(root: str | os.PathLike[str], folder: Folder, classes: tuple[str, ...] | None = None) -> FolderSamples:
    """Make samples of a folder that was scanned; `classes` are those that count, by default its own."""
    order = folder.classes if classes is None else classes
    place = {cls: number for number, cls in enumerate(order)}
    numbers = np.array([place[cls] for cls in folder.classes], np.int64)
    rows = np.arange(len(folder.index), dtype=np.min_scalar_type(len(folder.index)))
    strays, notes = dict(folder.strays), tuple(folder.notes)
    return FolderSamples(
        os.fspath(root), folder.name, order, folder.index, rows, numbers, strays, notes=notes, names=folder.groups
    )


def _message(root: str | os.PathLike[str], texts: list[str], skippable: str) -> str:
    lines = [f"{root}: {len(texts)} problem{'s' if len(texts) > 1 else ''}"]
    lines += [f"  {text}" for text in texts[:SHOWN]]
    if len(texts) > SHOWN:
        lines.append(f"  and {len(texts) - SHOWN} more")
    if skippable:
        lines.append(f"`trunkline check` lists everything; on_bad_sample=skip leaves out {skippable}.")
    return "\n".join(lines)


def _names(names: Sequence[str], limit: int = 30) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more} ({len(names)})"
