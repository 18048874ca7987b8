"""A compact index of files: what a million paths cost in memory, and not again in every worker.

A list of strings costs about 100 bytes a name, and every worker that reads it writes reference counts into its pages,
so that each gets its own copy. Here the paths are one array of bytes, which forked workers share.
"""

from array import array
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class FileIndex:
    """Row i: the path `blob[ends[i - 1]:ends[i]]`, relative, in bytes with forward slashes, and the number `labels[i]`.

    Costs 8 bytes and the smallest integer that holds the labels (1 to 4 bytes) per row beside the paths' own bytes.
    """

    blob: np.ndarray  # uint8
    ends: np.ndarray  # int64
    labels: np.ndarray  # uint8, uint16 or uint32

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, row: int) -> bytes:
        """The path of one row."""
        start = self.ends[row - 1] if row else 0
        return self.blob[start : self.ends[row]].tobytes()

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.blob.nbytes + self.ends.nbytes + self.labels.nbytes


class IndexBuilder:
    """Collects rows one after the other without making a Python object of each."""

    def __init__(self) -> None:
        self._blob, self._ends, self._labels = bytearray(), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, path: bytes, label: int) -> None:
        """One more row."""
        self._blob += path
        self._ends.append(len(self._blob))
        self._labels.append(label)

    def build(self) -> FileIndex:
        """The finished index; the builder is empty afterwards."""
        blob = np.frombuffer(bytes(self._blob), np.uint8)
        ends = np.array(self._ends, np.int64)
        labels = np.array(self._labels, np.int64)
        self.__init__()
        return FileIndex(blob, ends, labels.astype(np.min_scalar_type(int(labels.max(initial=0)))))


def printable(path: bytes) -> str:
    """A path as text: bytes that are no valid UTF-8 as `\\xNN`, so that it can be printed and stored anywhere."""
    return path.decode("utf-8", "backslashreplace")
