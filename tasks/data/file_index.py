"""A compact index of files: a million paths in little memory, which loaders share.

A list of strings costs about 100 bytes a name, and every process that reads it writes reference counts into its pages,
so that each gets its own copy. Here the paths are one array of bytes, which forked processes share.
"""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Parts:
    """Where the rows lie that are parts of larger files: row i is in `files[file[i]]`.

    In an archive it begins at byte `start[i]` and is `size[i]` bytes long. In a parquet file it is row `size[i]` of row
    group `start[i]`.
    """

    files: tuple[str, ...]
    file: np.ndarray  # smallest unsigned integer
    start: np.ndarray  # int64
    size: np.ndarray  # uint32

    def address(self, row: int) -> str:
        """Return the relative address of the part that is this row."""
        name, start, size = self.files[self.file[row]], int(self.start[row]), int(self.size[row])
        return f"{name}::g{start}r{size}" if name.endswith(".parquet") else f"{name}::{start}+{size}"

    def units(self) -> np.ndarray:
        """Number the rows, `(N,)` int64: those with the same number are read together.

        They are of one shard, or of one row group where the shard is a parquet file.
        """
        group = [self.start[self.file == n] if name.endswith(".parquet") else None for n, name in enumerate(self.files)]
        units, first = np.zeros(len(self.file), np.int64), 0
        for n, groups in enumerate(group):
            units[self.file == n] = first if groups is None else first + groups
            first += 1 if groups is None else int(groups.max(initial=-1)) + 1
        return units


@dataclass(frozen=True, eq=False)
class FileIndex:
    """Row i: the path `blob[ends[i - 1]:ends[i]]`, relative, in bytes with forward slashes, and the number `labels[i]`.

    Besides the paths' own bytes a row costs 8 bytes and the smallest integer that holds the labels (1 to 4 bytes).
    `parts` says where rows lie that are parts of larger files. `marks`, where given, is what storage says of a row's
    file without opening it.
    """

    blob: np.ndarray  # uint8
    ends: np.ndarray  # int64
    labels: np.ndarray  # uint8, uint16 or uint32
    parts: Parts | None = None
    marks: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, row: int) -> bytes:
        """Return the path of one row."""
        start = self.ends[row - 1] if row else 0
        return self.blob[start : self.ends[row]].tobytes()

    def address(self, row: int) -> str:
        """Return where the row's bytes are, relative: its path, or its part of a larger file."""
        return self.parts.address(row) if self.parts else os.fsdecode(self.path(row))

    def mark(self, row: int) -> str | None:
        """Return what storage says of the row's file, in place of its bytes; None where these are to be looked at."""
        if self.marks is None:
            return None
        return self.marks[self.parts.file[row] if self.parts else row]

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.blob.nbytes + self.ends.nbytes + self.labels.nbytes


def joined(indexes: Sequence[FileIndex]) -> FileIndex:
    """Put the rows of several indexes into one, in their order. All of them are of shards, or none is."""
    starts = np.cumsum([0, *(len(i.blob) for i in indexes)])
    parts = [i.parts for i in indexes if i.parts is not None]
    marks = [i.marks for i in indexes if i.marks is not None]
    files = np.cumsum([0, *(len(p.files) for p in parts)])
    return FileIndex(
        np.concatenate([i.blob for i in indexes]),
        np.concatenate([i.ends + start for i, start in zip(indexes, starts, strict=False)]),
        np.concatenate([i.labels for i in indexes]),
        Parts(
            tuple(file for p in parts for file in p.files),
            np.concatenate([p.file.astype(np.int64) + first for p, first in zip(parts, files, strict=False)]),
            np.concatenate([p.start for p in parts]),
            np.concatenate([p.size for p in parts]),
        )
        if parts
        else None,
        tuple(mark for own in marks for mark in own) if marks else None,
    )


class IndexBuilder:
    """Collects rows one after the other without making a Python object of each."""

    def __init__(self) -> None:
        self._blob, self._ends, self._labels = bytearray(), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, path: bytes, label: int) -> None:
        """Add a row."""
        self._blob += path
        self._ends.append(len(self._blob))
        self._labels.append(label)

    def build(
        self, order: Sequence[int] | None = None, parts: Parts | None = None, marks: tuple[str, ...] | None = None
    ) -> FileIndex:
        """Build the index, and empty the builder.

        With `order`, label n becomes `order[n]`.
        """
        blob = np.frombuffer(bytes(self._blob), np.uint8)
        ends = np.array(self._ends, np.int64)
        labels = np.array(self._labels, np.int64)
        labels = labels if order is None else np.array(order, np.int64)[labels]
        self.__init__()
        return FileIndex(blob, ends, labels.astype(np.min_scalar_type(int(labels.max(initial=0)))), parts, marks)


def printable(path: bytes) -> str:
    """Convert a path to text: invalid UTF-8 becomes `\\xNN`, so that it can be printed and stored anywhere."""
    return path.decode("utf-8", "backslashreplace")
