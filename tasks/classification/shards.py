"""Shards: pictures in tar or parquet files, read in place by their position; nothing is unpacked.

A tar holds `CLASS/photo.jpg`, or (WebDataset's custom) `0001.jpg` with `0001.cls` beside it, a class's name or number.
A parquet file holds a column of pictures and one of labels, as the Hugging Face hub's data sets do.
"""

import hashlib
import os
import posixpath
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..data.file_index import IndexBuilder, Parts, printable
from ..images.suffixes import READ, unfit
from .folder import OTHER_NAMES, SPLITS, Folder, class_name

KINDS = (".tar", ".parquet")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
Row = tuple[bytes, str, int, int]  # name in the shard, class, start, size


def find_shards(root: str | os.PathLike[str]) -> dict[str, list[storage.Entry]]:
    """Find the shards of each split below `root`: by their folder, as `train/` or `val/`, or by how their names begin.

    Returns {} where there are none; shards are under "" where no name says their split. Raises OSError where `root`
    cannot be listed, DataError where shards are compressed, or where only some say their split.
    """
    found: dict[str, list[storage.Entry]] = {}
    here = storage.entries(root)
    for folder in (e for e in here if e.folder and split_of(e.name)):
        inside = storage.entries(storage.join(root, folder.name))
        shards = [e._replace(name=f"{folder.name}/{e.name}") for e in inside if _is_shard(e)]
        if shards:
            found.setdefault(split_of(folder.name), []).extend(shards)
    for shard in (e for e in here if _is_shard(e)):
        found.setdefault(split_of(shard.name), []).append(shard)
    packed = [e.name for shards in found.values() for e in shards if e.name.endswith(_PACKED)]
    if packed:
        raise DataError(
            f"{root}: {', '.join(packed[:3])}{' …' if len(packed) > 3 else ''}: a picture cannot be found in a compressed "
            "archive without reading all of it: unpack it to a plain .tar (JPEGs do not get smaller)"
        )
    if len(found) > 1 and "" in found:
        raise DataError(
            f"{root}: {', '.join(e.name for e in found[''][:3])}: belongs to train or val? Name shards train-*, val-*"
        )
    return found


def _is_shard(entry: storage.Entry) -> bool:
    return not entry.folder and entry.name.endswith((*KINDS, *_PACKED))


def split_of(name: str) -> str:
    """Return the split that a folder's or shard's name begins with, or ""."""
    first = name.lower().partition(".")[0].partition("-")[0].partition("_")[0]
    first = OTHER_NAMES.get(first, first)
    return first if first in SPLITS else ""


def scan_shards(root: str | os.PathLike[str], shards: dict[str, list[storage.Entry]]) -> dict[str, Folder]:
    """Scan the shards of each split; the result is as from `scan_folders`. Ids are `SHARD/NAME`."""
    names = _class_list(root)
    return {split: _scan_split(root, split, found, names) for split, found in shards.items()}


def _class_list(root: str | os.PathLike[str]) -> list[str] | None:
    """Read the names of numbered classes, one a line, from `classes.txt`; None where there is no such file."""
    if not any(e.name == "classes.txt" for e in storage.entries(root)):
        return None
    return storage.read(storage.join(root, "classes.txt")).decode("utf-8").split("\n")


def _scan_split(
    root: str | os.PathLike[str], split: str, shards: Sequence[storage.Entry], names: list[str] | None
) -> Folder:
    problems: list[tuple[str, str]] = []
    strays: dict[str, str] = {}
    seen: dict[str, int] = {}  # class to a number, in the order found; the final ones need all classes
    builder, file, start, size = IndexBuilder(), array("q"), array("q"), array("q")
    with ThreadPoolExecutor(8) as pool:  # most of the time is waiting for storage
        for n, (rows, wrong, odd) in enumerate(pool.map(partial(_rows, root, names), shards)):
            name = shards[n].name
            for own, cls, first, second in rows:
                builder.add(os.fsencode(name) + b"/" + own, seen.setdefault(cls, len(seen)))
                file.append(n)
                start.append(first)
                size.append(second)
            problems += [(name, what) for what in wrong]
            strays |= {f"{name}/{own}": what for own, what in odd.items()}
            if not rows and not wrong:
                problems.append((name, "holds no pictures"))
    classes = tuple(sorted(seen))
    parts = Parts(tuple(s.name for s in shards), np.array(file, np.min_scalar_type(len(shards))), np.array(start, np.int64),
                  np.array(size, np.uint32))  # fmt: skip
    marks = tuple(f"{s.size}-{_short(s.mark)}" if storage.is_remote(root) else "" for s in shards)
    index = builder.build([classes.index(cls) for cls in seen], parts, marks if any(marks) else None)
    return Folder(split, classes, index, strays, problems)


