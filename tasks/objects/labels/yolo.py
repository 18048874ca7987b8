"""YOLO's labels: a text file beside each picture, a line an object: its class's number, and shares of the picture's sides.

Five numbers are a class and a box (centre x, centre y, width, height); seven or more a class and a polygon (x, y, x, y, …),
whose box is the upright one around it. Source: the format's description in Ultralytics' documentation, "Object Detection
Datasets" and "Instance Segmentation Datasets". Nothing is read outside the data's folder, and no address is fetched.
"""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ...data.below import files_in
from ...data.repairs import Repairs, counted
from ...data.text import numbered, text_of
from ...data.words import ALL_WORDS, WORDS
from ...formats import CONFIGS
from ...images.suffixes import SUFFIXES
from ..names import Alike, place, readings
from ..sizes import measured
from .labelled import (
    Labelled,
    Labels,
    Number,
    Picture,
    Reading,
    Wrong,
    box_of_shares,
    number,
    of_share,
    outlined,
    pairs_of,
    twice,
)

NAMES = (
    "classes.txt",
    "labels/classes.txt",
    "obj.names",
    "classes.names",
    "train/labels/classes.txt",
    "train/classes.txt",
)
FORMS = ("yolo", "yolo-seg", "yolo-obb")
_BEYOND = 0.01  # shares by which rounding may leave the picture
_FEW = 5


@dataclass(frozen=True)
class Found:
    """Where a split's pictures lie: folders and lists of pictures, and the names of the classes."""

    data: Path
    sources: tuple[Path, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find(data: str, split: str, given: tuple[str, ...] = ()) -> Found | None:
    """Find a split by `data.yaml`, else by the folders' names; `given` are folders or lists below `data`.

    Raises DataError for a `data.yaml` that cannot be used, and where no file names the classes.
    """
    root = Path(data)
    config = _config(root)
    said = _read_config(config) if config else {}
    repairs = Repairs(str(config or root))
    if given:
        sources = tuple(_inside(root, name, repairs, str(root)) for name in given)
    elif said:
        sources = _of_config(root, config, said, split, repairs)
    else:
        options = (p for w in WORDS[split] for p in (root / f"images/{w}", root / w / "images", root / f"{w}.txt"))
        sources = tuple(p for p in options if p.exists())[:1]
    if not sources:
        return None
    return Found(root, sources, _classes(root, config, said), tuple(repairs.lines()))


def flat(data: str) -> Found | None:
    """Find pictures and labels that are of no split: `images/` beside `labels/`, or text files beside pictures."""
    root = Path(data)
    here = root / "images" if (root / "images").is_dir() else root
    if not files_in(here, tuple(SUFFIXES)):
        return None
    config = _config(root)
    return Found(root, (here,), _classes(root, config, _read_config(config) if config else {}))


def read(found: Found, reading: Reading) -> Labels:
    """Read the labels of the pictures of a split. Raises DataError with every wrong line, up to 20."""
    repairs, wrong = Repairs(str(found.data)), Wrong()
    names = _pictures(found, repairs, wrong)
    wrong.stop()
    if not names:
        raise DataError(f"{', '.join(map(str, found.sources))}: holds no picture")
    labels = [_label_file(found.data, name) for name in names]
    lacking = [name for name, file in zip(names, labels, strict=True) if not file.is_file()]
    if len(lacking) == len(names):
        raise DataError(
            f"{found.data}: no picture has a file of labels; expected {labels[0]} for {names[0]}, and so on"
        )
    if again := twice([str(file) for file in labels if file.is_file()]):
        own = [name for name, file in zip(names, labels, strict=True) if str(file) == again[0]]
        raise DataError(f"{again[0]}: may be of {' or '.join(own)}: leave one of these pictures")
    lines = [_lines(file, wrong, repairs) if file.is_file() else [] for file in labels]
    wrong.stop()
    sizes = measured(str(found.data), names, reading.exif)
    for own, file in zip(lines, labels, strict=True):
        for n, numbers in own:
            if not 0 <= numbers[0] < len(found.classes):
                most = len(found.classes) - 1
                wrong.append(f"{file}: line {n}: the class {int(numbers[0])}; the names are of 0 to {most}")
    wrong.stop()
    rotated = _rotated(lines, reading.form, found.data)
    pictures = []
    for name, file, own, (height, width) in zip(names, labels, lines, sizes.tolist(), strict=True):
        objects = [
            _object(found.classes[int(kind)], rest, (width, height), rotated, f"{file}: line {n}: ")
            for n, (kind, *rest) in own
        ]
        pictures.append(Picture(name, width, height, objects))
    notes = [*found.notes, *_remarks(found.data, names, labels, lacking)]
    mixed = sum(len(numbers) == 5 for own in lines if len({len(n) > 5 for _, n in own}) > 1 for _, numbers in own)
    if mixed:
        count = counted(mixed, "line")
        notes.append(
            f"{found.data}: {count} of five numbers beside polygons, taken as boxes; Ultralytics takes such a line as two points"
        )
    if rotated:
        count = counted(sum(len(p.objects) for p in pictures), "object")
        notes.append(f"{found.data}: rotated boxes, of which the upright box around each is taken, in {count}")
    return Labels(str(found.data), pictures, found.classes, [*repairs.lines(), *notes])


def _config(root: Path) -> Path | None:
    there = [root / name for name in CONFIGS if (root / name).is_file()]
    others = [] if there else [*sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))]
    if len(others) > 1:
        raise DataError(
            f"{root}: several configurations, {', '.join(p.name for p in others)}; call the right one data.yaml"
        )
    return (there or others or [None])[0]


