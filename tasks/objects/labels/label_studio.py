"""Label Studio's JSON: a list of tasks, each with a picture and what people drew on it, in percent of its sides.

Pixels are `value / 100 * original_width` (or height). Source: Label Studio's documentation, "Units of image annotations".
No picture is fetched: each is looked for by its name below the data's folder.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from trunkline.ground.errors import DataError

from ...data.below import files_in
from ...data.repairs import Repairs
from ...data.text import text_of
from ...data.words import WORDS
from ...images.suffixes import SUFFIXES
from ..names import CASE, PREFIX, place, readings
from ..sizes import measured
from ..voc_file import WORDS as FLAGS
from .labelled import (
    Labelled,
    Labels,
    Number,
    Picture,
    Reading,
    Wrong,
    around,
    number,
    of_share,
    outlined,
)
from .labelme import BLANKS

_AREAS = {"rectanglelabels": "rectangle", "polygonlabels": "polygon", "ellipselabels": "ellipse"}
_ELLIPSE = 64  # points of an ellipse's polygon


@dataclass(frozen=True)
class Found:
    """The file of a split, and the data's folder, below which pictures are."""

    data: Path
    file: Path


def find(data: str, split: str, given: tuple[str, ...] = ()) -> Found | None:
    """Find a split's file: `train.json`, and `val.json` or `valid.json`; `given` is another file below `data`."""
    if len(given) > 1:
        raise DataError(f"{split}={','.join(given)}: one file is read")
    for name in given or [f"{word}.json" for word in WORDS[split]]:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise DataError(f"{split}={name}: expected a file below data={data}")
        if Path(data, name).is_file():
            return Found(Path(data), Path(data, name))
    return None


def flat(data: str) -> Found | None:
    """Find the one JSON file of a folder. Raises DataError where there are several."""
    files = sorted(Path(data).glob("*.json"))
    if len(files) > 1:
        raise DataError(
            f"{data}: several files, {', '.join(f.name for f in files[:5])}; call them train.json and val.json"
        )
    return Found(Path(data), files[0]) if files else None


def read(found: Found, reading: Reading) -> Labels:
    """Read a split. Raises DataError with everything that is wrong, up to 20 lines."""
    repairs, wrong = Repairs(str(found.file)), Wrong()
    there = set(files_in(found.data, tuple(SUFFIXES)))
    pictures: list[Picture] = []
    for at, task in enumerate(_tasks(found.file)):
        where = f"{found.file}: task {task.get('id', at) if isinstance(task, dict) else at}"
        try:
            pictures.append(_picture(task, found.data, there, reading, repairs))
        except (ValueError, ArithmeticError, DataError) as error:
            wrong.append(f"{where}: {error}")
        except (KeyError, TypeError, AttributeError) as error:
            wrong.append(
                f"{where}: is not as Label Studio exports it ({type(error).__name__}: {error}); export as JSON"
            )
    wrong.stop()
    again = [name for name, times in Counter(p.file for p in pictures).items() if times > 1]
    if again:
        raise DataError(f"{found.file}: several tasks have the picture {', '.join(sorted(again)[:20])}")
    return Labels(str(found.data), pictures, None, repairs.lines())


def is_label_studio(file: Path) -> bool:
    """Say whether a JSON file is of Label Studio's format."""
    try:
        tasks = _tasks(file)
    except DataError:
        return False
    return bool(tasks) and isinstance(tasks[0], dict) and "data" in tasks[0]


