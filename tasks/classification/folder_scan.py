"""Walk class folders: every photo with its class, and everything that is not as it should be, found in one go."""

# Names that are no valid UTF-8 need `os` and bytes; Path objects are slow for millions of files.
# ruff: noqa: PTH118

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from trunkline.ground.errors import DataError
from trunkline.ground.links import NOTHING, Chain, is_folder, wrong_link
from trunkline.ground.storage import is_remote

from ..data.file_index import IndexBuilder, printable
from ..data.media import Media
from ..images.suffixes import PHOTOS
from .folder import OTHER_NAMES, SPLITS, Folder, class_name
from .remote_folders import scan_remote
from .shards import find_shards, scan_shards
from .tables import layout_of, scan_tables

_CLUTTER = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"))


def scan(root: str | os.PathLike[str], form: str = "auto", group: str = "") -> dict[str, Folder]:
    """Scan what lies below `root`, by split, train first: shards if there are any, else class folders, or a table's rows.

    `form` is "folders", "csv", or "auto": by what lies there; `group` may name a table's column of groups. Raises DataError
    where `root` is missing, cannot be read, or has no such layout, and of "auto" where it has both class folders and a table.
    """
    if not is_remote(root) and not Path(root).is_dir():
        raise DataError(_missing(Path(root)))
    try:
        if form == "csv":
            found = scan_tables(root, group=group)
        elif shards := find_shards(root):
            found = scan_shards(root, shards)
        elif form == "auto" and layout_of(root) == "csv":
            found = scan_tables(root, group=group)
        else:
            found = scan_remote(os.fspath(root)) if is_remote(root) else scan_folders(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error})") from None
    return dict(sorted(found.items()))


def scan_folders(root: str | os.PathLike[str], media: Media = PHOTOS) -> dict[str, Folder]:
    """Scan the class folders in `root/train` and `root/val`, or in `root` itself (then under the name "").

    Of `media` that can be folders of frames, such a folder is one item.

    Raises DataError where `root` is missing or has neither layout. Hidden files and folders are ignored.
    """
    base = Path(root)
    if not base.is_dir():
        raise DataError(_missing(base))
    folders, files = _visible(os.fspath(base))
    names = [entry.name for entry in folders]
    if gone := [e.name for e in files if e.name in SPLITS and wrong_link(e.path, ())]:
        raise DataError(f"{base}: {', '.join(gone)}: {NOTHING}; mend it, or remove it")
    splits = [entry for entry in folders if entry.name in SPLITS and _visible(entry.path)[0]]
    if not splits:
        splits = [entry for entry in folders if entry.name in SPLITS] if set(SPLITS) <= set(names) else []
    if splits:
        return {entry.name: _scan_split(base, entry.name, media) for entry in splits}
    if wanted := renames(names):
        raise DataError(f"{base}: expected train/ and val/, or one folder a class; found {_some(names)}. {wanted}")
    if not names:
        raise DataError(
            f"{base}: holds no folders; expected {base}/train/CLASS/{media.example} and {base}/val/CLASS/{media.example}, "
            f"or {base}/CLASS/{media.example} with val=0.2"
        )
    return {"": _scan_split(base, "", media)}


def renames(names: Iterable[str]) -> str:
    """Say which folders to rename ("valid", "Train") to be found as train/ or val/; "" where there are none."""
    right = {name: OTHER_NAMES.get(name.lower(), name.lower()) for name in names if name not in SPLITS}
    told = [f"{name}/ to {new}/" for name, new in right.items() if new in SPLITS]
    return f"Rename {' or '.join(told)}" if told else ""


def _missing(base: Path) -> str:
    if base.exists():
        return f"{base}: is a file; data= takes the folder that holds train/ and val/, or one folder a class"
    parent = next((p for p in base.absolute().parents if p.is_dir()), Path("/"))
    found = sorted(entry.name for entry in os.scandir(parent) if not _hidden(entry.name))
    return f"{base}: there is no such folder; {parent} holds {_some(found) or 'nothing'}"


