"""The files below a folder, links followed; a link that leads back to a folder above itself is left."""

# `os` is several times as fast as Path for many files.
# ruff: noqa: PTH118

import os
from collections.abc import Sequence


def files_in(folder: str | os.PathLike[str], suffixes: Sequence[str] = ()) -> list[str]:
    """List the files below a folder with one of these suffixes (in small letters; none: all), relative and sorted.

    Hidden files and folders are left out. Paths have forward slashes.
    """
    ends, found = tuple(suffixes), []
    stack: list[tuple[str, str, tuple[str, ...]]] = [(os.fspath(folder), "", (os.path.realpath(folder),))]
    while stack:
        place, inside, above = stack.pop()
        try:
            entries = [*os.scandir(place)]
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{inside}{entry.name}"
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
                if real not in above:
                    stack.append((entry.path, f"{name}/", (*above, real)))
            elif not ends or entry.name.lower().endswith(ends):
                found.append(name)
    return sorted(found)