def _tasks(file: Path) -> list[Any]:
    try:
        said = json.loads(text_of(file), parse_float=number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is no JSON ({error})") from None
    if not isinstance(said, list):
        raise DataError(f"{file}: expected a list of tasks, as Label Studio exports them")
    if said and isinstance(said[0], dict) and "data" not in said[0]:
        raise DataError(f"{file}: its tasks have no `data`: export as JSON, not as JSON-MIN")
    return said


def _picture(task: dict[str, Any], data: Path, there: set[str], reading: Reading, repairs: Repairs) -> Picture:
    addresses = [v for v in task["data"].values() if isinstance(v, str) and _is_picture(v)]
    if len(addresses) != 1:
        raise ValueError(f"its data names {len(addresses)} pictures ({', '.join(addresses[:3])}); expected one")
    file = _file(addresses[0], there, repairs)
    if file is None:
        raise ValueError(f"there is no picture {addresses[0]} below the data's folder")
    drawn = [a for a in task.get("annotations", task.get("completions", [])) if not _cancelled(a, repairs)]
    if not drawn:
        repairs.add("nobody's labels (no annotation), taken as without objects", "task")
        return Picture(file, 0, 0, [])
    result = _joined(_chosen(drawn, reading.annotator).get("result", []))
    sides = {(int(r["original_width"]), int(r["original_height"])) for r in result if "original_width" in r}
    if len(sides) > 1:
        raise ValueError(f"its regions are of pictures of several sizes, {sorted(sides)}")
    width, height = next(iter(sides), (0, 0))
    if result and not (width and height):
        height, width = measured(str(data), [file], reading.exif)[0].tolist()
        repairs.add("original_width and original_height: absent or 0, taken from the picture", "task")
    objects = [one for region in result for one in _objects(region, width, height, reading, repairs)]
    return Picture(file, width, height, objects)


def _joined(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what a shape and its labels say apart, as the tags Rectangle and Labels do: regions of one id."""
    labels = {r.get("id"): r["value"]["labels"] for r in result if r.get("type") == "labels"}
    found = []
    for region in result:
        shape = f"{region.get('type')}labels"
        if shape in _AREAS and region.get("id") in labels:
            found.append({**region, "type": shape, "value": {**region["value"], shape: labels[region["id"]]}})
        elif region.get("type") != "labels":
            found.append(region)
    return found


def _cancelled(annotation: dict[str, Any], repairs: Repairs) -> bool:
    """Say whether an annotation was cancelled. Raises ValueError for a flag that is neither."""
    said = annotation.get("was_cancelled")
    if not isinstance(said, str):
        return bool(said)
    if said.strip().lower() not in FLAGS:
        raise ValueError(f"was_cancelled={said!r}: expected true or false")
    repairs.add("was_cancelled: words (true, false, yes, no) taken as true/false", "task")
    return FLAGS[said.strip().lower()]


def _is_picture(text: str) -> bool:
    return any(end in text.lower() for end in SUFFIXES)


def _file(address: str, there: set[str], repairs: Repairs) -> str | None:
    """Find the picture that an address means below the data's folder; None where there is none, or it is not below it."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    path = local[0] if local else unquote(parts.path)
    if ".." in path.replace("\\", "/").split("/"):
        return None
    name = place(path.lstrip("/"), there, Repairs(""))
    if name not in there:
        folders = [n for n in there if n.endswith(f"/{name.rpartition('/')[2]}")]
        bare = place(name.rpartition("/")[2], {n.rpartition("/")[2] for n in there}, Repairs(""))
        folders = folders or [n for n in there if n.rpartition("/")[2] == bare]
        folders = folders or [n for n in there if n.rpartition("/")[2].casefold() in _cases(path)]
        if len(folders) > 1:
            raise ValueError(f"the picture {address} may be {' or '.join(sorted(folders)[:4])}: leave one")
        if not folders:
            return None
        name = folders[0]
    if "\\" in path:
        repairs.add("pictures' names: backslashes taken as slashes", "task")
    own, last = name.rpartition("/")[2], PureWindowsPath(path).name
    repairs.add(CASE, "image", own not in (last, last[PREFIX:]) and own.casefold() in _cases(path))
    if own.casefold() != last.casefold():
        repairs.add("pictures' names: Label Studio's prefix left out", "task")
    return name


def _cases(path: str) -> tuple[str, ...]:
    """Return a picture's name in small letters, as it stands and without Label Studio's prefix if it has one."""
    last = PureWindowsPath(path).name
    return tuple(n.rpartition("/")[2].casefold() for n, _ in readings(last))


def _chosen(drawn: list[dict[str, Any]], annotator: str) -> dict[str, Any]:
    """Choose whose labels count. Raises ValueError where several people labelled the picture and none is chosen."""
    if annotator in ("first", "last"):
        ordered = sorted(drawn, key=lambda a: (a.get("created_at") or "", a.get("id", 0)))
        return ordered[0 if annotator == "first" else -1]
    if annotator:
        own = [a for a in drawn if annotator in _names(a)]
        if len(own) == 1:
            return own[0]
        raise ValueError(
            f"annotator={annotator}: {len(own)} annotations of {', '.join(sorted({n for a in drawn for n in _names(a)}))}"
        )
    if len(drawn) > 1:
        people = ", ".join(sorted({n for a in drawn for n in _names(a)})) or "people who are not named"
        raise ValueError(
            f"{len(drawn)} annotations, of {people}: say whose count with annotator=, an id or an address of these, first or last"
        )
    return drawn[0]


def _names(annotation: dict[str, Any]) -> list[str]:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        return [str(by[key]) for key in ("email", "id") if key in by]
    return [] if by is None else [str(by)]


def _objects(region: dict[str, Any], width: int, height: int, reading: Reading, repairs: Repairs) -> Iterator[Labelled]:
    kind = region.get("type", "")
    if kind not in _AREAS:
        what = {"brushlabels": "brush masks are not read: export them as COCO or as PNGs"}.get(kind)
        if what:
            raise ValueError(f"a region of {kind}: {what}")
        repairs.add(f"a region of {kind or 'no type'}, which is no object with a label, left out", "region")
        return
    value = region["value"]
    names = value.get(kind) or []
    if len(names) != 1:
        raise ValueError(f"a {_AREAS[kind]} with {len(names)} labels ({', '.join(names)}); expected one")
    if (label := names[0].strip()) != names[0]:
        repairs.add(BLANKS, "region")
    if region.get("image_rotation"):
        raise ValueError(f"image_rotation={region['image_rotation']}: label the picture as it lies, or turn its file")

    def at(key: str) -> float:
        return of_share(_number(value[key], repairs), height if key in ("y", "height", "radiusY") else width, 100)

    turned = float(value.get("rotation") or 0) % 360
    if kind == "polygonlabels":
        shares = [[_number(v, repairs) for v in (x, y)] for x, y in value["points"]]
        yield outlined(label, [(of_share(x, width, 100), of_share(y, height, 100)) for x, y in shares])
    elif kind == "ellipselabels":
        yield outlined(label, _ellipse(at("x"), at("y"), at("radiusX"), at("radiusY"), turned))
    elif turned:
        if reading.rotated == "stop":
            raise ValueError(f"a box rotated by {turned:g} degrees: rotated=enclose takes the upright box around it")
        repairs.add("rotated boxes: the upright box around each taken", "region")
        yield Labelled(label, around(_turned(at("x"), at("y"), at("width"), at("height"), turned)))
    else:
        yield Labelled(label, (at("x"), at("y"), at("width"), at("height")))


def _number(value: Any, repairs: Repairs) -> Number:
    """Read a number, also one that is written as text. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError(f"its value has {value!r} where a number was expected")
    if isinstance(value, str):
        repairs.add("numbers written as text taken as numbers", "number")
        return number(value.strip())
    return float(value) if isinstance(value, int) else value


def _turned(x: float, y: float, w: float, h: float, degrees: float) -> list[tuple[float, float]]:
    """Compute the corners of a box that is turned clockwise about its upper left one."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((0, 0), (w, 0), (w, h), (0, h))]


def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float) -> list[tuple[float, float]]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turns = [2 * math.pi * i / _ELLIPSE for i in range(_ELLIPSE)]
    around_ = [(rx * math.cos(t), ry * math.sin(t)) for t in turns]
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in around_]