def _scan_split(root: Path, name: str, media: Media) -> Folder:
    top = os.path.join(os.fspath(root), name) if name else os.fspath(root)
    chain = tuple(dict.fromkeys((os.path.realpath(root), os.path.realpath(top))))
    walker, builder, named, empty = _Walker(media), IndexBuilder(), {}, {}
    folders, files = _visible(top)
    for entry in folders:
        label = class_name(entry.name)
        if label in named:
            walker.problem(walker.id(name, entry.name), "two folders have this name in Unicode's normal form")
        named[label] = entry
    classes = tuple(sorted(named))
    for label, cls in enumerate(classes):
        before = len(builder), len(walker.strays), len(walker.problems)
        entry = named[cls]
        prefix = f"{name}/{entry.name}" if name else entry.name
        for path in walker.items(entry, prefix, chain):
            builder.add(os.fsencode(path), label)
        if len(builder) == before[0] and len(walker.problems) == before[2]:
            stray = len(walker.strays) > before[1]
            empty[walker.id(prefix)] = f"the class holds no {f'file with a {media.word} suffix' if stray else 'files'}"
    for entry in files:
        if entry.is_symlink() and wrong_link(entry.path, ()):  # perhaps to a class
            walker.problem(walker.id(name, entry.name), NOTHING)
        elif name or _suffix(entry.name) in media.known:
            place = f"{name}/" if name else "the data folder"
            walker.stray(walker.id(name, entry.name), f"lies directly in {place}, in no class folder")
    if not classes:
        walker.problem(f"{name}/", "holds no class folders")
    return Folder(name, classes, builder.build(), walker.strays, walker.problems, empty)


class _Walker:
    """The files of a kind below a class folder in a fixed order; what is wrong is noted, not raised."""

    def __init__(self, media: Media) -> None:
        self.media = media
        self.strays: dict[str, str] = {}
        self.problems: list[tuple[str, str]] = []

    @staticmethod
    def id(*parts: str) -> str:
        return printable(os.fsencode("/".join(part for part in parts if part)))

    def problem(self, where: str, what: str) -> None:
        self.problems.append((where, what))

    def stray(self, where: str, what: str) -> None:
        self.strays[where] = what

    def items(self, folder: os.DirEntry[str], path: str, chain: Chain, inner: bool = False) -> Iterator[str]:
        """Yield paths relative to the root: the files of a folder before its subfolders, each sorted by name."""
        if folder.is_symlink() and (wrong := wrong_link(folder.path, chain)):
            self.problem(self.id(path), wrong)
            return
        chain = (*chain, os.path.realpath(folder.path))
        try:
            folders, files = _visible(folder.path)
        except OSError as error:
            self.problem(self.id(path), f"cannot be read ({error.strerror})")
            return
        if self.media.frames and inner and not (folders or files):
            self.stray(
                self.id(path), f"holds nothing; expected the frames of a {self.media.word}, or {self.media.word}s"
            )
        for entry in files:
            inside = f"{path}/{entry.name}"
            if entry.is_symlink() and (wrong := wrong_link(entry.path, ())):
                self.stray(self.id(inside), wrong)
            elif (suffix := _suffix(entry.name)) not in self.media.read:
                self.stray(self.id(inside), self.media.unfit(suffix))
            elif entry.is_file():
                yield inside
            else:
                self.stray(self.id(inside), "is no file")
        for entry in folders:
            inside = f"{path}/{entry.name}"
            if self.media.frames and holds(entry.path, self.media.frames):
                yield inside
            else:
                yield from self.items(entry, inside, chain, inner=True)


def holds(folder: str, suffixes: frozenset[str]) -> bool:
    """Say whether a file with one of the suffixes lies in the folder itself."""
    try:
        return any(_suffix(entry.name) in suffixes for entry in _visible(folder)[1])
    except OSError:
        return False


def _visible(folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """List the folders and the files that are not hidden, each sorted by name."""
    with os.scandir(folder) as entries:
        seen = sorted((e for e in entries if not _hidden(e.name)), key=lambda e: e.name)
    folders, files = [], []
    for entry in seen:
        (folders if is_folder(entry) else files).append(entry)
    return folders, files


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _suffix(name: str) -> str:
    stem, _, end = name.rpartition(".")
    return f".{end}".lower() if stem else ""


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(os.fsencode(name)) for name in names[:limit]) + more
