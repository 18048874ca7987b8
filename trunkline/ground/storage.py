"""Bytes from wherever they lie: files of this machine, and what fsspec reaches (`s3://…`, `https://…`); whole or in part.

An address is a path or a URL; `ADDRESS::START+SIZE` is a part of that file, `ADDRESS::gGROUPrROW` a row of a parquet file.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from trunkline.ground.access import check_file, filesystem, is_local, told
from trunkline.ground.access import is_remote as is_remote
from trunkline.ground.access import opened as opened
from trunkline.ground.links import LOOP, is_folder, walk
from trunkline.ground.parquet import row_bytes

_PART = re.compile(r"(.+)::(?:(\d+)\+(\d+)|g(\d+)r(\d+))", re.DOTALL)


GONE = "gone"
"""The mark of a link to nothing."""


class Entry(NamedTuple):
    """What lies in a folder: a name, whether it is a folder, bytes, and a mark that changes with the content."""

    name: str
    folder: bool
    size: int
    mark: str


def at_home(address: str | os.PathLike[str]) -> str:
    """Put the user's home folder in place of a `~` that a path begins with (`~anna`: that user's); a URL stays."""
    return os.fspath(address) if is_remote(address) else os.path.expanduser(address)  # noqa: PTH111 - as text


def absolute(address: str | os.PathLike[str]) -> str:
    """Make an address mean the same from every folder: a path from the root on, a URL as it is."""
    return os.fspath(address) if is_remote(address) else str(Path(at_home(address)).absolute())


def join(root: str | os.PathLike[str], *names: str) -> str:
    """Join an address and the names below it, with slashes."""
    return "/".join((os.fspath(root).rstrip("/"), *names))


def read(address: str | os.PathLike[str]) -> bytearray:
    """Read the bytes at an address. Raises OSError where they cannot be had, DataError as `opened`."""
    text = os.fspath(address)
    part = _PART.fullmatch(text) if "::" in text else None
    if part and part[4]:
        return row_bytes(part[1], int(part[4]), int(part[5]))
    if part and (is_remote(text) or not os.path.exists(text)):  # noqa: PTH110
        return _read(part[1], int(part[2]), int(part[3]))
    return _read(text)


def _read(address: str, start: int = 0, size: int | None = None) -> bytearray:
    if is_remote(address):
        with told(address):
            fs, path = filesystem(address)
            data = bytearray(fs.cat_file(path, start, None if size is None else start + size))
    else:
        check_file(address)
        with open(address, "rb") as file:  # noqa: PTH123 - three times as fast as Path.open, once a sample
            if start:
                file.seek(start)
            data = bytearray(file.read() if size is None else file.read(size))
    if size is not None and len(data) < size:
        raise OSError(f"ends after {start + len(data)} bytes, before the sample's end at {start + size}")
    return data


def entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """List what lies directly in a folder, sorted by name, without hidden entries.

    Raises OSError where it is no folder or cannot be read.
    """
    address = os.fspath(folder)
    if not is_remote(address):
        with os.scandir(address) as found:
            own = [Entry(e.name, is_folder(e), *_stat(e)) for e in found]
    else:
        with told(address):
            fs, path = filesystem(address)
            own = [_entry(info, path) for info in fs.ls(path, detail=True)]
    return sorted(e for e in own if e.name and not e.name.startswith("."))


def files_below(folder: str) -> list[Entry]:
    """List all files below a remote folder by their paths in it, without hidden ones.

    Links are followed where the storage is this machine's (`file://…`). Raises OSError on failure, and for a loop.
    """
    with told(folder):
        fs, path = filesystem(folder)
        if is_local(fs) and os.path.isdir(path):  # noqa: PTH112
            return sorted(_local(path, name, wrong) for name, wrong in walk(path))
        found = [_entry(info, path) for info in fs.find(path, detail=True).values()]
    return sorted(e for e in found if e.name and not any(part.startswith(".") for part in e.name.split("/")))


def send(file: Path, address: str) -> None:
    """Put a file's bytes at a remote address, in place of what is there. Raises OSError where that fails."""
    with told(address):
        fs, path = filesystem(address)
        if hasattr(fs, "auto_mkdir"):  # one that has folders
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, file.read_bytes()) if file.stat().st_size < 2**23 else fs.put_file(str(file), path)


def remove(address: str) -> None:
    """Remove a file at a remote address, if it is there."""
    with told(address):
        fs, path = filesystem(address)
        if fs.exists(path):
            fs.rm_file(path)


def _local(folder: str, name: str, wrong: str) -> Entry:
    if wrong == LOOP:
        raise OSError(f"{name} {wrong}")
    path = f"{folder}/{name}"
    found = None if wrong else os.stat(path)  # noqa: PTH116
    return Entry(name, False, found.st_size, str(found.st_mtime)) if found else Entry(name, False, 0, GONE)


def _stat(entry: os.DirEntry[str]) -> tuple[int, str]:
    try:
        found = entry.stat()
    except OSError:
        return 0, GONE
    return found.st_size, str(found.st_mtime_ns)


def _entry(info: dict[str, Any], below: str) -> Entry:
    name = str(info["name"]).rstrip("/")
    below = below.rstrip("/")
    at = name.find(below)  # some file systems name the server, some do not
    marks = (info.get(k) for k in ("ETag", "etag", "md5Hash", "md5", "contentHash", "LastModified", "mtime", "created"))
    mark = next((str(m) for m in marks if m), "")
    return Entry(name[at + len(below) :].lstrip("/"), info.get("type") == "directory", int(info.get("size") or 0), mark)