def _read_config(file: Path) -> dict[str, Any]:
    """Read a configuration; every scalar is text, so that a class `no` is no boolean."""
    import yaml

    try:
        said = yaml.load(text_of(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file}: is no YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(said, dict):
        raise DataError(f"{file}: expected keys and values: train, val, names")
    if said.get("kpt_shape"):
        raise DataError(
            f"{file}: kpt_shape={_short(said['kpt_shape'])}: labels of keypoints are not read; boxes and polygons are"
        )
    return said


def _of_config(root: Path, config: Path | None, said: dict[str, Any], split: str, repairs: Repairs) -> tuple[Path, ...]:
    """Find the folders and lists that a configuration names for a split, below its own folder alone."""
    key = next((word for word in WORDS[split] if said.get(word)), None)
    if key is None:
        return ()
    values = said[key] if isinstance(said[key], list) else [said[key]]
    below = str(said.get("path") or "").replace("\\", "/").strip("/")
    if below not in ("", ".") and not _there(root, below):
        repairs.add(f"path={_short(said['path'])}: left out, pictures are looked for beside the file", "path")
    found = []
    for value in values:
        if not isinstance(value, str):
            raise DataError(f"{config}: {key}={_short(value)}: expected a folder, or a list of folders")
        text = value.replace("\\", "/")
        repairs.add("paths with backslashes: taken as slashes", "path", text != value)
        if "://" in text:
            raise DataError(f"{config}: {key}={value}: is an address; pictures are read below {root} alone")
        if below and _there(root, f"{below}/{text}"):
            text = f"{below}/{text}"
        found.append(_inside(root, text, repairs, f"{config}: {key}={value}"))
    return tuple(found)


def _inside(root: Path, text: str, repairs: Repairs, what: str) -> Path:
    """Find what a path means below `root`: as it stands, else without what leads out of it. Raises DataError."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    if not text.startswith("/") and _there(root, "/".join(parts)):
        return root.joinpath(*parts)
    kept = [part for part in parts if part != ".."]
    least = next((i for i, part in enumerate(kept) if part.lower() in ALL_WORDS), len(kept) - 1)
    for skipped in range(least + 1):  # a folder that says the split is not left out
        if ".." not in parts[len(parts) - len(kept) + skipped :] and _there(root, "/".join(kept[skipped:])):
            there = "/".join(kept[skipped:])
            repairs.add(
                f"paths that lead out of the folder, or that are not there: {_short(text)} taken as {there}", "path"
            )
            return root.joinpath(*kept[skipped:])
    raise DataError(f"{what}: there is no such folder or list below {root}")


def _short(value: Any) -> str:
    """Write a value of a configuration, which may be huge, in a few characters."""
    return value[:80] if isinstance(value, str) else reprlib.repr(value)[:80]


def _there(root: Path, text: str) -> bool:
    return bool(text) and ".." not in text.split("/") and root.joinpath(text).exists()


def _classes(root: Path, config: Path | None, said: dict[str, Any]) -> tuple[str, ...]:
    names = said.get("names")
    if names:
        listed = _in_order(names, config) if isinstance(names, dict) else names
        if not isinstance(listed, list) or not all(isinstance(n, str) and n for n in listed):
            raise DataError(f"{config}: names={_short(names)}: expected a list of names, or numbers with names")
        if said.get("nc", str(len(listed))) != str(len(listed)):
            raise DataError(f"{config}: nc={_short(said['nc'])} and {counted(len(listed), 'name')}; make them agree")
    else:
        file = next((root / name for name in NAMES if (root / name).is_file()), None)
        if file is None:
            raise DataError(
                f"{config or root}: no names of the classes: add data.yaml with `names:`, or classes.txt with a name a line"
            )
        config, listed = file, [line.strip() for line in text_of(file).splitlines() if line.strip()]
        if len(listed) > 0 and all(map(numbered, listed)):
            raise DataError(
                f"{file}: {listed[0]!r}: expected a name a line alone; numbers with names stand in data.yaml"
            )
    if again := twice(listed):
        raise DataError(f"{config}: two classes are called {', '.join(again)}")
    return tuple(listed)


def _in_order(names: dict[Any, Any], config: Path | None) -> list[Any]:
    numbers = sorted(int(k) for k in names if str(k).isdigit())
    if numbers != list(range(len(names))):
        raise DataError(
            f"{config}: names has the numbers {', '.join(map(str, list(names)[:20]))}; expected 0 to {len(names) - 1}"
        )
    return [names[str(n)] for n in numbers]


def _pictures(found: Found, repairs: Repairs, wrong: Wrong) -> list[str]:
    """List the pictures of a split below the data's folder: those of folders sorted, those of lists as they stand there."""
    names: dict[str, None] = {}
    for source in found.sources:
        base = source.relative_to(found.data).as_posix()
        if source.is_dir():
            names |= dict.fromkeys(f"{base}/{n}".removeprefix("./") for n in files_in(source, tuple(SUFFIXES)))
            continue
        lines = [line.strip() for line in text_of(source).splitlines() if line.strip()]
        there, lines_met = set(files_in(found.data, tuple(SUFFIXES))), set()
        said: dict[str, str] = {}
        alike = Alike(there)
        for n, line in enumerate(lines, 1):
            if line in lines_met:
                repairs.add("lines that stand in a list twice: taken once", "line")
                continue
            lines_met.add(line)
            name = place(line.removeprefix("./").removeprefix(".\\"), there, repairs)
            name = name if name in there else _alike(name, alike, repairs)
            if name not in there:
                wrong.append(f"{source}: line {n}: there is no picture {line} below {found.data}")
            elif name in said:
                wrong.append(f"{source}: line {n}: {line} leads to the picture {name}, as {said[name]} does")
            said[name] = line
        names |= dict.fromkeys(said)
    return [*names]


def _alike(name: str, alike: Alike, repairs: Repairs) -> str:
    """Find a list's picture in other letters' case; the name as it stands where there is none."""
    return next((own for reading, _ in readings(name) if (own := alike.find(reading, repairs))), name)


def _label_file(data: Path, name: str) -> Path:
    """Name the file of a picture's labels: `labels/` in place of the last `images/`, else beside the picture."""
    path = PurePosixPath(name)
    parts = [*path.parts]
    if "images" in parts[:-1]:
        at = len(parts) - 2 - parts[-2::-1].index("images")
        parts[at] = "labels"
        other = data.joinpath(*parts).with_suffix(".txt")
        if other.is_file() or not (data / path).with_suffix(".txt").is_file():
            return other
    return (data / path).with_suffix(".txt")


def _lines(file: Path, wrong: Wrong, repairs: Repairs) -> list[tuple[int, list[Number]]]:
    """Read the lines of numbers of a file of labels, each with its place."""
    try:
        text = text_of(file)
    except DataError as error:
        wrong.append(str(error))
        return []
    found: list[tuple[int, list[Number]]] = []
    for n, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            numbers = [number(word) for word in words]
        except (ValueError, ArithmeticError):
            wrong.append(f"{file}: line {n}: {line.strip()[:60]!r}: expected numbers")
            continue
        repairs.add("classes written as 1.0 taken as 1", "line", not words[0].isdigit())
        if said := _wrong(numbers):
            wrong.append(f"{file}: line {n}: {said}")
        else:
            found.append((n, numbers))
    return found


def _wrong(numbers: list[Number]) -> str:
    if len(numbers) == 6:
        return "6 numbers: a class, a box and a score are predictions; expected 5 numbers, or a polygon"
    if len(numbers) % 2 == 0:  # 1 and 3 are polygons of no point and of one
        return f"{len(numbers)} numbers; expected a class, x, y, width, height, or a class and x, y of three points or more"
    if numbers[0] != int(numbers[0]) if np.isfinite(float(numbers[0])) else True:
        return f"the class {numbers[0]} is no whole number"
    return _outside(numbers[1:])


def _outside(shares: list[Number]) -> str:
    outside = [v for v in shares if not -_BEYOND <= v <= 1 + _BEYOND]
    if outside:
        pixels = ": are these pixels?" if max(map(float, shares)) > 2 else ""
        said = ", ".join(f"{float(v):g}" for v in outside[:4])
        return f"{said}: expected shares of the picture's width and height, 0 to 1{pixels}"
    return ""


def pixels_asked(box: list[Number]) -> str:
    """Ask whether a detector's box is of pixels: where a side is twice the picture's or more; else a wrong box is one."""
    return _outside(box) if max(map(float, box)) > 2 else ""


def _rotated(lines: Iterable[list[tuple[int, list[Number]]]], form: str, data: Path) -> bool:
    """Say whether lines of 9 numbers are rotated boxes, and not polygons. Raises DataError where they could be both."""
    lengths = {len(numbers) for own in lines for _, numbers in own} - {1, 3}
    if form == "yolo-obb" and lengths - {9}:
        raise DataError(f"{data}: format=yolo-obb: lines of {min(lengths - {9})} numbers; rotated boxes have 9")
    if form == "yolo" and lengths - {5} == {9}:
        raise DataError(
            f"{data}: lines of 9 numbers are polygons of four points or rotated boxes: say which with format=yolo-seg or "
            "format=yolo-obb"
        )
    return form == "yolo-obb"


def _object(name: str, numbers: list[Number], size: tuple[int, int], rotated: bool, where: str) -> Labelled:
    width, height = size
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        return Labelled(name, box_of_shares(cx, cy, w, h, width, height))
    points = [of_share(v, side) for v, side in zip(numbers, (width, height) * (len(numbers) // 2), strict=True)]
    one = outlined(name, pairs_of(points), where)
    return replace(one, mask=None) if rotated else one


def _remarks(data: Path, names: list[str], labels: list[Path], lacking: list[str]) -> list[str]:
    lines = []
    if lacking:
        more = f" and {len(lacking) - _FEW} more" if len(lacking) > _FEW else ""
        lines.append(f"{data}: {counted(len(lacking), 'picture')} without a file of labels, taken as without objects: "
                     f"{', '.join(lacking[:_FEW])}{more}")  # fmt: skip
    known, folders = {*labels}, sorted({file.parent for file in labels if "labels" in file.parts})
    lone = [file.name for folder in folders for file in sorted(folder.glob("*.txt"))
            if file not in known and file.name != "classes.txt"]  # fmt: skip
    if lone:
        more = f" and {len(lone) - _FEW} more" if len(lone) > _FEW else ""
        lines.append(
            f"{data}: {counted(len(lone), 'file')} of labels without a picture: {', '.join(lone[:_FEW])}{more}"
        )
    return lines
