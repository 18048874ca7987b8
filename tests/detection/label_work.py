"""One small data set of boxes in whole pixels, written by hand as each labelling tool writes it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.splits import read_split

SIZES = {"a.jpg": (96, 64), "b.jpg": (60, 80), "c.jpg": (100, 50)}
BOXES = {
    "a.jpg": [("ant", (10, 20, 30, 40)), ("bee", (0, 0, 96, 64))],
    "b.jpg": [("bee", (7, 9, 11, 13))],
    "c.jpg": [("ant", (33, 1, 3, 49))],
}
CLASSES = ("ant", "bee")


def pictures(folder: Path, names=tuple(SIZES)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        Image.new("RGB", SIZES[name], (40 * n, 90, 160)).save(folder / name)


def text(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


def share(number: float, side: float) -> str:
    return f"{number / side:.6f}"


def yolo(root: Path, split: str, digits=share) -> None:
    for name, objects in BOXES.items():
        width, height = SIZES[name]
        lines = [
            " ".join(
                [
                    str(CLASSES.index(label)),
                    digits(x + w / 2, width),
                    digits(y + h / 2, height),
                    digits(w, width),
                    digits(h, height),
                ]
            )
            for label, (x, y, w, h) in objects
        ]
        text(root / f"labels/{split}/{Path(name).stem}.txt", "\n".join(lines) + "\n")
    pictures(root / f"images/{split}")


def roboflow_yolo(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        yolo(root / "flat", split)
        (root / folder).mkdir(parents=True)
        (root / f"flat/images/{split}").rename(root / f"{folder}/images")
        (root / f"flat/labels/{split}").rename(root / f"{folder}/labels")
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['ant', 'bee']\n")


def labelme(folder: Path) -> None:
    pictures(folder)
    for name, objects in BOXES.items():
        width, height = SIZES[name]
        shapes = [
            {
                "label": label,
                "points": [[x + w, y + h], [x, y]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {},
            }
            for label, (x, y, w, h) in objects
        ]
        said = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\pics\\{name}", "imageData": None,
                "imageHeight": height, "imageWidth": width}  # fmt: skip
        text(folder / f"{Path(name).stem}.json", json.dumps(said))


def label_studio(root: Path, split: str) -> None:
    pictures(root / "images")
    tasks = []
    for n, (name, objects) in enumerate(BOXES.items()):
        width, height = SIZES[name]
        regions = [
            {"id": f"r{i}", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": width,
             "original_height": height, "image_rotation": 0,
             "value": {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height,
                       "rotation": 0, "rectanglelabels": [label]}}
            for i, (label, (x, y, w, h)) in enumerate(objects)
        ]  # fmt: skip
        tasks.append({"id": n, "data": {"image": f"/data/upload/1/1a2b3c4d-{name}"}, "annotations": [
            {"id": n, "completed_by": 1, "was_cancelled": False, "result": regions}]})  # fmt: skip
    text(root / f"{split}.json", json.dumps(tasks))


def tensorflow_csv(folder: Path) -> None:
    """As Roboflow writes it: corners, and the picture's sides as width and height."""
    pictures(folder)
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    lines += [
        f"{name},{SIZES[name][0]},{SIZES[name][1]},{label},{x},{y},{x + w},{y + h}"
        for name, objects in BOXES.items() for label, (x, y, w, h) in objects
    ]  # fmt: skip
    text(folder / "_annotations.csv", "\n".join(lines) + "\n")


def voc_xml(name: str, origin: int = 1) -> str:
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x + origin}</xmin><ymin>{y + origin}</ymin><xmax>{x + w - 1 + origin}</xmax>"
        f"<ymax>{y + h - 1 + origin}</ymax></bndbox></object>"
        for label, (x, y, w, h) in BOXES[name]
    )
    width, height = SIZES[name]
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def flat_voc(folder: Path, origin: int = 1) -> None:
    pictures(folder)
    for name in BOXES:
        text(folder / f"{Path(name).stem}.xml", voc_xml(name, origin))


def coco(root: Path, file: str, images: str) -> None:
    pictures(root / images)
    said = {
        "images": [],
        "annotations": [],
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
    }
    for n, (name, objects) in enumerate(BOXES.items(), 1):
        said["images"].append({"id": n, "file_name": name, "width": SIZES[name][0], "height": SIZES[name][1]})
        said["annotations"] += [
            {"id": 10 * n + i, "image_id": n, "category_id": CLASSES.index(label) + 1, "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0} for i, (label, box) in enumerate(objects)
        ]  # fmt: skip
    text(root / file, json.dumps(said))


EXACT = [[10, 20, 30, 40], [0, 0, 96, 64], [7, 9, 11, 13], [33, 1, 3, 49]]
LABELS = [0, 1, 1, 0]


def split_of(root: Path, form: str, split: str = "train", **changed):
    return read_split(Options(data=str(root), format=form, empty=True, **changed), split)


def same(samples, near: float = 0.0) -> None:
    assert samples.classes == CLASSES
    assert [Path(samples.id(i)).name.rpartition("_")[2] for i in range(len(samples))] == list(SIZES)
    assert samples.index.labels.tolist() == LABELS
    assert np.abs(samples.index.boxes - EXACT).max() <= near
    for i in range(len(samples)):
        samples[i]  # the picture is there, and of the size that its labels mean


def shape(label: str, points, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def labelme_of(folder: Path, *shapes: dict, **more) -> None:
    pictures(folder, ("a.jpg",))
    said = {"shapes": list(shapes), "imagePath": "a.jpg", "imageHeight": 64, "imageWidth": 96, **more}
    text(folder / "a.json", json.dumps(said))


def yolo_yaml(root: Path) -> None:
    yolo(root, "train")
    yolo(root, "val")
    text(
        root / "data.yaml", "path: ../datasets/own\ntrain: images/train\nval: images/val\nnames:\n  0: ant\n  1: bee\n"
    )
