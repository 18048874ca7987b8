"""Labels of pictures from objects of every format: crowds, difficult and degenerate ones, pictures without any."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trunkline
from trunkline.backbones.contract import Preprocessing
from trunkline.ground.errors import DataError
from trunkline.ground.names import load_named
from trunkline.pipelines.models.assembly import make_task
from trunkline.tasks.check import check
from trunkline.tasks.data.repairs import Repair
from trunkline.tasks.detection.scenes import write_box_scenes
from trunkline.tasks.multilabel.options import Options
from trunkline.tasks.multilabel.splits import OBJECTS, read_labels
from trunkline.tasks.multilabel.task import MultiLabel
from trunkline.tasks.table import options as known_options

BOX = [2, 2, 6, 6]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


def coco(root: Path, splits: dict[str, list[list[tuple]]], names=("ant", "bee", "cat")) -> Path:
    """Write pictures with objects: each is a class's number, and what its annotation has besides."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, pictures in splits.items():
        document = {"images": [], "annotations": [], "categories": [{"id": n, "name": c} for n, c in enumerate(names)]}
        (root / split).mkdir(exist_ok=True)
        for i, objects in enumerate(pictures):
            Image.fromarray(np.full((16, 20, 3), 9 * i, np.uint8)).save(root / f"{split}/{i}.png")
            document["images"].append({"id": i, "file_name": f"{i}.png", "width": 20, "height": 16})
            for number, more in objects:
                one = {
                    "id": len(document["annotations"]) + 1,
                    "image_id": i,
                    "category_id": number,
                    "bbox": BOX,
                    "area": 36,
                }
                document["annotations"].append(one | {"iscrowd": 0} | more)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    return root


def voc(root: Path, pictures: list[list[tuple[str, int]]]) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for i, objects in enumerate(pictures):
        Image.fromarray(np.full((16, 20, 3), 9 * i, np.uint8)).save(root / f"JPEGImages/{i}.jpg")
        said = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax>"
            "<ymax>9</ymax></bndbox></object>" for name, difficult in objects
        )  # fmt: skip
        size = "<size><width>20</width><height>16</height><depth>3</depth></size>"
        (root / f"Annotations/{i}.xml").write_text(f"<annotation>{size}{said}</annotation>")
    for split in ("train", "val"):
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{i}\n" for i in range(len(pictures))))
    return root


def labels(folder: Path, split: str = "train", **changed) -> list[list[int]]:
    samples = read_labels(Options(data=str(folder), **changed), split)
    read = [samples[i].targets["labels"].tolist() for i in range(len(samples))]
    assert read == samples.known.tolist()
    return read


def test_a_pictures_labels_are_the_classes_of_its_objects(tmp_path):
    coco(tmp_path, {"train": [[(0, {}), (0, {}), (2, {})], [], [(1, {})]], "val": [[], [(2, {})]]})
    samples = read_labels(Options(data=str(tmp_path)), "train")
    assert samples.classes == ("ant", "bee", "cat") and labels(tmp_path) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert samples.remarks() == ["1 picture of 3 without any of the classes"]
    val = read_labels(Options(data=str(tmp_path)), "val", samples.classes)
    assert val.remarks() == ["1 picture of 2 without any of the classes", "no picture with ant, bee"]
    assert labels(tmp_path, limit=2) == [[1, 0, 1], [0, 0, 0]] and labels(tmp_path, categories=("cat",)) == [
        [1],
        [0],
        [0],
    ]


def test_a_crowd_shows_its_class(tmp_path):
    crowd = {"iscrowd": 1, "segmentation": {"size": [16, 20], "counts": [0, 320]}}
    coco(tmp_path, {"train": [[(0, crowd)], [(1, {})]]})
    samples = read_labels(Options(data=str(tmp_path)), "train")
    assert samples.known.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert samples.remarks()[0] == "1 crowd (iscrowd=1) taken as objects: their class is in the picture"


def test_of_a_class_whose_only_objects_are_difficult_nobody_knows(tmp_path):
    """As in VOC's classification task."""
    voc(tmp_path, [[("ant", 1), ("bee", 0)], [("ant", 1), ("ant", 0)], [("bee", 1)], []])
    samples = read_labels(Options(data=str(tmp_path), format="voc"), "train")
    assert samples.known.tolist() == [[-1, 1], [1, 0], [0, -1], [0, 0]]
    said = samples.remarks()
    assert "3 objects difficult: the class of such an object is unknown where no other shows it (2 labels)" in said
    assert "2 labels of 8 unknown: they count in no loss and no score" in said


def test_an_object_without_area_stops_or_leaves_its_class_unknown(tmp_path):
    coco(tmp_path, {"train": [[(0, {"bbox": [2, 2, 0, 4]}), (1, {})], [(0, {})]]})
    with pytest.raises(
        DataError, match=r"1 box without area, or outside the picture:\n.*0\.png: ant.*\n.*on_bad_box=skip"
    ):
        labels(tmp_path)
    assert labels(tmp_path, on_bad_box="skip") == [[-1, 1, 0], [1, 0, 0]]


def test_every_format_of_objects_says_the_same_labels(tmp_path):
    write_box_scenes(tmp_path / "scenes", train=6, val=4, size=64)
    wanted = {}
    for form in (form for form in OBJECTS if form != "yolo-obb"):  # which convert does not write
        root = tmp_path / ("scenes" if form in ("coco", "voc") else form)
        if form not in ("coco", "voc"):
            trunkline.convert("data", tmp_path / "scenes", format=form, out=root, source_format="coco")
        for split in ("train", "val"):
            samples = read_labels(Options(data=str(root), format=form), split)
            names = [{c for c, there in zip(samples.classes, row, strict=True) if there == 1} for row in samples.known]
            found = {Path(samples.id(i)).stem: own for i, own in enumerate(names)}
            assert wanted.setdefault(split, found) == found, form


