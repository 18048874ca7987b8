"""From one format to another: the same boxes in a circle through all, and what a format cannot say is listed."""

import json

import label_work as work
import numpy as np
import pytest
from label_work import labelme_of, same, shape, split_of
from PIL import Image

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
        alone = "format=yolo-seg: boxes among polygons, written as polygons of four points in 1 object"
        assert found.lost == ([alone] if form == "yolo-seg" else [])
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
    labelme_of(tmp_path / "in/train", shape("ant", [[1, 2]], "rectangle"))
    with pytest.raises(DataError):
        trunkline.convert("data", tmp_path / "in", format="yolo", out=tmp_path / "out", source_format="labelme")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_predictions_go_back_into_the_tools(tmp_path, monkeypatch):
    """Each tool's labels hold the objects of predictions.jsonl from the score on that pictures show."""
    from trunkline.tasks.detection.predicted import PredictedObjects

    class OfTask:
        classes = work.CLASSES

    work.pictures(tmp_path / "in/x", ("a.jpg",))
    work.pictures(tmp_path / "in/y", ("a.jpg", "b.jpg"))
    files = [str(tmp_path / "in" / name) for name in ("x/a.jpg", "y/a.jpg", "y/b.jpg")]
    found = [
        PredictedObjects(files[0], None, [[10, 20, 30, 40], [0, 0, 5, 5]], ["bee", "ant"], [0.75, 0.25], None, [1, 0]),
        PredictedObjects(files[1], None, [], [], []),
        PredictedObjects(files[2], None, [[1.5, 2, 3, 4]], ["ant"], [0.5], None, [0]),
        PredictedObjects(str(tmp_path / "none.jpg"), "cannot be read"),
    ]  # fmt: skip
    for form in PredictedObjects.labels_as:
        lost = PredictedObjects.write_labels(form, tmp_path / form, found, OfTask)
        assert ("scores, as this format has labels alone" in " ".join(lost)) == (form in ("voc", "yolo"))
        if form == "labelstudio":
            tasks = json.loads((tmp_path / form / "predicted.json").read_text())
            assert tasks[0]["predictions"][0]["result"][0]["score"] == 0.75 and "predictions" not in tasks[1]
            continue
        given = {"coco": ("annotations/instances_predicted.json",), "csv": ("predicted.csv",), "yolo": ("images/predicted",),
                 "voc": ("ImageSets/Main/predicted.txt",), "labelme": ("predicted",)}[form]  # fmt: skip
        samples = split_of(
            tmp_path / form, form, train=given, **({"train_images": "images/predicted"} if form == "coco" else {})
        )
        assert sorted(samples.index.boxes.tolist()) == [[1.5, 2, 3, 4], [10, 20, 30, 40]] and len(samples) == 3
        assert samples.index.classes == ("ant", "bee")
        samples[0]
    assert "score 0.75" in (tmp_path / "labelme/predicted/a.json").read_text()
    assert "score" in (tmp_path / "csv/predicted.csv").read_text().splitlines()[0]


def test_masks_of_predictions_are_labelme_s_masks(tmp_path):
    import numpy as np
    from pycocotools import mask

    from trunkline.tasks.detection.predicted import PredictedObjects

    class OfTask:
        classes = work.CLASSES

    work.pictures(tmp_path / "in", ("a.jpg",))
    drawn = np.zeros((64, 96), np.uint8, order="F")
    drawn[20:50, 30:33] = drawn[40:44, 30:70] = 1
    code = mask.encode(drawn)
    code = {"size": code["size"], "counts": code["counts"].decode()}
    one = PredictedObjects(str(tmp_path / "in/a.jpg"), None, [[30, 20, 40, 30]], ["ant"], [0.9], [code], [0])
    assert PredictedObjects.write_labels("labelme", tmp_path / "out", [one], OfTask) == [
        "format=labelme: classes without an object (bee), which this format does not name in 1 class"
    ]
    samples = split_of(tmp_path / "out", "labelme", train=("predicted",), head="mask_rcnn")
    assert (samples[0].targets["masks"][0].numpy() == drawn).all()


