"""A split as a list of files: what the reader of a task needs that has nothing finer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError

from ..samples import Sample
from .fingerprint import digest, manifest_lines


@dataclass(frozen=True)
class Listed:
    """A `Samples`: `files` has the files of each sample, the one that it is known by first; `load(id, files)` reads it.

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
        """The path of the first file below the root."""
        return Path(os.path.relpath(self.files[index][0], self.root)).as_posix()

    def source(self, index: int) -> Path:
        """The first file."""
        return self.files[index][0]

    def remarks(self) -> list[str]:
        """Nothing."""
        return []

    def groups(self, training: bool) -> None:
        """None: all samples can stand in one batch; what differs in size is the task's to pad or crop."""

    def units(self) -> None:
        """None: no files lie together."""

    def without(self, reasons: Mapping[str, str]) -> "Listed":
        """The split without these ids. Raises DataError where nothing is left."""
        kept = [files for i, files in enumerate(self.files) if self.id(i) not in reasons]
        if not kept:
            raise DataError(f"{self.root}: no sample can be used: {next(iter(reasons.values()))}")
        return replace(self, files=kept, excluded={**self.excluded, **reasons})

    def manifest(self) -> list[str]:
        """A line a file: id, bytes, checksum."""
        named = [
            (Path(os.path.relpath(f, self.root)).as_posix(), str(f), "", None) for files in self.files for f in files
        ]
        return list(manifest_lines(named, len(named)))

    def fingerprint(self) -> dict[str, Any]:
        """`{"digest", "samples", "classes"}`; equal digests: the same names, sizes and edges of files."""
        return {"digest": digest(self.manifest()), "samples": len(self), "classes": list(self.classes)}
