"""Class folders on storage that fsspec reaches: one listing, and the same rules as for folders of this machine."""

import os
import posixpath

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import NOTHING

from ..data.file_index import IndexBuilder, printable
from ..images.suffixes import READ, SUFFIXES, unfit
from .folder import SPLITS, Folder, class_name


def scan_remote(root: str) -> dict[str, Folder]:
    """Scan class folders as `scan_folders` does, on storage that fsspec reaches.

    Raises DataError where nothing is there, OSError where it cannot be listed.
    """
    files = storage.files_below(root)
    if not files:
        raise DataError(
            f"{root}: there is nothing; expected {root}/train/CLASS/photo.jpg, or shards such as train-000.tar"
        )
    first = {entry.name.partition("/")[0] for entry in files}
    splits = [split for split in SPLITS if split in first]
    if not splits:
        return {"": _scan_split("", files)}
    return {s: _scan_split(s, [e for e in files if e.name.startswith(f"{s}/")]) for s in splits}


def _scan_split(split: str, files: list[storage.Entry]) -> Folder:
    strays: dict[str, str] = {}
    rows: list[tuple[str, storage.Entry]] = []
    skip = 1 if split else 0
    for entry in files:
        parts = entry.name.split("/")
        shown, suffix = printable(os.fsencode(entry.name)), posixpath.splitext(entry.name)[1].lower()
        if entry.mark == storage.GONE:
            strays[shown] = NOTHING
        elif len(parts) < skip + 2:
            if split or suffix in SUFFIXES:
                strays[shown] = f"lies directly in {split + '/' if split else 'the data folder'}, in no class folder"
        elif suffix not in READ:
            strays[shown] = unfit(suffix)
        else:
            rows.append((class_name(parts[skip]), entry))
    rows.sort()
    classes = tuple(sorted({cls for cls, _ in rows}))
    number = {cls: n for n, cls in enumerate(classes)}
    builder = IndexBuilder()
    for cls, entry in rows:
        builder.add(os.fsencode(entry.name), number[cls])
    marks = tuple(f"{entry.size}-{entry.mark}" for _, entry in rows)
    problems = [] if classes else [(f"{split}/", "holds no class folders with photos")]
    return Folder(split, classes, builder.build(None, None, marks), strays, problems)