def test_a_stated_size_that_is_false_is_refused(tmp_path):
    for form in ("coco", "csv"):
        (tmp_path / form).mkdir()
    work.coco(tmp_path / "coco", "annotations/instances_train.json", "images")
    file = tmp_path / "coco/annotations/instances_train.json"
    file.write_text(file.read_text().replace('"width": 96, "height": 64', '"width": 64, "height": 96'))
    work.pictures(tmp_path / "csv")
    work.text(tmp_path / "csv/train.csv", "file,label,xmin,ymin,xmax,ymax,width,height\na.jpg,ant,10,20,40,60,30,40\n")
    for form, said in (
        ("coco", "a.jpg: is 96 x 64 pixels; its labels say 64 x 96"),
        ("csv", "rename them where they are the box's"),
    ):
        with pytest.raises(DataError) as error:
            trunkline.convert("data", tmp_path / form, format="yolo", out=tmp_path / "out", source_format=form)
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("form", "name"), [("labelme", "__ignore__"), ("voc", " ant"), ("csv", "a\x01"), ("voc", "a\tb")]
)
def test_class_names_that_would_not_come_back_are_refused(tmp_path, form, name):
    work.coco(tmp_path / "in", "annotations/instances_train.json", "images")
    file = tmp_path / "in/annotations/instances_train.json"
    said = json.loads(file.read_text())
    said["categories"][0]["name"] = name
    file.write_text(json.dumps(said))
    with pytest.raises(DataError, match=f"format={form} cannot name the classes"):
        trunkline.convert("data", tmp_path / "in", format=form, out=tmp_path / "out")


def test_names_of_pictures_with_signs_come_back(tmp_path):
    work.coco(tmp_path / "in", "annotations/instances_train.json", "images")
    file = tmp_path / "in/annotations/instances_train.json"
    names = {"a.jpg": "a#1?.jpg", "b.jpg": "b%20c.jpg", "c.jpg": "c.jpg.jpg"}
    for old, new in names.items():
        (tmp_path / "in/images" / old).rename(tmp_path / "in/images" / new)
        file.write_text(file.read_text().replace(f'"{old}"', f'"{new}"'))
    for form in ("labelstudio", "yolo", "labelme", "csv", "voc"):
        trunkline.convert("data", tmp_path / "in", format=form, out=tmp_path / form, source_format="coco")
        samples = split_of(tmp_path / form, form)
        assert len(samples) == 3 and samples.index.boxes.tolist() == work.EXACT


def test_boxes_that_training_refuses_are_left_out_and_those_beyond_cut_for_yolo(tmp_path):
    work.coco(tmp_path / "data", "annotations/instances_train.json", "images")
    file = tmp_path / "data/annotations/instances_train.json"
    said = json.loads(file.read_text())
    boxes = [[10, 20, 0, 40], [0, 0, 96, 64], [50, 70, 20, 30], [-5, 1, 30, 49]]  # without area; whole; beyond; beyond
    for one, box in zip(said["annotations"], boxes, strict=True):
        one["bbox"] = box
    file.write_text(json.dumps(said))
    found = trunkline.convert("data", tmp_path / "data", format="yolo", out=tmp_path / "yolo")
    assert any("of no area or outside their picture, left out, in 1 object" in line for line in found.lost)
    assert any("boxes beyond their picture, cut at its edge in 2 objects" in line for line in found.lost)
    back = work.split_of(tmp_path / "yolo", "yolo").index
    assert np.abs(back.boxes - [[0, 0, 96, 64], [50, 70, 10, 10], [0, 1, 25, 49]]).max() < 1e-9
    work.text(tmp_path / "csv/train.csv", "file,label,xmin,ymin,xmax,ymax\na.jpg,ant,30,20,10,40\na.jpg,ant,1,2,3,4\n")
    work.pictures(tmp_path / "csv")
    found = trunkline.convert("data", tmp_path / "csv", format="coco", out=tmp_path / "coco")
    assert found.objects == {"train": 1} and any("end before they begin" in line for line in found.lost)


def test_an_orientation_beside_labels_of_stored_pixels_is_listed(tmp_path):
    work.coco(tmp_path / "data", "annotations/instances_train.json", "images")
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", work.SIZES["a.jpg"]).save(tmp_path / "data/images/a.jpg", exif=exif)
    said = "beside an EXIF orientation that turns them (read the copy with exif=ignore), in 1 picture"
    found = trunkline.convert("data", tmp_path / "data", format="yolo", out=tmp_path / "yolo", exif="ignore")
    assert any(said in line for line in found.lost)
    assert not trunkline.convert("data", tmp_path / "data", format="yolo", out=tmp_path / "turned", exif="turn").lost
