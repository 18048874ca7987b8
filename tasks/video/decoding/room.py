"""How much of the disk the resized frames of clips take, told before any is made."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import DataError

from .resized import SHARE, place, size_at
from .video import open_video

_LOOKED_AT = 16  # clips


class Room(NamedTuple):
    """Bytes that are still to be written, by an estimate, and bytes that are free; and where."""

    needed: int
    free: int
    folder: Path

    def __str__(self) -> str:
        return f"up to about {_gib(self.needed)} in {self.folder}, where {_gib(self.free)} are free"


def room_for(sources: Sequence[str], side: int) -> Room:
    """Estimate what resizing these videos once will write, from some of them; what is there, and folders, take nothing."""
    at = sorted({i * len(sources) // _LOOKED_AT for i in range(_LOOKED_AT)} & {*range(len(sources))})
    each = [_bytes(sources[i], side) for i in at]
    folder = cache_folder() / "video"
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return Room(int(sum(each) / max(1, len(each)) * len(sources)), shutil.disk_usage(there).free, folder)


def _bytes(source: str, side: int) -> int:
    kept = place(source, side) if Path(source).is_file() else None
    if kept is None or kept.is_file():
        return 0
    try:
        with open_video(source) as video:
            height, width = size_at(video.height, video.width, side)
            larger = min(video.height, video.width) > side
            return int(video.count * height * width * 3 * SHARE) if larger else 0
    except DataError:
        return 0  # it is told where it is used


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 2**33 else f"{size / 2**30:,.0f} GiB"
