"""The videos that a name stands for: a file, a folder of frames, a folder that is searched, a pattern."""

import glob
from collections.abc import Iterator
from pathlib import Path

from trunkline.ground.errors import DataError
from trunkline.ground.links import walk

from .suffixes import CLIPS


def videos(given: str) -> Iterator[Path]:
    """List a file itself, or a folder of frames; else the videos and folders of frames below a folder, or that a pattern matches.

    Hidden files and folders are left out of a folder and a pattern. Raises DataError where a folder cannot be read.
    """
    path = Path(given)
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _below(path)
    else:
        for one in map(Path, sorted(glob.glob(given, recursive=True))):  # noqa: PTH207
            if one.is_file() or (one.is_dir() and _holds_frames(one)):
                yield one


def _below(folder: Path) -> Iterator[Path]:
    try:
        files = [(Path(name), wrong) for name, wrong in walk(str(folder))]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    told: set[Path] = set()
    for name, wrong in files:
        suffix = name.suffix.lower()
        if wrong or suffix in CLIPS.read:
            yield folder / name
        elif suffix in CLIPS.frames and name.parent not in told:
            told.add(name.parent)
            yield folder / name.parent


def _holds_frames(folder: Path) -> bool:
    return any(file.suffix.lower() in CLIPS.frames for file in folder.iterdir())
