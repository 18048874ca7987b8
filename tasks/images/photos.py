"""The photos that a name stands for: a file, a folder that is searched, a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from trunkline.ground.errors import DataError

from .decode import SUFFIXES


def photos(given: str) -> Iterator[Path]:
    """List a file itself, the photos below a folder in the order of their paths, or the files that a pattern matches.

    Hidden files and folders are left out of a folder and a pattern. Of a folder, only one folder's names are in memory
    at a time. Raises DataError where a folder cannot be read.
    """
    path = Path(given)
    if path.is_dir():
        yield from _below(path)
    elif path.is_file():
        yield path
    else:
        yield from (p for p in map(Path, sorted(glob.glob(given, recursive=True))) if p.is_file())  # noqa: PTH207


def _below(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    for name, is_folder in found:
        path = folder / name
        if is_folder:
            yield from _below(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
