"""From one format to another: the same boxes in a circle through all, and what a format cannot say is listed."""

import json

import label_work as work
import pytest
from label_work import labelme_of, same, shape, split_of

import trunkline
from trunkline.ground.errors import DataError
from trunkline.tasks.formats import format_of

pytest.importorskip("pycocotools")


RENAMED = ["format=voc: names of pictures that are not alone: the split put before them in 6 pictures"]


def test_in_a_circle_through_all_formats_the_boxes_stay(tmp_path):
    work.labelme(tmp_path / "labelme/train")
    work.labelme(tmp_path / "labelme/val")
    at, before = tmp_path / "labelme", "labelme"
    for n, form in enumerate(("csv", "yolo", "coco", "labelstudio", "voc", "labelme", "yolo", "voc", "coco", "csv")):
        found = trunkline.convert("data", at, format=form, out=tmp_path / f"{n}-{form}", source_format=before)
        assert found.lost == (RENAMED if form == "voc" and n == 4 else []) and (n == 0 or not found.notes)
        at, before = tmp_path / f"{n}-{form}", form
        assert format_of(at) == form
        same(split_of(at, form))
        same(split_of(at, form, "val"))


def test_polygons_go_where_polygons_can(tmp_path):
    labelme_of(
        tmp_path / "in/train",
        shape("ant", [[1.25, 2], [11.1, 2], [11.1, 22.3]]),
        shape("bee", [[3, 3], [9, 9]], "rectangle"),
    )
    at, before = tmp_path / "in", "labelme"
    for form in ("coco", "yolo-seg", "labelstudio", "labelme"):
        found = trunkline.convert("data", at, format=form, out=tmp_path / form, source_format=before)
        at, before = tmp_path / form, form
        assert not found.lost
    samples = split_of(at, "labelme", head="mask_rcnn", on_bad_box="skip")
    assert samples.index.segmentation(0) == [[1.25, 2, 11.1, 2, 11.1, 22.3]]
    assert samples.index.boxes.tolist() == [[1.25, 2, 11.1 - 1.25, 22.3 - 2], [3, 3, 6, 6]]
    lost = trunkline.convert("data", tmp_path / "coco", format="voc", out=tmp_path / "voc").lost
    assert any("masks, of which the box is kept in 1 object" in line for line in lost)


def test_what_a_format_cannot_say_is_listed(tmp_path):
    work.coco(tmp_path / "in", "annotations/instances_train.json", "images")
    file = tmp_path / "in/annotations/instances_train.json"
    said = json.loads(file.read_text())
    said["annotations"][0]["iscrowd"] = 1
    said["categories"].append({"id": 9, "name": "wasp"})
    file.write_text(json.dumps(said))
    found = trunkline.convert("data", tmp_path / "in", format="voc", out=tmp_path / "voc")
    assert found.lost == [
        "format=voc: crowds left out, which this format cannot say in 1 object",
        "format=voc: classes without an object (wasp), which this format does not name in 1 class",
    ]
    with pytest.raises(ValueError, match="is there already"):
        trunkline.convert("data", tmp_path / "in", format="voc", out=tmp_path / "voc")


def test_a_mistake_writes_nothing(tmp_path):
    labelme_of(tmp_path / "in/train", shape("ant", [[1, 2]]))
    with pytest.raises(DataError):
        trunkline.convert("data", tmp_path / "in", format="yolo", out=tmp_path / "out", source_format="labelme")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
