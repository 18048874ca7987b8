"""Generated scenes of several objects with their boxes and masks, as COCO and as VOC have them, in one folder."""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from ..images.outlines import CLASSES
from ..scenes import VERSION, is_written, masks, render, scene, written

_LEAST = 12  # visible pixels of an object that is annotated


def write_box_scenes(
    folder: Path | str, *, classes: int = 6, train: int = 400, val: int = 100, size: int = 128, seed: int = 0
) -> Path:
    """Write `JPEGImages/`, `annotations/instances_{train,val}.json`, and VOC's `Annotations/` and `ImageSets/Main/`.

    The pictures hold one to four objects and are `size` pixels square; boxes and masks cover what is visible. The same
    arguments give the same files; a complete folder is used as it is. Returns the folder.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "classes": classes, "train": train, "val": val, "size": size, "seed": seed}
    if is_written(folder, asked):
        return folder
    for name in ("JPEGImages", "annotations", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": 2 * i + 1, "name": name} for i, name in enumerate(CLASSES[:classes])]
        names = []
        for index in range(count):
            name = f"{split}_{index:05d}"
            names.append(name)
            things = scene(index, seed=seed, split=f"boxes {split}", classes=classes, objects=1 + index * 7 % 4)
            render(things, size).save(folder / f"JPEGImages/{name}.jpg", quality=92, subsampling=0)
            visible = [
                (t.name, m) for t, m in zip(things.objects, masks(things, size), strict=True) if m.sum() >= _LEAST
            ]
            _add(document, name, visible, size)
            (folder / f"Annotations/{name}.xml").write_text(_xml(name, visible, size), encoding="utf-8")
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return written(folder, asked)


def _add(document: dict[str, Any], name: str, visible: list[tuple[str, np.ndarray]], size: int) -> None:
    image = len(document["images"]) + 1
    document["images"].append({"id": image, "file_name": f"{name}.jpg", "width": size, "height": size})
    for label, mask in visible:
        left, top, right, bottom = _box(mask)
        document["annotations"].append({
            "id": len(document["annotations"]) + 1, "image_id": image, "category_id": 2 * CLASSES.index(label) + 1,
            "bbox": [left, top, right - left, bottom - top], "area": int(mask.sum()), "iscrowd": 0,
            "segmentation": {"size": [size, size], "counts": _counts(mask)},
        })  # fmt: skip


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the mask; the last two lie just beyond its last pixel."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _counts(mask: np.ndarray) -> list[int]:
    """Compute the run lengths down the columns, beginning with zeros."""
    flat = mask.T.reshape(-1).astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def _xml(name: str, visible: list[tuple[str, np.ndarray]], size: int) -> str:
    objects = ""
    for label, mask in visible:
        left, top, right, bottom = _box(mask)
        objects += (
            f"<object><name>{escape(label)}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
            f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>\n"
        )
    head = f"<filename>{escape(name)}.jpg</filename><size><width>{size}</width><height>{size}</height><depth>3</depth></size>"
    return f"<annotation>{head}\n{objects}</annotation>\n"
