"""Write labelled pictures in any of the formats that are read, and list what a format cannot say."""

import base64
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

from trunkline.ground.errors import DataError
from trunkline.ground.progress import progress

from ...data.repairs import Repairs
from ...images.suffixes import SUFFIXES
from .labelled import Box, Labelled, Picture, around, cut, pairs_of, share_of, shares_of_box
from .labelme import IGNORED

Copies = Literal["copy", "link", "none"]


@dataclass
class Split:
    """A split to write: its name, the folder of its pictures, the pictures with their sizes."""

    name: str
    images: Path
    pictures: list[Picture]


def write(
    form: str,
    out: Path,
    splits: Sequence[Split],
    classes: Sequence[str],
    copies: Copies = "copy",
    crowds: bool = True,
    sources: Mapping[str, Sequence[Path]] | None = None,
) -> list[str]:
    """Write splits below `out` in a format; return what could not be carried over, a line each kind.

    Pictures are copied, linked, or not written. `crowds`: whether flags are COCO's crowds (else VOC's difficult objects).
    `sources` are the pictures' files by split, by default as they are called in `images`. Raises DataError where two
    pictures would have one name.
    """
    lost = Repairs(f"format={form}")
    if unfit := [name for name in classes if not _fits(name, form)]:
        raise DataError(f"format={form} cannot name the classes {', '.join(map(repr, unfit[:20]))}: rename them first")
    splits = [_shortened(split) for split in splits]
    sources = sources or {split.name: [split.images / p.file for p in split.pictures] for split in splits}
    if form == "voc":
        _alone(splits, lost)
    for split in splits:
        for picture in split.pictures:
            fitted = (_fitted(one, form, crowds, lost) for one in picture.objects)
            picture.objects = [one for one in fitted if one is not None]
            if form in ("yolo", "yolo-seg"):
                picture.objects = [cut(one, picture.width, picture.height, lost) for one in picture.objects]
    _WRITERS[form](out, splits, classes, lost)
    used = {o.name for s in splits for p in s.pictures for o in p.objects}
    if form in ("voc", "labelme", "labelstudio", "csv") and (idle := [n for n in classes if n not in used]):
        lost.add(
            f"classes without an object ({', '.join(idle[:5])}), which this format does not name", "class", len(idle)
        )
    with progress() as shown:
        bar = shown.add_task("pictures", total=sum(len(s.pictures) for s in splits), unit="files", say="")
        for split in splits if copies != "none" else ():
            for source, picture in zip(sources[split.name], split.pictures, strict=True):
                _place(source, out / _folder(form, split.name) / picture.file, copies)
                shown.advance(bar)
    return [*lost.lines()]


def _fits(name: str, form: str) -> bool:
    """Say whether a class's name comes back from a format as it is."""
    stripped = form != "coco" and name != name.strip()
    return not (
        stripped or (form in ("voc", "csv") and not name.isprintable()) or (form == "labelme" and name == IGNORED)
    )


def _folder(form: str, split: str) -> str:
    return {"voc": "JPEGImages", "labelme": split}.get(form, f"images/{split}")


def _place(source: Path, there: Path, copies: Copies) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    if copies == "link":
        there.symlink_to(source.absolute())
    else:
        shutil.copyfile(source, there)


def _shortened(split: Split) -> Split:
    """Take off the names of pictures the folders that all of them share; the folder of pictures gets them."""
    parents = [PurePosixPath(p.file).parent.as_posix() for p in split.pictures]
    common = os.path.commonpath(parents) if parents else "."
    before = "" if common in ("", ".") else f"{common}/"
    pictures = [replace(p, file=p.file.removeprefix(before)) for p in split.pictures]
    return Split(split.name, split.images / before, pictures)


def _alone(splits: Sequence[Split], lost: Repairs) -> None:
    """Give VOC's pictures names of their own in one folder: the split and folders are put before those that are not alone.

    Raises DataError where two still have one name.
    """
    stems = Counter(PurePosixPath(p.file).stem for split in splits for p in split.pictures)
    for split in splits:
        for picture in split.pictures:
            path = PurePosixPath(picture.file)
            if PurePosixPath(path.stem).suffix.lower() in SUFFIXES:  # a list would take that off too
                path = path.with_name(f"{path.stem.replace('.', '_')}{path.suffix}")
                lost.add("names of pictures with two suffixes: the first one's dot replaced", "picture")
            if stems[PurePosixPath(picture.file).stem] > 1:
                picture.file = "_".join([split.name, *path.parts])
                lost.add("names of pictures that are not alone: the split put before them", "picture")
            else:
                picture.file = path.name
    names = Counter(PurePosixPath(p.file).stem for split in splits for p in split.pictures)
    if again := [name for name, times in names.items() if times > 1]:
        raise DataError(
            f"VOC's pictures have one name each, and several would be called {', '.join(again[:20])}: rename them"
        )


