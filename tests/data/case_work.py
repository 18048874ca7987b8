"""The same two objects of one picture as each labelling tool writes them, with what people's files have of their own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "detection"))
from label_work import labelme_of, shape, text

WIDTH, HEIGHT = 96, 64
ANT, BEE = (10.0, 20.0, 30.0, 40.0), (48.0, 8.0, 24.0, 32.0)  # x, y, width, height
SPLITS = ("train", "val")


def photo(file: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 90, 40 + len(file.name))).save(file)


def corners(box) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def coco_file(root: Path, on_disk="a.jpg", said="a.jpg", crowd: Any = 0, side: Any = True, ant: Any = None) -> None:
    for split in SPLITS:
        photo(root / f"images/{split}/{on_disk}")
        image = {"id": 1, "file_name": said} | ({"width": WIDTH, "height": HEIGHT} if side is True else side)
        rows = [{"id": n, "image_id": 1, "category_id": n, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                 "segmentation": [[v for point in corners(box) for v in point]]} for n, box in ((1, ANT), (2, BEE))]  # fmt: skip
        rows[0] |= {"iscrowd": crowd} | ({} if ant is None else {"segmentation": ant})
        names = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
        text(
            root / f"annotations/instances_{split}.json",
            json.dumps({"images": [image], "annotations": rows, "categories": names}),
        )


def voc_files(root: Path, on_disk="a.jpg", listed="a", said="a.jpg", difficult: Any = 0, size=True, ant=ANT) -> None:
    stem = Path(on_disk).stem
    photo(root / f"JPEGImages/{on_disk}")
    side = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>" if size is True else size
    objects = "".join(
        f"<object><name>{name}</name><difficult>{flag}</difficult><bndbox><xmin>{x + 1:g}</xmin><ymin>{y + 1:g}</ymin>"
        f"<xmax>{x + w:g}</xmax><ymax>{y + h:g}</ymax></bndbox></object>"
        for name, flag, (x, y, w, h) in (("ant", difficult, ant), ("bee", 0, BEE))
    )
    text(root / f"Annotations/{stem}.xml", f"<annotation><filename>{said}</filename>{side}{objects}</annotation>")
    for split in SPLITS:
        text(root / f"ImageSets/Main/{split}.txt", f"{listed}\n")


def yolo_files(root: Path, on_disk="a.jpg", listed="", yaml="images/{}", ant="") -> None:
    sides = (WIDTH, HEIGHT) * 4
    polygon = " ".join(f"{v / side:.9f}" for v, side in zip(np.ravel(corners(BEE)), sides, strict=True))
    x, y, w, h = ANT
    box = f"{(x + w / 2) / WIDTH:.9f} {(y + h / 2) / HEIGHT:.9f} {w / WIDTH:.9f} {h / HEIGHT:.9f}"
    for split in SPLITS:
        photo(root / f"images/{split}/{on_disk}")
        other = box if not ant else polygon
        bee = f"{(BEE[0] + BEE[2] / 2) / WIDTH:.9f} {(BEE[1] + BEE[3] / 2) / HEIGHT:.9f} {BEE[2] / WIDTH} {BEE[3] / HEIGHT}"
        text(root / f"labels/{split}/{Path(on_disk).stem}.txt", f"0 {ant or other}\n1 {polygon if ant else bee}\n")
        if listed:
            text(root / f"{split}.txt", listed.format(split) + "\n")
    where = {split: f"{split}.txt" if listed else yaml.format(split) for split in SPLITS}
    text(root / "data.yaml", "".join(f"{key}: '{value}'\n" for key, value in where.items()) + "names: [ant, bee]\n")


def labelme_files(root: Path, on_disk="a.jpg", said="a.jpg", ant=None, more=(), **given: Any) -> None:
    for split in SPLITS:
        labelme_of(
            root / split,
            shape("ant", corners(ANT) if ant is None else ant, group_id=1),
            shape("bee", corners(BEE)),
            *more,
            **{"imagePath": said, **given},
        )
        (root / split / "a.jpg").unlink()
        photo(root / split / on_disk)
        (root / split / "a.json").rename(root / split / f"{Path(on_disk).stem}.json")


def studio_files(root: Path, on_disk="a.jpg", said="/data/upload/1/a.jpg", size=True, cancelled: Any = False, ant=None,
                 kind: Callable[[float], Any] = float) -> None:  # fmt: skip
    photo(root / f"images/{on_disk}")
    regions = [
        {"type": "polygonlabels", **({"original_width": WIDTH, "original_height": HEIGHT} if size else {}),
         "value": {"points": [[kind(100 * x / WIDTH), kind(100 * y / HEIGHT)] for x, y in points], "polygonlabels": [name]}}
        for name, points in (("ant", corners(ANT) if ant is None else ant), ("bee", corners(BEE)))
    ]  # fmt: skip
    task = {"id": 1, "data": {"image": said}, "annotations": [{"id": 1, "was_cancelled": cancelled, "result": regions}]}
    for split in SPLITS:
        text(root / f"{split}.json", json.dumps([task]))


def table(root: Path, on_disk="a.jpg", said="a.jpg", more=("", "", ""), ant=ANT) -> None:
    photo(root / f"images/{on_disk}")
    rows = [f"file,label,x,y,width,height{more[0]}"]
    rows += [f"{said},{name},{','.join(f'{v:g}' for v in box)}{cell}" for name, box, cell in
             (("ant", ant, more[1]), ("bee", BEE, more[2]))]  # fmt: skip
    for split in SPLITS:
        text(root / f"{split}.csv", "\n".join(rows) + "\n")
