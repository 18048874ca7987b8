"""THUMOS' own files: a text of segments for each class (`Billiards_test.txt`), and results as a text of lines."""

import os
from pathlib import Path

from trunkline.ground.errors import DataError

from ...data.text import text_of
from ..annotations import Annotated, Event, seconds

CLASSES = {
    7: "BaseballPitch", 9: "BasketballDunk", 12: "Billiards", 21: "CleanAndJerk", 22: "CliffDiving", 23: "CricketBowling",
    24: "CricketShot", 26: "Diving", 31: "FrisbeeCatch", 33: "GolfSwing", 36: "HammerThrow", 40: "HighJump", 45: "JavelinThrow",
    51: "LongJump", 68: "PoleVault", 79: "Shotput", 85: "SoccerPenalty", 92: "TennisSwing", 93: "ThrowDiscus",
    97: "VolleyballSpiking",
}  # fmt: skip
"""The classes of detection by the numbers that results name them by (detclasslist.txt of the kit)."""
_ENDS = {"train": "_val.txt", "val": "_test.txt"}  # long videos to train on are those of THUMOS' validation
AMBIGUOUS = "Ambiguous"


def folders_of(root: Path) -> dict[str, Path]:
    """Find the folder of annotations of each split, by `CLASS_val.txt` and `CLASS_test.txt` below the data's folder."""
    found = {}
    for split, end in _ENDS.items():
        for folder in _places(root):
            if any((folder / f"{name}{end}").is_file() for name in CLASSES.values()):
                found.setdefault(split, folder)
    return found


def _places(root: Path) -> list[Path]:
    """List where the texts may lie: in the folder, and in folders called annotation below it, as the kit's archives have them."""
    first = [p for p in sorted(root.iterdir()) if "annotation" in p.name.lower() and p.is_dir()]
    return [root, *first, *(inner for p in first for inner in sorted(p.iterdir()) if inner.is_dir())]


def read_folder(folder: Path, split: str) -> Annotated:
    """Read the segments of all classes that a folder has a text of; of a class without a text there are none."""
    end = _ENDS[split]
    found = Annotated(os.fspath(folder))
    files = {p.name.removesuffix(end): p for p in sorted(folder.glob(f"*{end}"))}
    known = {*CLASSES.values()}
    if other := sorted(files.keys() - known - {AMBIGUOUS}):
        found.problems += [f"{folder}/{name}{end}: there is no such class" for name in other]
    found.classes = tuple(name for name in CLASSES.values() if name in files)
    for label in (*found.classes, *(n for n in (AMBIGUOUS,) if n in files)):
        for number, line in enumerate(text_of(files[label]).splitlines(), 1):
            if not (words := line.split()):
                continue
            where = f"{files[label]}: line {number}"
            try:
                if len(words) != 3:
                    raise ValueError(f"{line!r}: expected a video, a start and an end")
                start, stop = map(seconds, words[1:])
            except ValueError as error:
                found.problems.append(f"{where}: {error}")
                continue
            video = found.video(words[0])
            if label == AMBIGUOUS:
                video.ambiguous.append((start, stop))
            else:
                video.events.append(Event(start, stop, label, where=where))
    return found


def read_results(file: str | os.PathLike[str]) -> Annotated:
    """Read a text of lines `video start end number-of-class score`. Problems are listed in what it returns."""
    found, name = Annotated(os.fspath(file)), os.fspath(file)
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if not (words := line.split()):
            continue
        where = f"{name}: line {number}"
        try:
            if len(words) != 5:
                raise ValueError(f"{line!r}: expected a video, start, end, the number of a class and a score")
            start, stop, score = (seconds(words[i]) for i in (1, 2, 4))
            label = CLASSES.get(int(words[3])) if words[3].isdecimal() else None
            if label is None:
                raise ValueError(f"{words[3]}: is the number of no class; expected {', '.join(map(str, CLASSES))}")
            video = words[0].removesuffix(".mp4").removesuffix(".mpeg")
            found.video(video).events.append(Event(start, stop, label, score, where))
        except ValueError as error:
            found.problems.append(f"{where}: {error}")
    if not found.videos and not found.problems:
        raise DataError(f"{name}: is empty; expected lines of a video, start, end, the number of a class and a score")
    return found


def results_text(events: dict[str, list[Event]]) -> str:
    """Write events by video as the kit reads them. Raises DataError for a class that THUMOS has not."""
    number = {label: n for n, label in CLASSES.items()}
    if other := sorted({e.label for own in events.values() for e in own} - number.keys()):
        raise DataError(f"{', '.join(other)}: THUMOS has no such class")
    return "".join(
        f"{name} {e.start!r} {e.end!r} {number[e.label]} {e.score!r}\n" for name, own in events.items() for e in own
    )