def _fitted(one: Labelled, form: str, crowds: bool, lost: Repairs) -> Labelled | None:
    """Fit an object to what a format can say; None where it cannot say it at all. Count what is lost."""
    if one.flag and crowds and form != "coco":
        lost.add("crowds left out, which this format cannot say", "object")
        return None
    if one.flag and not crowds and form != "voc":
        lost.add("the mark `difficult`", "object")
        one = replace(one, flag=False)
    if one.score is not None and form in ("voc", "yolo", "yolo-seg"):
        lost.add("scores, as this format has labels alone", "object")
    kept = _MASKS.get(form, "none")
    if one.mask is None or kept == "all":
        return one
    if isinstance(one.mask, dict) and form == "labelme":
        return one
    if kept == "none" or isinstance(one.mask, dict):
        lost.add("masks, of which the box is kept", "object")
        return replace(one, mask=None)
    if len(one.mask) > 1 and form != "labelme":
        lost.add("masks of several polygons, of which the box is kept", "object")
        return replace(one, mask=None)
    if _box_of(one.mask) != one.box:
        lost.add("boxes that differ from those of their polygons, which are kept", "object")
    return one


_MASKS = {"coco": "all", "yolo-seg": "polygons", "labelme": "polygons", "labelstudio": "polygons"}
"""What masks a format has; the others have none."""


def _box_of(polygons: list[list[float]]) -> Box:
    return around([point for polygon in polygons for point in pairs_of(polygon)])


