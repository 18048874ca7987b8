"""Tables of events: CSV, TSV or JSON lines with columns video, start, end and label; results have a score besides."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError
from trunkline.ground.names import nearest

from ...data.table_rows import header, records
from ...data.words import WORDS
from ..annotations import Annotated, Event, seconds

COLUMNS = {
    "video": ("video", "video_id", "file", "filename", "name"),
    "start": ("start", "t_start", "start_time", "begin"),
    "end": ("end", "t_end", "end_time", "stop"),
    "label": ("label", "class", "class_name", "category", "action"),
    "score": ("score", "confidence", "conf"),
    "duration": ("duration", "video_duration"),
    "rate": ("fps", "frame_rate"),
    "group": ("group",),
    "split": ("split", "subset"),
}
_HEAD = 4096  # bytes
NEEDED = ("video", "start", "end", "label")
EXPECTED = "expected columns video, start, end (seconds) and label; perhaps duration, fps, group and split"
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}


@dataclass(frozen=True)
class _Columns:
    """The table's own name of each column that is there."""

    names: dict[str, str]

    def text(self, row: dict[str, Any], key: str) -> str:
        value = row.get(self.names.get(key, ""))
        return "" if value is None else str(value).strip()


def _columns(file: Path, group: str = "", scores: bool = False) -> _Columns:
    names = header(file, EXPECTED)
    low = {name.strip().lower().replace(" ", "_"): name for name in names}
    found: dict[str, str] = {}
    for key, words in COLUMNS.items():
        own = [low[word] for word in words if word in low]
        if len(own) > 1:
            raise DataError(f"{file}: several columns of {key}: {', '.join(own)}; leave one, or rename the other")
        if own:
            found[key] = own[0]
    if (named := group.strip().lower().replace(" ", "_")) in low:
        found["group"] = low[named]
    elif group and "group" in found:
        raise DataError(
            f"group={group!r}: {file} has no such column, and its column {found['group']} says groups: leave group= out to take "
            "that, or rename the column to look for a pattern in the videos' names"
        )
    needed = (*NEEDED, "score") if scores else NEEDED
    if lacking := [key for key in needed if key not in found]:
        near = next((said for said in (nearest(name.lower(), lacking) for name in names) if said), "")
        raise DataError(
            f"{file}: has no column {' and no column '.join(lacking)}, only {', '.join(names)}{near}; {EXPECTED}"
        )
    return _Columns(found)


def split_named(word: str) -> str:
    """Return the split that a word means; "" for a word of none."""
    return _SPLIT_OF.get(word.lower(), "")


def is_events(file: Path) -> bool:
    """Say whether a table has the columns of events."""
    try:
        with file.open("rb") as head:  # tables of pictures may be large
            first = head.read(_HEAD).replace(b"\0", b"").lower()  # UTF-16 too
        if not any(word.encode() in first for word in COLUMNS["start"]):
            return False
        return {*NEEDED} <= _columns(file).names.keys()
    except (DataError, OSError):
        return False


def read_table(file: Path, split: str, group: str = "") -> dict[str, Annotated]:
    """Read a table's videos, by split: `split`, or what its column of splits says where `split` is empty.

    A row with a video alone, its start, end and label empty, is of a video in which nothing happens.
    """
    columns, wrong = _columns(file, group), list[str]()
    found: dict[str, Annotated] = {}
    by_column = not split and "split" in columns.names
    for line, row in records(file, wrong):
        where = f"{file}: line {line}"
        own = _SPLIT_OF.get(columns.text(row, "split").lower(), "") if by_column else split
        if by_column and not own:
            wrong.append(
                f"{where}: {columns.names['split']}={columns.text(row, 'split')!r}: expected train, val or test"
            )
            continue
        if own == "test":
            continue
        try:
            _add(found.setdefault(own, Annotated(os.fspath(file))), columns, row, where)
        except ValueError as error:
            wrong.append(f"{where}: {error}")
    found = dict(sorted(found.items())) or {split: Annotated(os.fspath(file))}
    next(iter(found.values())).problems += wrong
    return found


def _add(found: Annotated, columns: _Columns, row: dict[str, Any], where: str) -> None:
    name = columns.text(row, "video")
    if not name:
        raise ValueError("names no video")
    video = found.video(name)
    for key in ("duration", "rate"):
        if text := columns.text(row, key):
            value, before = seconds(text), getattr(video, key)
            if value <= 0 or (before and before != value):
                raise ValueError(
                    f"{columns.names[key]}={text}: expected {before or 'a number above 0'}{' as above' * bool(before)}"
                )
            setattr(video, key, value)
    if "group" in columns.names:
        group = columns.text(row, "group")
        if video.group not in (None, group):
            raise ValueError(f"{columns.names['group']}={group!r}: above, {name} is of {video.group!r}")
        video.group = group
    said = [columns.text(row, key) for key in ("start", "end", "label")]
    if not any(said):
        return
    if not said[0] or not said[1]:
        raise ValueError(f"{columns.names['end' if said[0] else 'start']} is empty")
    score = seconds(columns.text(row, "score")) if "score" in columns.names else 0.0
    video.events.append(Event(seconds(said[0]), seconds(said[1]), said[2], score, where))


def read_results(file: str | os.PathLike[str]) -> Annotated:
    """Read a table of results. Problems are listed in what it returns."""
    columns, found, wrong = _columns(Path(file), scores=True), Annotated(os.fspath(file)), list[str]()
    for line, row in records(Path(file), wrong):
        try:
            _add(found, columns, row, f"{file}: line {line}")
        except ValueError as error:
            wrong.append(f"{file}: line {line}: {error}")
    found.problems += wrong
    return found
