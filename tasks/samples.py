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
    """One image with its annotations: `image` is `(3, H, W)` uint8; `targets` by name; `id` is unique in its split."""

    id: str
    source: str | Path
    image: "Tensor"
    targets: dict[str, Any] = field(default_factory=dict)


class Samples(Protocol):
    """A split: a compact index of which a sample is read and decoded when asked for."""

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
        """The sample's id, without decoding it."""
        ...

    def remarks(self) -> list[str]:
        """What a person is to know of the split before it is used, a line each: objects that were left out, and the like."""
        ...

    def without(self, reasons: dict[str, str]) -> "Samples":
        """The split without these ids, which stand in `excluded` then."""
        ...

    def source(self, index: int) -> str | Path:
        """The address of the sample's file (`trunkline/ground/storage.py`), without decoding it."""
        ...

    def groups(self, training: bool) -> "ndarray | None":
        """A number for each sample: those with the same one stand in one batch; None: all can.

        In training some that are left over of each stand together.
        """
        ...

    def units(self) -> "ndarray | None":
        """A number for each sample: those with the same one lie together and are read together. None: nothing does."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """`{"digest": ..., "samples": n, "classes": [...]}`: equal digests mean the same data, wherever it lies."""
        ...

    def manifest(self) -> list[str]:
        """A line a sample (id, class, size, checksum), from which two states of the data can be compared."""
        ...
