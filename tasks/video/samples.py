"""The clips of a split: where they lie, of which class and group; frames are read when they are chosen."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from trunkline.ground import storage

from ..classification.folders import FolderSamples
from ..contract import Sample
from ..data.fingerprint import manifest_lines
from .decoding.room import room_for


@dataclass(frozen=True, eq=False)
class ClipSamples(FolderSamples):
    """Class folders, or rows of a table, of clips; a `Samples`.

    A sample's `image` is empty until a transform has chosen its frames: which they are is drawn in training. Where `side` is
    set, files are resized to it once.
    """

    side: int | None = None

    def __getitem__(self, index: int) -> Sample:
        """Return a sample that is not decoded: `source` is its file or folder, `targets` is `{"label": int}`."""
        label = int(self.numbers[self.index.labels[self.rows[index]]])
        return Sample(self.id(index), self.source(index), torch.empty(0, dtype=torch.uint8), {"label": label})

    def remarks(self) -> list[str]:
        """List the reader's remarks, and what resizing the clips once takes of the disk."""
        lines = super().remarks()
        if self.side is None:
            return lines
        sources = [self.source(i) for i in range(len(self))]
        found = room_for(sources, self.side)
        if found.needed:
            lines.append(
                f"cached_side={self.side}: resized frames of {len(self)} clips are kept as each is first read, {found}"
            )
        if any(Path(source).is_dir() for source in sources):
            lines.append(f"cached_side={self.side}: folders of frames are resized each time that they are read")
        return lines

    def manifest_lines(self) -> Iterator[str]:
        """Yield the lines of the manifest; a folder of frames is known by the names and sizes of its files."""
        files = []
        for i in range(len(self)):
            address = self.source(i)
            mark = self.index.mark(self.rows[i])
            files.append((self.id(i), address, self.classes[self.labels[i]], mark or _mark_of_folder(address)))
        return manifest_lines(files, len(self))


def _mark_of_folder(address: str) -> str | None:
    """Compute a mark of what lies in a folder; None for a file."""
    if storage.is_remote(address) or not os.path.isdir(address):  # noqa: PTH112
        return None
    found = sorted((p.name, p.stat().st_size) for p in Path(address).iterdir() if p.is_file())
    return hashlib.blake2b(repr(found).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
