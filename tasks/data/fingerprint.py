"""Recognise a data set: a line for each file, a digest over the lines, and what differs between two states."""

# `os` and bytes can hold names that are no valid UTF-8; Path objects are slow by the million.
# ruff: noqa: PTH116, PTH123

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from trunkline.ground import storage
from trunkline.ground.access import check_file

CHECKSUMS = 50_000  # at most so many files are opened; of the others only the size is compared
EDGE = 4096  # bytes read at a file's beginning and end
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


File = tuple[str, str, str, str | None]  # id, address, class, and what storage says of the file where it is not opened


def manifest_lines(files: Iterable[File], count: int) -> Iterator[str]:
    """Yield for each of `count` files `id TAB class TAB bytes TAB checksum`, in their order.

    The checksum is BLAKE2b, 64 bits, of the first and last 4 KiB. At most about 50,000 files are opened, chosen by a
    hash of the id; the others have "-" as their checksum. Parts of larger files are always read. A file with a mark of
    storage has "-" as its size and the mark as its checksum. A file that is gone has "missing" as its size.
    """
    sparse = max(0, (count - 1) // CHECKSUMS).bit_length()  # one of 2**sparse files is opened
    with ThreadPoolExecutor(8) as pool:  # the time goes to storage, not to Python
        for lines in pool.map(partial(_lines, sparse), _chunks(files, 512)):
            yield from lines


def digest(lines: Iterable[str]) -> str:
    """Compute BLAKE2b, 128 bits, over lines, in hexadecimal."""
    total = hashlib.blake2b(digest_size=16)
    for line in lines:
        total.update(line.encode() + b"\n")
    return total.hexdigest()


def compare(old: Iterable[str], new: Iterable[str], limit: int = 5) -> str:
    """Describe how two manifests differ, with the first `limit` names of each kind; "" where they do not."""
    before, after = _by_id(old), _by_id(new)
    said = []
    for what, names in (
        ("added", [name for name in after if name not in before]),
        ("removed", [name for name in before if name not in after]),
        ("in another class", [name for name in after if name in before and after[name][0] != before[name][0]]),
        ("changed", [name for name in after if name in before and _changed(before[name], after[name])]),
    ):
        if names:
            names.sort()
            more = f" and {len(names) - limit} more" if len(names) > limit else ""
            said.append(f"{len(names)} {what} ({', '.join(names[:limit])}{more})")
    return "; ".join(said)


def _changed(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    if old[0] != new[0]:
        return False
    return old[1] != new[1] or (old[2] != new[2] and "-" not in (old[2], new[2]))


def _by_id(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(rest) for name, *rest in (line.rstrip("\n").split("\t") for line in lines)}


def _chunks(files: Iterable[File], size: int) -> Iterator[list[File]]:
    chunk = []
    for file in files:
        chunk.append(file)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _lines(sparse: int, files: list[File]) -> list[str]:
    return [_line(sparse, *file) for file in files]


def _line(sparse: int, name: str, address: str, cls: str, mark: str | None) -> str:
    head = f"{name.translate(_ESCAPES)}\t{cls.translate(_ESCAPES)}"
    if mark is not None:
        return f"{head}\t-\t{mark}"
    try:
        if "::" in address:
            part = bytes(storage.read(address))
            edges = hashlib.blake2b(part[:EDGE] + part[max(EDGE, len(part) - EDGE) :], digest_size=8)
            return f"{head}\t{len(part)}\t{edges.hexdigest()}"
        if sparse and hashlib.blake2b(name.encode(), digest_size=4).digest()[0] >> max(0, 8 - sparse):
            return f"{head}\t{os.stat(address).st_size}\t-"
        check_file(address)
        with open(address, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            edges = hashlib.blake2b(file.read(EDGE), digest_size=8)
            if size > EDGE:
                file.seek(max(EDGE, size - EDGE))
                edges.update(file.read(EDGE))
        return f"{head}\t{size}\t{edges.hexdigest()}"
    except OSError:
        return f"{head}\tmissing\t-"
