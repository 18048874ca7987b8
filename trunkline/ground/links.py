"""Links below a folder that its user named: followed wherever they lead; loops and links to nothing are told by name."""

# Names that are no valid UTF-8 need `os`; Path objects are slow for millions of files.
# ruff: noqa: PTH110, PTH112, PTH114, PTH120

import os
from collections.abc import Iterator

NOTHING = "is a link to nothing"
LOOP = "is a link to a folder that it lies in"
Chain = tuple[str, ...]
"""The real paths of the folders above an entry, the one that the user named first."""


def wrong_link(path: str, chain: Chain) -> str:
    """Say what is wrong with the link at a path; "" where it can be followed."""
    if not os.path.exists(path):
        return NOTHING
    if not os.path.isdir(path):
        return ""
    target = os.path.realpath(path)
    return LOOP if any(_holds(target, folder) for folder in chain) else ""


def _holds(folder: str, other: str) -> bool:
    return other == folder or other.startswith(folder.rstrip(os.sep) + os.sep)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def walk(folder: str, chain: Chain = ()) -> Iterator[tuple[str, str]]:
    """Yield each file below a folder, relative with slashes and in order, with "" or what is wrong with it.

    Hidden files and folders are left out. A link to nothing is yielded as a file, a loop in place of what it leads to.
    Raises OSError where a folder cannot be read.
    """
    chain = (*chain, os.path.realpath(folder))
    with os.scandir(folder) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in found:
        wrong = wrong_link(entry.path, chain) if entry.is_symlink() else ""
        if wrong or not is_folder(entry):
            yield entry.name, wrong
            continue
        yield from ((f"{entry.name}/{name}", what) for name, what in walk(entry.path, chain))


def unread(path: str | os.PathLike[str], error: OSError) -> str:
    """Say why a file could not be read: its link, where that is to blame, else the error."""
    if os.path.islink(path) and (wrong := wrong_link(os.fspath(path), (os.path.realpath(os.path.dirname(path)),))):
        return wrong
    return f"cannot be read ({error.strerror or error})"