def _coco(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    from ..coco_fill import extent
    from ..polygons import as_raw

    number = {name: n for n, name in enumerate(classes, 1)}
    for split in splits:
        said: dict[str, Any] = {"images": [], "annotations": [], "categories": [
            {"id": n, "name": name} for name, n in number.items()
        ]}  # fmt: skip
        for image, p in enumerate(split.pictures, 1):
            said["images"].append({"id": image, "file_name": p.file, "width": p.width, "height": p.height})
            for one in p.objects:
                known = None if one.mask is None else extent(as_raw(one.mask), p.height, p.width)
                said["annotations"].append({
                    "id": len(said["annotations"]) + 1, "image_id": image, "category_id": number[one.name],
                    "bbox": list(one.box), "area": known[1] if known else one.box[2] * one.box[3], "iscrowd": int(one.flag),
                    **({} if one.mask is None else {"segmentation": one.mask}),
                    **({} if one.score is None else {"score": one.score}),
                })  # fmt: skip
        _text(out / f"annotations/instances_{split.name}.json", json.dumps(said))


def _voc(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    for split in splits:
        names = []
        for p in split.pictures:
            names.append(PurePosixPath(p.file).stem)
            _text(out / f"Annotations/{names[-1]}.xml", _xml(p, lost))
        _text(out / f"ImageSets/Main/{split.name}.txt", "".join(f"{name}\n" for name in names))


def _xml(picture: Picture, lost: Repairs) -> str:
    objects = ""
    for one in picture.objects:
        x, y, w, h = one.box
        corners = x + 1, y + 1, x + w, y + h
        if (corners[0] - 1, corners[1] - 1, corners[2] - corners[0] + 1, corners[3] - corners[1] + 1) != one.box:
            lost.add("boxes whose last bits change where pixels are counted from 1", "object")
        sides = "".join(
            f"<{side}>{_plain(v)}</{side}>" for side, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        head = f"<name>{escape(one.name)}</name><difficult>{int(one.flag)}</difficult>"
        objects += f"<object>{head}<bndbox>{sides}</bndbox></object>\n"
    size = f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{escape(picture.file)}</filename>{size}\n{objects}</annotation>\n"


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _yolo(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    number = {name: n for n, name in enumerate(classes)}
    for split in splits:
        for p in split.pictures:
            lines = []
            among = any(
                one.mask is not None for one in p.objects
            )  # then a line of five numbers is two points to others
            for one in p.objects:
                if one.mask is None and not among:
                    numbers = shares_of_box(one.box, p.width, p.height)
                else:
                    if one.mask is None:
                        lost.add("boxes among polygons, written as polygons of four points", "object")
                    points = one.mask[0] if one.mask else _corners(one.box)
                    sides = (p.width, p.height) * (len(points) // 2)
                    numbers = [share_of(v, side) for v, side in zip(points, sides, strict=True)]
                lines.append(" ".join([str(number[one.name]), *numbers]))
            file = PurePosixPath(f"labels/{split.name}/{p.file}").with_suffix(".txt")
            _text(out / file, "".join(f"{line}\n" for line in lines))
    import yaml

    said = {**{s.name: f"images/{s.name}" for s in splits}, "nc": len(classes), "names": dict(enumerate(classes))}
    _text(out / "data.yaml", yaml.safe_dump(said, sort_keys=False, allow_unicode=True))


def _corners(box: Box) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _labelme(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    for split in splits:
        for p in split.pictures:
            shapes = [shape for n, one in enumerate(p.objects) for shape in _shapes(n, one, lost)]
            said = {"version": "5.0.0", "flags": {}, "shapes": shapes, "imagePath": PurePosixPath(p.file).name, "imageData": None,
                    "imageHeight": p.height, "imageWidth": p.width}  # fmt: skip
            _text(out / split.name / PurePosixPath(p.file).with_suffix(".json"), json.dumps(said, ensure_ascii=False))


def _shapes(number: int, one: Labelled, lost: Repairs) -> list[dict[str, Any]]:
    """Write an object as LabelMe's shapes: a rectangle, polygons of one group, or a mask."""
    x, y, w, h = one.box
    usual = {"label": one.name, "flags": {}, "group_id": None}
    if one.score is not None:
        usual["description"] = f"score {one.score:.4f}"
    if isinstance(one.mask, dict):
        return [usual | _mask_shape(one.mask)]
    if one.mask is None:
        if around([(x, y), (x + w, y + h)]) != one.box:
            lost.add("boxes whose last bits change where corners are written", "object")
        return [usual | {"points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"}]
    usual["group_id"] = number if len(one.mask) > 1 else None
    return [usual | {"points": [[a, b] for a, b in pairs_of(part)], "shape_type": "polygon"} for part in one.mask]


def _mask_shape(code: dict[str, Any]) -> dict[str, Any]:
    """Write a run-length code as LabelMe's mask: a PNG of the pixels in its box, and the box's first and last pixel."""
    import numpy as np
    from PIL import Image

    from ..masks import to_bitmap

    mask = to_bitmap(code, *code["size"])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (top, low), (left, right) = ((int(v[0]), int(v[-1])) if len(v) else (0, 0) for v in (rows, columns))
    inside, buffer = mask[top : low + 1, left : right + 1] * np.uint8(255), io.BytesIO()
    Image.fromarray(np.ascontiguousarray(inside)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    return {"points": [[left, top], [right, low]], "shape_type": "mask", "mask": text}


def _label_studio(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    for split in splits:
        tasks = [_task(n, f"images/{split.name}/{p.file}", p) for n, p in enumerate(split.pictures, 1)]
        _text(out / f"{split.name}.json", f"[{', '.join(tasks)}]\n")


def _task(number: int, file: str, picture: Picture) -> str:
    """Write a picture's task: what people labelled as annotations, what a detector found as predictions."""
    regions = ", ".join(_region(number, i, o, picture) for i, o in enumerate(picture.objects))
    address = json.dumps(f"/data/local-files/?d={quote(file)}")
    scores = [o.score for o in picture.objects if o.score is not None]
    if scores:
        said = f'"predictions": [{{"model_version": "trunkline", "score": {sum(scores) / len(scores)}, "result": [{regions}]}}]'
    else:
        said = f'"annotations": [{{"id": {number}, "result": [{regions}]}}]'
    return f'{{"id": {number}, "data": {{"image": {address}}}, {said}}}'


def _region(task: int, at: int, one: Labelled, picture: Picture) -> str:
    kind = "rectanglelabels" if one.mask is None else "polygonlabels"
    width, height = picture.width, picture.height
    score = "" if one.score is None else f'"score": {one.score!r}, '
    if one.mask is None:
        names = (("x", width), ("y", height), ("width", width), ("height", height))
        value = ", ".join(f'"{key}": {share_of(v, side, 100)}' for v, (key, side) in zip(one.box, names, strict=True))
        value += ', "rotation": 0'
    else:
        points = ", ".join(f"[{share_of(x, width, 100)}, {share_of(y, height, 100)}]" for x, y in pairs_of(one.mask[0]))
        value = f'"points": [{points}]'
    return (
        f'{{"id": "{task}-{at}", "type": "{kind}", {score}"from_name": "label", "to_name": "image", "original_width": {width}, '
        f'"original_height": {height}, "image_rotation": 0, "value": {{{value}, "{kind}": [{json.dumps(one.name)}]}}}}'
    )


def _csv(out: Path, splits: Sequence[Split], classes: Sequence[str], lost: Repairs) -> None:
    import csv

    for split in splits:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        scored = any(o.score is not None for p in split.pictures for o in p.objects)
        head = ["file", "label", "x", "y", "width", "height", "image_width", "image_height", "score"]
        last = None if scored else -1
        rows.writerow(head[:last])
        for p in split.pictures:
            file = f"images/{split.name}/{p.file}"
            rows.writerows([file, o.name, *map(_plain, o.box), p.width, p.height, o.score][:last] for o in p.objects)
            if not p.objects:
                rows.writerow([file, "", "", "", "", "", p.width, p.height, ""][:last])
        _text(out / f"{split.name}.csv", text.getvalue())


def _text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


_WRITERS: dict[str, Callable[[Path, Sequence[Split], Sequence[str], Repairs], None]] = {
    "coco": _coco, "voc": _voc, "yolo": _yolo, "yolo-seg": _yolo, "labelme": _labelme, "labelstudio": _label_studio,
    "csv": _csv,
}  # fmt: skip
WRITTEN = tuple(_WRITERS)