def _short(mark: str) -> str:
    return hashlib.blake2b(mark.encode(), digest_size=8).hexdigest()


def _rows(
    root: str | os.PathLike[str], names: list[str] | None, shard: storage.Entry
) -> tuple[list[Row], list[str], dict[str, str]]:
    """List a shard's pictures, what is wrong with the shard, and the members left out, each with the reason."""
    address = storage.join(root, shard.name)
    try:
        if shard.name.endswith(".parquet"):
            from trunkline.ground.parquet import labels

            found: list[Row] = [
                (f"{n:08d}".encode(), cls, group, row) for n, (cls, group, row) in enumerate(labels(address))
            ]
            return found, [], {}
        return _tar_rows(address, shard.size, names)
    except (OSError, tarfile.TarError, DataError) as error:
        return [], [f"cannot be read ({error})"], {}


def _tar_rows(address: str, size: int, names: list[str] | None) -> tuple[list[Row], list[str], dict[str, str]]:
    pictures: dict[str, tuple[str, int, int]] = {}
    written: dict[str, str] = {}
    strays: dict[str, str] = {}
    problems = []
    for name, start, length, text in _members(address):
        stem, suffix = _stem(name), posixpath.splitext(name)[1].lower()
        if start < 0:
            strays[printable(os.fsencode(name))] = "is no file but a link, and none is followed out of a shard"
        elif start + length > size:
            problems.append(f"is cut off: {printable(os.fsencode(name))} ends beyond it")
        elif suffix == ".cls":
            written[stem] = text
        elif suffix in READ:
            if stem in pictures:
                problems.append(f"holds {printable(os.fsencode(stem))} twice")
            pictures[stem] = (name, start, length)
        elif suffix not in (".json", ".txt", ".id"):  # what WebDatasets hold beside pictures
            strays[printable(os.fsencode(name))] = unfit(suffix)
    rows: list[Row] = []
    for stem, (name, start, length) in pictures.items():
        cls = _class_of(written.get(stem), name, bool(written), names)
        if cls is None:
            why = (
                "has no .cls beside it"
                if written
                else "is in no folder that names its class, and has no .cls beside it"
            )
            strays[printable(os.fsencode(name))] = why
        else:
            rows.append((os.fsencode(name), class_name(cls), start, length))
    return rows, problems, strays


def _class_of(text: str | None, name: str, written: bool, names: list[str] | None) -> str | None:
    if not written:
        return posixpath.basename(posixpath.dirname(name)) or None
    if text is not None and names and text.isdecimal():
        return names[int(text)] if int(text) < len(names) and names[int(text)] else None
    return text or None


def _stem(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _members(address: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield name, place, size and text of each file in a tar; only files that say a class have a text.

    The place of a link is -1: it has no bytes of its own.
    """
    with storage.opened(address) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            getattr(archive, "members", []).clear()  # else the archive keeps all members in memory
            link = member.issym() or member.islnk()
            if not (member.isreg() or link) or posixpath.basename(member.name).startswith("."):
                continue
            if link:
                yield member.name, -1, 0, ""
                continue
            text = ""
            if member.name.lower().endswith(".cls") and (inside := archive.extractfile(member)):
                text = inside.read(1024).decode("utf-8", "backslashreplace").strip()
            yield member.name, member.offset_data, member.size, text
        file.seek(archive.offset)
        if not file.read(1):
            raise tarfile.ReadError("it has no end mark: it is cut off, or was never finished; write it again")
