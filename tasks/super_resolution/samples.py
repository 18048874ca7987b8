"""A split of large pictures, with their small ones or without; each is read when it is asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trunkline.ground.errors import DataError

from ..data.fingerprint import digest, manifest_lines
from ..samples import Sample
from .files import Picture, read_picture
from .options import Options


@dataclass(frozen=True)
class PicturePairs:
    """One split; a `Samples`. `pairs` are the files' names below the folders of large and of small pictures.

    A sample's `image` is the large picture, `(C, H, W)` uint8 or uint16, C 1 (grey) or 3; `targets["lr"]` is the small one,
    where the data has it. Transparency is left out.
    """

    root: Path
    large_folder: str
    small_folder: str
    pairs: tuple[tuple[str, str], ...]
    options: Options
    classes: tuple[str, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()  # folders of small pictures of other scales, which are not read
    grouped: tuple[str, ...] | None = None  # what `together` keeps on one side: a name for each pair

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read a pair. Raises DataError with the file's name, also where their sizes do not go together."""
        picture = read_picture(self.large(index))
        targets = {}
        if self.pairs[index][1]:
            targets["lr"] = tensor_of(read_picture(self.small(index)))
        return Sample(self.id(index), self.large(index), tensor_of(picture), targets)

    def large(self, index: int) -> Path:
        """Return the file of the large picture."""
        return self.root / self.large_folder / self.pairs[index][0]

    def small(self, index: int) -> Path:
        """Return the file of the small picture."""
        return self.root / self.small_folder / self.pairs[index][1]

    def id(self, index: int) -> str:
        """Return the large picture's path below the data's folder."""
        return f"{self.large_folder}/{self.pairs[index][0]}".lstrip("/")

    def source(self, index: int) -> Path:
        """Return the file of the large picture."""
        return self.large(index)

    def remarks(self) -> list[str]:
        """Say what is odd, and where small pictures are made."""
        made = f"small pictures: bicubic of the large ones, antialiased, border={self.options.border}"
        if self.aside:
            made += f"; {', '.join(self.aside)} {'is' if len(self.aside) == 1 else 'are'} left out at scale={self.options.scale}"
        return [*self.notes, f"small pictures: {self.small_folder}" if self.small_folder else made]

    def with_note(self, note: str) -> "PicturePairs":
        """Return the same split with one more remark."""
        return replace(self, notes=(*self.notes, note))

    def groups(self, training: bool) -> None:
        """Return None: in training all crops have one size, elsewhere each picture is seen by itself."""

    def units(self) -> None:
        """Return None: no files lie together."""

    def without(self, reasons: Mapping[str, str]) -> "PicturePairs":
        """Leave out these ids (id to reason), which join `excluded`. Raises DataError where nothing is left."""
        kept = np.array([self.id(i) not in reasons for i in range(len(self))], bool)
        if not kept.any():
            raise DataError(f"{self.root}: no picture can be used: {next(iter(reasons.values()))}")
        return replace(self._only(kept), excluded={**self.excluded, **reasons})

    def take(self, rows: np.ndarray, split: str) -> "PicturePairs":
        """Keep the pairs where `rows` `(N,)` bool is true, as a split."""
        return self._only(rows)

    def _only(self, rows: np.ndarray) -> "PicturePairs":
        at = np.flatnonzero(rows).tolist()
        grouped = None if self.grouped is None else tuple(self.grouped[i] for i in at)
        return replace(self, pairs=tuple(self.pairs[i] for i in at), grouped=grouped)

    def fingerprint(self) -> dict[str, Any]:
        """Return `{"digest", "samples", "classes"}`; equal digests mean equal files."""
        return {"digest": digest(self._lines()), "samples": len(self), "classes": []}

    def manifest(self) -> list[str]:
        """List one line a file (id, size, checksum)."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        files = [(self.id(i), str(self.large(i)), "", None) for i in range(len(self))]
        small = [
            (f"{self.small_folder}/{name}", str(self.small(i)), "", None)
            for i, (_, name) in enumerate(self.pairs)
            if name
        ]
        return manifest_lines([*files, *small], len(files) + len(small))


def tensor_of(picture: Picture) -> Tensor:
    """Take a picture's pixels as `(C, H, W)`."""
    return torch.from_numpy(np.ascontiguousarray(picture.pixels)).permute(2, 0, 1)
