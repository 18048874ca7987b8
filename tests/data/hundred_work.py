"""Good data of every reader, ways to spoil it, and the commands that meet it: what the test of a hundred inputs is made of."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import case_work as work
import numpy as np
from case_work import SPLITS, photo
from label_work import text
from PIL import Image

PLAIN = ["weights=none", "backbone=narrow", "machine.threads=1", "machine.loaders=0", "machine.precision=fp32",
         "log.tensorboard=false"]  # fmt: skip
TRANSFER = ["train", "transfer", "data={data}", "--run", "{out}", "size=32", "batch=2", "updates=1", *PLAIN]
DETECT = ["train", "detect", "data={data}", "--run", "{out}", "size=32", "batch=1", "updates=2", "head=one_stage",
          "network.pyramid=none", "network.wrapper=slim_conv", *PLAIN]  # fmt: skip
SEGMENT = ["train", "segment", "data={data}", "--run", "{out}", "crop=32", "batch=2", "updates=1", "head=fcn", *PLAIN]
CHECK = ["check", "{data}", "loaders=0"]
EVALUATE = ["evaluate", "{run}", "data={data}", "loaders=0", "device=cpu", "threads=1"]
PREDICT = ["predict", "{run}", "{data}", "out={out}", "device=cpu", "threads=1"]
SCORE_COCO = ["score", "coco", "{data}/truth.json", "{data}/results.json"]
SCORE_VOC = ["score", "voc", "{data}/Annotations", "{data}/found", "list={data}/ImageSets/Main/val.txt"]
SCORE_MASKS = ["score", "masks", "{data}/masks/val", "{data}/masks/train", "classes=2"]
CONVERT = ["convert", "data", "{data}", "format=yolo", "out={out}"]


def photos(root: Path) -> None:
    for split in SPLITS:
        for name in ("ant", "bee"):
            for n in range(2):
                file = root / f"{split}/{name}/{name}{n}{'v' * (split == 'val')}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 32), (100 * n, 90 * (name == "ant"), 200 * (split == "val"))).save(file)


def shards(root: Path) -> None:
    root.mkdir(parents=True)
    for split in SPLITS:
        with tarfile.open(root / f"{split}-000.tar", "w") as archive:
            for n in range(4):
                buffer = io.BytesIO()
                Image.new("RGB", (40, 32), (60 * n, 9, 90)).save(buffer, "JPEG")
                info = tarfile.TarInfo(f"{('ant', 'bee')[n % 2]}/{n}.jpg")
                info.size = len(buffer.getvalue())
                archive.addfile(info, io.BytesIO(buffer.getvalue()))


def pairs(root: Path) -> None:
    for split in SPLITS:
        (root / f"masks/{split}").mkdir(parents=True)
        for n in range(3):
            photo(root / f"images/{split}/p{n}.jpg")
            Image.fromarray(np.eye(work.HEIGHT, work.WIDTH, n, dtype=np.uint8)).save(root / f"masks/{split}/p{n}.png")
    text(root / "classes.txt", "background\nline\n")


def camvid(root: Path) -> None:
    for split in SPLITS:
        (root / f"{split}annot").mkdir(parents=True)
        for n in range(3):
            photo(root / f"{split}/p{n}.png")
            labels = np.arange(work.HEIGHT * work.WIDTH, dtype=np.uint8).reshape(work.HEIGHT, work.WIDTH) % 11
            Image.fromarray(labels).save(root / f"{split}annot/p{n}.png")


def voc(root: Path) -> None:
    work.voc_files(root)
    for name, (x, y, w, h) in (("ant", work.ANT), ("bee", work.BEE)):
        text(root / f"found/comp4_det_val_{name}.txt", f"a 0.9 {x + 1:g} {y + 1:g} {x + w:g} {y + h:g}\n")


def coco(root: Path) -> None:
    work.coco_file(root)
    for split in SPLITS:  # a second picture, which is there where the first one cannot be used
        photo(root / f"images/{split}/b.jpg")
        edit(f"annotations/instances_{split}.json", _second)(root)
    (root / "truth.json").write_bytes((root / "annotations/instances_val.json").read_bytes())
    rows = [{"image_id": 1, "category_id": n, "bbox": box, "score": 0.9} for n, box in ((1, work.ANT), (2, work.BEE))]
    text(root / "results.json", json.dumps(rows))


def _second(said: Any) -> None:
    said["images"].append({**said["images"][0], "id": 2, "file_name": "b.jpg"})
    said["annotations"] += [{**one, "id": one["id"] + 2, "image_id": 2} for one in said["annotations"]]


def labelme(root: Path) -> None:
    work.labelme_files(root)
    for split in SPLITS:
        photo(root / f"{split}/b.jpg")
        said = json.loads((root / f"{split}/a.json").read_text())
        text(root / f"{split}/b.json", json.dumps({**said, "imagePath": "b.jpg"}))


def yolo_pixels(root: Path) -> None:
    work.yolo_files(root, ant="0.1 0.1 0.5 0.1 0.5 0.9")


BASES: dict[str, Callable[[Path], Any]] = {
    "photos": photos, "shards": shards, "coco": coco, "voc": voc, "yolo": work.yolo_files, "yolo-seg": yolo_pixels,
    "labelme": labelme, "labelstudio": work.studio_files, "csv": work.table, "pairs": pairs, "camvid": camvid,
}  # fmt: skip
Spoil = Callable[[Path], Any]


def put(name: str, content: str | bytes) -> Spoil:
    """Write a file, or write over it."""

    def spoil(root: Path) -> None:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def gone(folder: str) -> Spoil:
    """Remove a folder."""
    return lambda root: shutil.rmtree(root / folder)


def drop(*names: str) -> Spoil:
    return lambda root: [(root / name).unlink() for name in names]


def cut(name: str, share: float = 0.5) -> Spoil:
    """Keep only the first part of a file."""

    def spoil(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(len(data) * share)])

    return spoil


def swap(name: str, old: str, new: str) -> Spoil:
    """Replace a text in a file, which must be there."""

    def spoil(root: Path) -> None:
        said = (root / name).read_text()
        assert old in said
        (root / name).write_text(said.replace(old, new))

    return spoil


def edit(name: str, change: Callable[[Any], Any]) -> Spoil:
    """Change what a JSON file says, in place or by what the function returns."""

    def spoil(root: Path) -> None:
        said = json.loads((root / name).read_text())
        changed = change(said)
        (root / name).write_text(json.dumps(said if changed is None else changed))

    return spoil


def mask(name: str, *values: int, mode: str = "L", size: tuple[int, int] = (work.WIDTH, work.HEIGHT)) -> Spoil:
    """Write a mask of equal stripes of these numbers."""

    def spoil(root: Path) -> None:
        rows = np.array(values, np.uint8)[np.arange(size[1]) % len(values)]
        image = Image.fromarray(np.repeat(rows[:, None], size[0], 1))
        (image.convert(mode) if mode != "L" else image).save(root / name)

    return spoil


def several(*spoils: Spoil) -> Spoil:
    return lambda root: [spoil(root) for spoil in spoils]


def nothing(root: Path) -> None:
    """Leave the data as it is."""


@dataclass(frozen=True)
class Input:
    """A wrong or odd input: the good data, what spoils it, the command's words, what is said in how many lines, the code."""

    base: str
    spoil: Spoil
    words: list[str]
    says: str
    code: int = 2
    times: int = 1


TRAIN_JSON, VAL_JSON = "annotations/instances_train.json", "annotations/instances_val.json"
FORMS = {
    form: [*DETECT, f"format={form}"] for form in ("coco", "voc", "yolo", "yolo-seg", "labelme", "labelstudio", "csv")
}
PAIRS, CAMVID = [*SEGMENT, "format=pairs"], [*SEGMENT, "format=camvid"]
HEAD = "file,label,x,y,width,height\n"


def annotation(**given):
    return lambda said: said["annotations"][0].update(given)


def image(**given):
    return lambda said: said["images"][0].update(given)


def labelme(**given):
    return lambda said: said.update(given)


def region(**given):
    return lambda said: said[0]["annotations"][0]["result"][0].update(given)


def task(**given):
    return lambda said: said[0].update(given)


def result(**given):
    return lambda said: said[0].update(given)
