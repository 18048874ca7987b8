"""Indexes that were made before, in the user's cache folder: a small file for each video."""

import hashlib
import json
import os
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from trunkline.ground import storage
from trunkline.ground.cache import cache_folder

from .contract import Index, Turn

VERSION = 2  # of what an index holds and how it is made
_EDGE = 16384  # bytes of either end that tell one content from another
_MARK = b"TLVI"


def place(path: str | os.PathLike[str], decoder: str) -> Path:
    """Name the file of a video's index: by its path, size, time of change, both ends of its content, and the decoder.

    Raises OSError where the video cannot be read.
    """
    address = storage.absolute(path)
    found = hashlib.blake2b(digest_size=16)
    if storage.is_remote(address) or not os.path.isfile(address):  # noqa: PTH113 - of a part of a file there is no path
        data = bytes(storage.read(address))
        size, changed, ends = len(data), 0, (data,)
    else:
        with open(address, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            size, changed = status.st_size, status.st_mtime_ns
            head = file.read(_EDGE)
            file.seek(max(_EDGE, size - _EDGE))
            ends = (head, file.read(_EDGE))
    for part in (f"{VERSION} {decoder} {size} {changed}".encode(), os.fsencode(address), *ends):
        found.update(len(part).to_bytes(8))
        found.update(part)
    name = found.hexdigest()
    return cache_folder() / "video" / name[:2] / f"{name[2:]}.index"


def load(file: Path) -> Index | None:
    """Read an index; None where there is none, or it is damaged."""
    try:
        data = file.read_bytes()
        mark, digest, body = data[:4], data[4:20], data[20:]
        if mark != _MARK or hashlib.blake2b(body, digest_size=16).digest() != digest:
            return None
        length = int.from_bytes(body[:4])
        said = json.loads(body[4 : 4 + length])
        arrays = np.frombuffer(body, np.int64, offset=4 + length)
        frames, places = said.pop("lengths")
        said |= {"base": Fraction(said["base"]), "rate": Fraction(said["rate"]), "turn": Turn(*said["turn"])}
        said["remarks"] = tuple(said["remarks"])
        return Index(arrays[:frames], arrays[frames:places].reshape(-1, 3), arrays[places:], **said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(index: Index, file: Path) -> None:
    """Write an index beside and rename it; where the cache cannot be written it is made again each time."""
    said = {name: value for name, value in vars(index).items() if not isinstance(value, np.ndarray)}
    said |= {"base": str(index.base), "rate": str(index.rate), "lengths": (len(index), len(index) + index.places.size)}
    head = json.dumps(said).encode()
    head += b" " * (-(len(head) + 4) % 8)  # whole numbers of eight bytes, for the arrays behind it
    arrays = [np.ascontiguousarray(a, np.int64).tobytes() for a in (index.stamps, index.places, index.spare)]
    body = b"".join([len(head).to_bytes(4), head, *arrays])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(_MARK + hashlib.blake2b(body, digest_size=16).digest() + body)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return