def test_a_checkpoints_classes_say_the_order_and_others_are_refused(tmp_path):
    coco(tmp_path, {"train": [[(0, {}), (2, {})]]})
    samples = read_labels(Options(data=str(tmp_path)), "train", ("cat", "dog", "ant"))
    assert samples.known.tolist() == [[1, 0, 1]]
    with pytest.raises(DataError, match="objects of ant, which the model does not know; it knows cat"):
        read_labels(Options(data=str(tmp_path)), "train", ("cat",))


@pytest.mark.parametrize("kind", ["detection", "multilabel", "segmentation"])
def test_a_class_that_training_lacks_is_told_before_there_is_a_model(tmp_path, kind):
    mask = {"segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]]}
    coco(tmp_path, {"train": [[(0, mask)]]}, ("ant",))
    coco(tmp_path, {"val": [[(0, mask), (2, mask)]]})
    own = load_named(known_options()[kind])(data=str(tmp_path), format="coco")
    with pytest.raises(DataError, match=r"cat, and the training split has none of them.*categories="):
        make_task(kind, own, Preprocessing()).samples("val")
    classes = (["background"] if kind == "segmentation" else []) + ["ant"]
    with pytest.raises(DataError, match="cat, which the model does not know; it knows"):
        make_task(kind, own, Preprocessing(), {"classes": classes}).samples("val")


def test_a_share_is_held_out_with_pictures_of_nothing(tmp_path):
    coco(tmp_path, {"train": [[(n % 3, {})] if n % 2 else [] for n in range(20)]})
    parts = [read_labels(Options(data=str(tmp_path), val=("0.25",)), split) for split in ("train", "val")]
    assert [len(part) for part in parts] == [15, 5]
    assert sum(int((part.known == 0).all(1).sum()) for part in parts) == 10
    assert parts[0].fingerprint() != parts[1].fingerprint()


def test_other_labels_are_other_data_and_other_boxes_are_not(tmp_path):
    coco(tmp_path, {"train": [[(0, {})], [(1, {})]]})
    first = read_labels(Options(data=str(tmp_path)), "train").fingerprint()
    coco(tmp_path, {"train": [[(0, {"bbox": [1, 1, 5, 5]})], [(1, {})]]})
    assert read_labels(Options(data=str(tmp_path)), "train").fingerprint() == first
    coco(tmp_path, {"train": [[(0, {}), (1, {})], [(1, {})]]})
    assert read_labels(Options(data=str(tmp_path)), "train").fingerprint() != first


def test_what_cannot_be_read_is_left_out_by_name(tmp_path):
    coco(tmp_path, {"train": [[(0, {})], [(1, {})]]})
    samples = read_labels(Options(data=str(tmp_path)), "train")
    left = samples.without({"0.png": "is damaged"})
    assert [left.id(i) for i in range(len(left))] == ["1.png"] and left.excluded == {"0.png": "is damaged"}
    with pytest.raises(DataError, match="no picture can be used: is damaged"):
        left.without({"1.png": "is damaged"})


def test_a_repair_of_the_file_is_one_here_too(tmp_path):
    coco(tmp_path, {"train": [[(0, {"iscrowd": False})]]})
    assert any(isinstance(line, Repair) for line in read_labels(Options(data=str(tmp_path)), "train").remarks())


def test_a_look_counts_labels_and_tells_what_is_wrong(tmp_path):
    root = coco(tmp_path, {"train": [[(0, {}), (0, {})], [(1, {"bbox": [2, 2, 0, 4]})], []], "val": [[(0, {})]]})
    (root / "train/2.png").write_bytes(b"no picture")
    found = check(root, task="multilabel", loaders=0, progress=False)
    assert found.counts == {"train": {"ant": 1, "bee": 0, "cat": 0}, "val": {"ant": 1, "bee": 0, "cat": 0}}
    problems = {f"{p['file']}: {p['what']}": p.get("skip") for p in found.problems}
    (box,) = [line for line in problems if "a box without area" in line]
    (picture,) = [line for line in problems if line.startswith("train/2.png")]
    assert problems[box] == "on_bad_box=skip" and problems[picture] == "on_bad_sample=skip"
    assert found.files == 4 and "labels in 3 classes" in found.summary()
    plain = coco(tmp_path / "whole", {"train": [[(0, {})]]})
    (plain / "annotations/instances_train.json").rename(plain / "annotations/instances_default.json")
    (plain / "train").rename(plain / "images")
    assert check(plain, task="multilabel", loaders=0, progress=False).counts == {"all": {"ant": 1, "bee": 0, "cat": 0}}


def test_whole_pictures_are_grouped_as_a_detector_groups_them(tmp_path):
    coco(tmp_path, {"train": [[(0, {})], []]})
    task = MultiLabel(Options(data=str(tmp_path), view="fit", size=32), Preprocessing())
    samples = task.samples("train")
    assert samples.groups(True).tolist() == [1, 1] and samples.groups(False).tolist() == [32 << 32 | 40] * 2
    assert MultiLabel(Options(data=str(tmp_path)), Preprocessing()).samples("train").groups(False) is None
