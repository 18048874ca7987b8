"""A split as a list of files, for tasks whose reader needs nothing finer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ..samples import Sample
from .fingerprint import digest, manifest_lines


@dataclass(frozen=True)
class Listed:
    """A `Samples`: `files` has the files of each sample, the one that names it first; `load(id, files)` reads it.

    `load` raises DataError where a file cannot be used. `root` is the folder that ids are relative to.
    """

    root: Path
    files: Sequence[Sequence[Path]]
    load: Callable[[str, Sequence[Path]], Sample]
    classes: tuple[str, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return self.load(self.id(index), self.files[index])

    def id(self, index: int) -> str:
        """Return the path of the first file below the root."""
        return Path(os.path.relpath(self.files[index][0], self.root)).as_posix()

    def source(self, index: int) -> Path:
        """Return the first file."""
        return self.files[index][0]

    def remarks(self) -> list[str]:
        """Return []."""
        return []

    def groups(self, training: bool) -> None:
        """Return None: all samples can go in one batch. Where sizes differ, the task pads or crops."""

    def units(self) -> None:
        """Return None: no files lie together."""

    def without(self, reasons: Mapping[str, str]) -> "Listed":
        """Leave out these ids (id to reason), which join `excluded`; return the rest as a new split.

        Raises DataError where nothing is left.
        """
        kept = [files for i, files in enumerate(self.files) if self.id(i) not in reasons]
        if not kept:
            raise DataError(f"{self.root}: no sample can be used: {next(iter(reasons.values()))}")
        return replace(self, files=kept, excluded={**self.excluded, **reasons})

    def take(self, rows: np.ndarray, split: str) -> "Listed":
        """Keep the samples where `rows` `(N,)` bool is true, as a split."""
        return replace(self, files=[files for files, kept in zip(self.files, rows, strict=True) if kept])

    def manifest(self) -> list[str]:
        """List one line a file: id, "" as class, bytes, checksum."""
        named = [
            (Path(os.path.relpath(f, self.root)).as_posix(), str(f), "", None) for files in self.files for f in files
        ]
        return list(manifest_lines(named, len(named)))

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`.

        Equal digests mean equal names, sizes, and first and last bytes of files.
        """
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}
