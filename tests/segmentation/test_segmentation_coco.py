"""COCO's objects as masks: each on the canvas, void where two classes overlap, chosen categories, wrong names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.detection.scenes import write_box_scenes
from trunkline.tasks.objects.masks import to_bitmap
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.splits import read_split

pytest.importorskip("pycocotools")


@pytest.fixture
def coco(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    return write_box_scenes(tmp_path / "data", train=6, val=4, size=64)


def options(data: Path, **changed) -> Options:
    return Options(data=str(data), format="coco", **changed)


def test_every_object_is_on_the_canvas_with_its_category(coco):
    document = json.loads((coco / "annotations/instances_train.json").read_text())
    samples = read_split(options(coco), "train")
    names = {c["id"]: c["name"] for c in document["categories"]}
    assert samples.classes == ("background", *(names[i] for i in sorted(names)))
    for i, image in enumerate(document["images"]):
        wanted = np.zeros((64, 64), np.uint8)
        for one in document["annotations"]:
            if one["image_id"] == image["id"]:
                inside = to_bitmap(one["segmentation"], 64, 64).astype(bool)
                wanted[inside] = samples.classes.index(names[one["category_id"]])
        assert np.array_equal(samples[i].targets["mask"].numpy(), wanted)
        assert samples.id(i) == image["file_name"]
    few = read_split(options(coco, categories=("star", "circle"), limit=2), "train")
    assert few.classes == ("background", "star", "circle") and len(few) == 2
    assert set(np.unique(few.labels(0))) <= {0, 1, 2}
    turned = read_split(options(coco), "val", samples.classes[::-1])
    same = read_split(options(coco), "val")
    assert np.array_equal(6 - turned.labels(0), same.labels(0)) and turned.classes == samples.classes[::-1]


def test_two_classes_on_one_pixel_are_void_and_the_manifest_follows(coco):
    file = coco / "annotations/instances_train.json"
    document = json.loads(file.read_text())
    before = read_split(options(coco), "train").fingerprint()["digest"]
    own = [a for a in document["annotations"] if a["image_id"] == 1]
    first, category = own[0], own[0]["category_id"]
    other = next(c["id"] for c in document["categories"] if c["id"] != category)
    more = {**first, "id": 999, "category_id": other}
    document["annotations"] = [*[a for a in document["annotations"] if a["image_id"] != 1], first, more]
    file.write_text(json.dumps(document))
    samples = read_split(options(coco), "train")
    inside = to_bitmap(first["segmentation"], 64, 64).astype(bool)
    assert (samples.labels(0)[inside] == 255).all() and (samples.labels(0)[~inside] == 0).all()
    assert samples.fingerprint()["digest"] != before


def test_wrong_categories(coco):
    with pytest.raises(DataError, match=r"categories=moon: .* has no such categories; it has circle"):
        read_split(options(coco, categories=("moon",)), "train")
    file = coco / "annotations/instances_train.json"
    file.write_text(file.read_text().replace('"circle"', '"background"'))
    with pytest.raises(DataError, match="a category is called background"):
        read_split(options(coco), "train")


def test_a_picture_of_another_size_than_annotated_is_named(coco, tmp_path):
    data = Path(shutil.copytree(coco, tmp_path / "copy"))
    file = data / "annotations/instances_train.json"
    document = json.loads(file.read_text())
    document["images"][0] |= {"width": 32}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 1]
    file.write_text(json.dumps(document))
    with pytest.raises(
        DataError, match=r"the annotation of train_00000.jpg: is 32 x 64 pixels; its picture .* is 64 x 64"
    ):
        read_split(options(data), "train")[0]


def test_it_is_trained(coco, tmp_path):
    words = ["weights=none", "backbone=resnet18", "head=fcn", "crop=64", "batch=2", "updates=2", "machine.threads=1"]
    words += ["machine.loaders=0", "log.tensorboard=false", "format=coco", f"data={coco}"]
    assert main(["train", "segment", *words, "--run", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/scores.json").read_text())["samples"] == 4


def test_pictures_with_few_pixels_of_objects_are_not_trained_on(coco):
    document = json.loads((coco / "annotations/instances_train.json").read_text())
    areas = {image["id"]: 0.0 for image in document["images"]}
    for one in document["annotations"]:
        areas[one["image_id"]] += one["area"]
    least = int(sorted(areas.values())[2])
    wanted = [image["file_name"] for image in document["images"] if areas[image["id"]] > least]
    samples = read_split(options(coco, least=least), "train")
    assert [samples.id(i) for i in range(len(samples))] == wanted and 0 < len(wanted) < 6
    assert np.array_equal(samples.labels(0), read_split(options(coco), "train").labels(list(areas).index(
        next(i["id"] for i in document["images"] if i["file_name"] == wanted[0]))))  # fmt: skip
    assert len(read_split(options(coco, least=least), "val")) == 4
    with pytest.raises(DataError, match="no picture has objects of more than least=99999 pixels"):
        read_split(options(coco, least=99999), "train")
