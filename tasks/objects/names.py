"""From the file names that annotations have to the pictures that are there."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..data.below import files_in
from ..data.repairs import Repairs
from .index import ObjectIndex

MOST = 20
LOOKED_FOR = 100  # names, evenly taken: where they are there, all are taken as they stand
_LABEL_STUDIO = re.compile(r"[0-9a-f]{8}-.")  # before the name of a picture that was uploaded
PREFIX = 9  # its characters
CASE = "file_name: small and capital letters as the picture's name has them"


def placed(index: ObjectIndex, images: str, file: str) -> ObjectIndex:
    """Return the index with the names of pictures below the folder `images`.

    Where names are not there as they stand, backslashes, folders before the name and Label Studio's prefix are left out, and
    capitals taken for small letters, if that leads each entry to another picture of the folder; a note counts them. Raises
    DataError for names that lead out of the folder, are none, or lead two entries to one picture.
    """
    names = [index.name(row) for row in range(len(index))]
    plain = not any(_leaves(name) or "\\" in name for name in names)
    some = names[:: max(1, len(names) // LOOKED_FOR)]
    if plain and (storage.is_remote(images) or all(Path(images, name).exists() for name in some)):
        check_names(names, file)
        return index
    repairs = Repairs(file)
    there = set(files_in(images))
    found = _in_own_case([place(name, there, repairs) for name in names], there, repairs)
    check_names(found, file, names)
    if found == names:
        return index
    encoded = [os.fsencode(name) for name in found]
    return replace(
        index, names=np.frombuffer(b"".join(encoded), np.uint8), name_ends=np.cumsum([len(n) for n in encoded], dtype=np.int64),
        notes=(*index.notes, *repairs.lines()), folder="",
    )  # fmt: skip


def check_names(names: list[str], file: str, given: list[str] | None = None) -> None:
    """Raise DataError for names that lead out of their folder, are none, or stand there twice; `given` is how they were said."""
    if wrong := [name for name in names if _leaves(name)]:
        more = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
        raise DataError(
            f"{file}: file_name leaves the folder of images, or is no name: {', '.join(map(repr, wrong[:MOST]))}{more}"
        )
    if len(set(names)) == len(names):
        return
    again = sorted(name for name, times in Counter(names).items() if times > 1)
    more = f" and {len(again) - MOST} more" if len(again) > MOST else ""
    said = defaultdict(list)
    for name, own in zip(names, given or names, strict=True):
        said[name].append(own)
    listed = [
        name if len(set(said[name])) == 1 else f"{name} ({' and '.join(said[name][:4])})" for name in again[:MOST]
    ]
    raise DataError(f"{file}: several images have the picture {', '.join(listed)}{more}")


def _leaves(name: str) -> bool:
    return not name or "\0" in name or name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")


def place(name: str, there: Collection[str], repairs: Repairs) -> str:
    """Find the picture that a name means; the name as it stands where there is none."""
    for found, what in readings(name):
        if found in there:
            if what:
                repairs.add(f"file_name: {what}", "image")
            return found
    return name


class Alike:
    """Pictures by their names whatever their capitals; they are sorted when the first name is not there as it stands."""

    def __init__(self, there: Collection[str]):
        self._there = there

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._there:
            found[name.casefold()].append(name)
        return dict(found)

    def find(self, name: str, repairs: Repairs) -> str | None:
        """Find the one picture whose name differs in small and capital letters alone, and count it; None where there is none."""
        own = self._by_name.get(name.casefold(), [])
        repairs.add(CASE, "image", len(own) == 1)
        return own[0] if len(own) == 1 else None


def _in_own_case(names: list[str], there: Collection[str], repairs: Repairs) -> list[str]:
    """Give names that are not there the one picture whose name differs in small and capital letters alone."""
    alike = Alike(there)
    return [name if name in there else alike.find(name, repairs) or name for name in names]


def readings(name: str) -> Iterator[tuple[str, str]]:
    """Yield what a name may mean below the folder of images, the longest first, and what is left out of it."""
    yield name, ""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    for skipped in range(len(parts)):
        *folders, last = parts[skipped:]
        what = "folders before the picture left out" if skipped else "backslashes taken as slashes"
        yield "/".join([*folders, last]), what
        if _LABEL_STUDIO.match(last):
            yield "/".join([*folders, last[PREFIX:]]), "Label Studio's prefix left out"
