"""What a folder holds whose format several tasks read: class folders and tables, of photos or of clips."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from trunkline.ground.errors import DataError
from trunkline.ground.links import walk
from trunkline.ground.storage import is_remote

from .data.media import Media
from .data.repairs import counted
from .data.words import ALL_WORDS

MOST = 20_000  # files, or rows of a table, that are looked at
LEAST = 4  # pictures that make a series
_NUMBERED = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True)
class Held:
    """What lies in a folder: the number of items by task, and folders of pictures that are numbered as frames are.

    `alone` says whether all pictures lie in such folders, none of them directly in the folder of a class.
    """

    items: Mapping[str, int]
    series: int = 0
    alone: bool = False

    @property
    def task(self) -> str:
        """The task that most items are of, the first of equals; "" where there is none."""
        return max(self.items, key=lambda name: self.items[name]) if any(self.items.values()) else ""

    def remarks(self, media: Mapping[str, Media]) -> list[str]:
        """Say what else the data may be, and how to look at it so; `media` are those of the tasks."""
        task = self.task
        others = [name for name, count in self.items.items() if count and name != task]
        said = [
            f"holds {counted(self.items[name], media[name].word)}, too, and this is a look at {media[task].word}s: task={name} "
            "looks at them"
            for name in others
        ]
        framed = next((name for name in media if media[name].frames), "")
        if not self.series or not framed:
            return said
        plain = next(name for name in media if not media[name].frames)
        folders = counted(self.series, "folder")
        if task == framed:
            said.append(
                f"{folders} of numbered pictures: each is taken for a {media[framed].word}; task={plain} takes each picture for "
                f"a {media[plain].word}"
            )
        elif plain not in others:
            said.append(
                f"{folders} of numbered pictures: each picture is taken for a {media[plain].word}; task={framed} takes each "
                f"such folder for a {media[framed].word}"
            )
        return said


def held(root: str | os.PathLike[str], media: Mapping[str, Media]) -> Held:
    """Count what lies in class folders, or stands in tables of labels, by the tasks whose media it is.

    A folder of pictures in a class's folder may be a clip of frames, or photos in a subfolder. It is a series where its
    pictures are numbered from 0 or 1 without a gap; where every picture lies in a series, they are clips.
    """
    if is_remote(root) or not Path(root).is_dir():
        return Held({})
    try:
        rows = _rows(Path(root))
        names = [name for name, _ in islice(walk(os.fspath(root)), MOST)] if rows is None else rows
    except (OSError, DataError):  # told by the look itself
        return Held({})
    items = {name: sum(_suffix(file) in one.known for file in names) for name, one in media.items()}
    series, alone = _series(names, media) if rows is None else (0, False)
    for name, one in media.items():
        if one.frames and rows is not None:
            items[name] += sum((Path(root) / file).is_dir() for file in names)
        elif one.frames and alone:
            items[name] += series
        elif alone:
            items[name] = 0
    return Held(items, series, alone)


def _rows(root: Path) -> list[str] | None:
    """List the files that the first rows of a folder's tables of labels name; None where there is no such table."""
    from .classification.tables import tables_of_labels
    from .objects.labels import rows
    from .objects.labels.labelled import Wrong

    tables = tables_of_labels(root)
    if not tables:
        return None
    return [row.file for file, columns in tables.items() for row in islice(rows.rows_of(file, columns, Wrong()), MOST)]


def _series(names: Iterable[str], media: Mapping[str, Media]) -> tuple[int, bool]:
    """Count the folders in class folders that hold a series of pictures, and say whether no picture lies elsewhere."""
    frames = frozenset().union(*(one.frames for one in media.values()))
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if _suffix(name) in frames:
            folder, _, file = name.rpartition("/")
            folders[folder].append(file)
    deep = [folder for folder in folders if _depth(folder) > 1]
    series = sum(_is_series(folders[folder]) for folder in deep)
    return series, 0 < series == len(folders)


def _depth(folder: str) -> int:
    """Count the folders of a path, of which one that is called like a split does not count."""
    parts = PurePosixPath(folder).parts
    return len(parts) - (bool(parts) and parts[0].lower() in ALL_WORDS)


def _is_series(files: list[str]) -> bool:
    parts = [_NUMBERED.fullmatch(PurePosixPath(file).stem) for file in files]
    if len(files) < LEAST or not all(parts) or len({part[1] for part in parts if part}) > 1:
        return False
    numbers = sorted(int(part[2]) for part in parts if part)
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
