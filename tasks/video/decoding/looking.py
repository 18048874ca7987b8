"""A first look at the clips of a split, before they are trained on: each is opened, and its index made."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from trunkline.ground.errors import DataError

from ...data.file_loaders import Crash, run_all
from ...data.remarks import Remarks
from ...images.decode import HOW_TO_GO_ON
from ...samples import Samples
from .video import Video, open_video

_LISTED = 20


def look(samples: Samples, loaders: int) -> list[str]:
    """Open every clip, in so many processes (0: this one); what is found stays in the cache of indexes.

    Return the remarks on their files, alike ones once. Raises DataError with the names of all that cannot be opened.
    """
    bad: dict[str, str] = {}
    found: dict[int, tuple[str, ...]] = {}
    for i, said in run_all(partial(_opened, samples), len(samples), loaders, "looking"):
        if isinstance(said, tuple):
            found[i] = said
        else:
            bad[samples.id(i)] = said.what if isinstance(said, Crash) else said
    if bad:
        lines = [f"{name}: {what}" for name, what in sorted(bad.items())]
        more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        head = [f"{len(bad)} of {len(samples)} clips cannot be used"] if len(bad) > 1 else []
        raise DataError("\n  ".join([*head, *lines[:_LISTED], *more]) + f"; {HOW_TO_GO_ON}")
    remarks = Remarks("clip")
    for i in range(len(samples)):
        remarks.add(samples.id(i), found[i])
    return remarks.lines()


def _opened(samples: Samples, index: int) -> tuple[str, ...] | str:
    """Return a clip's remarks, or why it cannot be opened."""
    source = samples.source(index)
    try:
        with open_video(source) as video:
            return tuple(video.remarks)
    except DataError as error:
        return str(error).removesuffix(f"; {HOW_TO_GO_ON}").removeprefix(f"{source}: ")


def every_frame(video: Video) -> Iterator[np.ndarray | None]:
    """Yield all frames, one in memory at a time; None where decoding shows that other ones are there, and they begin anew.

    Raises DataError as `Video.stream`.
    """
    known = None
    while known != video.counted:
        known = video.counted
        try:
            yield from video.stream()
        except DataError:
            if known == video.counted:
                raise
            yield None


class Decoded:
    """Samples of which each frame is decoded when they are asked for: what `scan` looks at."""

    def __init__(self, samples: Samples):
        self.samples, self.id, self.source = samples, samples.id, samples.source

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> None:
        """Raise DataError, without the file's name, where a clip, or one of its frames, cannot be used."""
        source = self.source(index)
        try:
            with open_video(source) as video:
                for _ in every_frame(video):
                    pass
        except DataError as error:
            raise DataError(str(error).removeprefix(f"{source}: ")) from None
