"""The files below a folder that a user named; links are followed."""

import os
from collections.abc import Sequence

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import LOOP, walk

_MOST = 20


def files_in(folder: str | os.PathLike[str], suffixes: Sequence[str] = ()) -> list[str]:
    """List the files below a folder with one of these suffixes (in small letters; none: all), relative and sorted.

    Hidden files and folders are left out. Paths have forward slashes. Raises DataError for a link to a folder that it lies
    in, and for a folder that cannot be read.
    """
    ends = tuple(suffixes)
    try:
        if storage.is_remote(folder):
            found = [(entry.name, "") for entry in storage.files_below(os.fspath(folder))]
        else:
            found = list(walk(os.fspath(folder)))
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    if loops := [f"{folder}/{name}: {wrong}" for name, wrong in found if wrong == LOOP]:
        raise DataError("\n".join(loops[:_MOST]))
    return sorted(name for name, _ in found if not ends or name.lower().endswith(ends))
