"""The photos that a name stands for: a file, a folder that is searched, a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from trunkline.ground.errors import DataError
from trunkline.ground.links import LOOP, walk, wrong_link

from ..data.repairs import counted
from .suffixes import SUFFIXES, UNREAD

_OTHERS = UNREAD - SUFFIXES  # those of both are listed, and each is told what it needs
_FEW = 5  # names that a line lists


def photos(given: str) -> Iterator[Path]:
    """List a file itself, the photos below a folder in the order of their paths, or the files that a pattern matches.

    Hidden files and folders are left out of a folder and a pattern. Links are followed; one that cannot be (it leads to
    nothing, or to a folder that it lies in) is listed itself, as reading it says what is wrong. Raises DataError where a
    folder cannot be read.
    """
    path = Path(given)
    if path.is_dir():
        yield from _below(path)
    elif path.is_file():
        yield path
    else:
        yield from _matching(given)


def left_out(given: str) -> str:
    """Say which files below a folder are pictures that `photos` does not list (a GIF); "" where there are none.

    Raises DataError where the folder cannot be read.
    """
    if not Path(given).is_dir():
        return ""
    try:
        return others_left_out([name for name, _ in walk(given) if Path(name).suffix.lower() in _OTHERS])
    except OSError as error:
        raise DataError(f"{error.filename or given}: cannot be read ({error.strerror})") from None


def others_left_out(names: list[str]) -> str:
    """Say that files of these names are left out, the first by name; "" where there are none."""
    if not names:
        return ""
    shown = f"{', '.join(names[:_FEW])}{', …' if len(names) > _FEW else ''}"
    return f"{counted(len(names), 'file')} of other kinds {'is' if len(names) == 1 else 'are'} left out: {shown}"


def _below(folder: Path) -> Iterator[Path]:
    try:
        for name, wrong in walk(str(folder)):
            if wrong or Path(name).suffix.lower() in SUFFIXES:
                yield folder / name
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None


def _matching(pattern: str) -> Iterator[Path]:
    """List the files that a pattern matches; of all that lies behind a loop, the link alone."""
    loops: dict[Path, None] = {}
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207
        if "**" in pattern and (loop := _loop_in(path)):
            if loop not in loops:
                yield loop
            loops[loop] = None
        elif path.is_file() or (path.is_symlink() and not path.exists()):
            yield path


def _loop_in(path: Path) -> Path | None:
    """Find the first folder of a path that is a link to one of those above it."""
    for folder in (*reversed(path.parents), path):
        if folder.is_symlink() and wrong_link(str(folder), (os.path.realpath(folder.parent),)) == LOOP:
            return folder
    return None
