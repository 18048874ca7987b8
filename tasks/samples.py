"""What a data set is: a split of samples, each read and decoded when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor


@dataclass
class Sample:
    """One image with its annotations: `image` is `(3, H, W)` uint8; `targets` by name; `id` is unique in its split.

    `remarks` are lines that people should know of how it was read.
    """

    id: str
    source: str | Path
    image: "Tensor"
    targets: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class Samples(Protocol):
    """A split: a compact index, from which each sample is read and decoded when it is asked for.

    Where a table says which samples belong together, `grouped` has the name of each one's group (`data/groups.py`); with
    `labels`, `(N,)` positions in `classes`, folds spread the classes.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; empty where the task has none."""
        ...

    @property
    def excluded(self) -> Mapping[str, str]:
        """Id to reason, of what on_bad_sample=skip left out."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...

    def id(self, index: int) -> str:
        """Return the sample's id, without decoding it."""
        ...

    def remarks(self) -> list[str]:
        """List what a person should know of the split before it is used, a line each (objects left out, say)."""
        ...

    def without(self, reasons: dict[str, str]) -> "Samples":
        """Leave out these ids (id to reason), which then stand in `excluded`; return the rest as new samples."""
        ...

    def take(self, rows: "ndarray", split: str) -> "Samples":
        """Keep the samples where `rows` `(N,)` bool is true, as the split `train` or `val`. Only folds ask for it."""
        ...

    def source(self, index: int) -> str | Path:
        """Return the address of the sample's file (`trunkline/ground/storage.py`), without decoding it."""
        ...

    def groups(self, training: bool) -> "ndarray | None":
        """Number the samples, `(N,)` integers: those with the same number go in one batch. None: all can.

        In training, samples left over after the full batches of each group go in batches together.
        """
        ...

    def units(self) -> "ndarray | None":
        """Number the samples, `(N,)` integers: those with the same number lie and are read together. None: none do."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest": ..., "samples": n, "classes": [...]}`.

        Equal digests mean the same data, wherever it lies.
        """
        ...

    def manifest(self) -> list[str]:
        """List one line a sample (id, class, size, checksum), by which two states of the data are compared."""
        ...
