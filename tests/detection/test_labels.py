"""What labelling tools write is read as the tools mean it: the same boxes from each, or a message that says what to choose."""

import json
import re
from pathlib import Path

import label_work as work
import numpy as np
import pytest
from label_work import labelme_of, same, shape, split_of, yolo_yaml
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.formats import format_of

pytest.importorskip("pycocotools")
EXACT = [[10, 20, 30, 40], [0, 0, 96, 64], [7, 9, 11, 13], [33, 1, 3, 49]]
LABELS = [0, 1, 1, 0]


def darknet(root: Path) -> None:
    work.yolo(root, "train")
    work.yolo(root, "val")
    work.text(root / "classes.txt", "ant\nbee\n")


def lists(root: Path) -> None:
    yolo_yaml(root)
    work.text(root / "train.txt", "".join(f"./images/train/{name}\n" for name in work.SIZES))
    work.text(root / "data.yaml", "train: train.txt\nval: images/val\nnames: [ant, bee]\n")


def labelme(root: Path) -> None:
    work.labelme(root / "train")
    work.labelme(root / "val")


def label_studio(root: Path) -> None:
    work.label_studio(root, "train")
    work.label_studio(root, "val")


def roboflow_csv(root: Path) -> None:
    work.tensorflow_csv(root / "train")
    work.tensorflow_csv(root / "valid")


def one_table(root: Path) -> None:
    work.pictures(root / "images")
    rows = [
        f"images/{name};{label};{x};{y};{w};{h};{split}"
        for split in ("train", "valid") for name, objects in work.BOXES.items() for label, (x, y, w, h) in objects
    ]  # fmt: skip
    work.text(root / "labels.csv", "\n".join(["image;category;x;y;width;height;split", *rows]) + "\n")


def json_lines(root: Path) -> None:
    for split in ("train", "val"):
        work.pictures(root / split)
        work.text(root / f"{split}.jsonl", "".join(
            json.dumps({"file": f"{split}/{name}", "label": label, "x1": x, "y1": y, "x2": x + w, "y2": y + h}) + "\n"
            for name, objects in work.BOXES.items() for label, (x, y, w, h) in objects
        ))  # fmt: skip


def roboflow_voc(root: Path) -> None:
    work.flat_voc(root / "train")
    work.flat_voc(root / "valid")


def kaggle_voc(root: Path) -> None:
    work.pictures(root / "images/train")
    for name in work.BOXES:
        work.text(root / f"annotations/train/{Path(name).stem}.xml", work.voc_xml(name))


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid"):
        work.coco(root, f"{split}/_annotations.coco.json", split)


def cvat(root: Path) -> None:
    work.coco(root, "annotations/instances_default.json", "images")


LAYOUTS = {
    "yolo yaml": (yolo_yaml, "yolo", 5e-5), "yolo roboflow": (work.roboflow_yolo, "yolo", 5e-5),
    "yolo classes.txt": (darknet, "yolo", 5e-5), "yolo list": (lists, "yolo", 5e-5),
    "labelme": (labelme, "labelme", 0), "label studio": (label_studio, "labelstudio", 1e-13),
    "csv roboflow": (roboflow_csv, "csv", 0), "csv one table": (one_table, "csv", 0), "json lines": (json_lines, "csv", 0),
    "voc roboflow": (roboflow_voc, "voc", 0), "coco roboflow": (roboflow_coco, "coco", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_boxes_are_read_from_each_tool(tmp_path, name):
    write, form, near = LAYOUTS[name]
    write(tmp_path / "data")
    assert format_of(tmp_path / "data") == form
    same(split_of(tmp_path / "data", form), near)
    assert check(tmp_path / "data", loaders=0, progress=False).problems == []


@pytest.mark.parametrize(("write", "form"), [(kaggle_voc, "voc"), (cvat, "coco"), (lambda r: work.labelme(r), "labelme"),
                                             (lambda r: work.flat_voc(r), "voc")])  # fmt: skip
def test_what_is_not_split_is_divided_by_a_share(tmp_path, write, form):
    write(tmp_path / "data")
    assert format_of(tmp_path / "data") == form
    with pytest.raises(DataError, match=r"val=0\.2"):
        split_of(tmp_path / "data", form)
    halves = [split_of(tmp_path / "data", form, split, val=("0.34",)) for split in ("train", "val")]
    ids = [[samples.id(i) for i in range(len(samples))] for samples in halves]
    assert len(ids[0]) == 2 and len(ids[1]) == 1 and not {*ids[0]} & {*ids[1]}
    with pytest.raises(DataError, match=r"val=1\.5: the share to hold out"):
        split_of(tmp_path / "data", form, val=("1.5",))


def test_a_share_beside_a_split_is_refused(tmp_path):
    yolo_yaml(tmp_path / "data")
    with pytest.raises(DataError, match=r"has a val of its own; leave val= out"):
        split_of(tmp_path / "data", "yolo", val=("0.2",))


def test_boxes_counted_from_0_are_read_by_origin_and_remarked(tmp_path):
    work.flat_voc(tmp_path / "data/train", origin=0)
    same(split_of(tmp_path / "data", "voc", origin=0))
    remarks = split_of(tmp_path / "data", "voc").remarks()
    assert "xmin or ymin is 0 in 1 box, and VOC counts from 1: origin=0 reads boxes that are counted from 0" in remarks
    with pytest.raises(DataError, match="origin: data of format=yolo has no use for this"):
        split_of(tmp_path / "data", "yolo", origin=0)


def test_boxes_that_are_shares_are_told(tmp_path):
    work.pictures(tmp_path / "images")
    work.text(tmp_path / "train.csv", "file,label,xmin,ymin,xmax,ymax\na.jpg,ant,0.1,0.1,0.5,0.5\n")
    with pytest.raises(DataError, match="all boxes lie between 0 and 1: shares of the pictures' sides"):
        split_of(tmp_path, "csv")


def test_rows_of_a_split_that_nobody_knows_are_refused(tmp_path):
    work.pictures(tmp_path / "images")
    rows = "a.jpg,ant,1,2,3,4,train\nb.jpg,ant,1,2,3,4,holdout\n"
    work.text(tmp_path / "all.csv", f"file,label,x,y,width,height,split\n{rows}")
    with pytest.raises(DataError, match="line 3: split='holdout': expected one of train"):
        split_of(tmp_path, "csv")


# LabelMe


def test_shapes_of_labelme(tmp_path):
    labelme_of(
        tmp_path / "train",
        shape("ant", [[1, 2], [11, 2], [11, 22]]),
        shape("bee", [[50, 30], [50, 40]], "circle"),
        shape("ant", [[20, 20], [30, 20], [30, 30]], group_id=7), shape("ant", [[40, 40], [44, 40], [44, 48]], group_id=7),
        shape("ant", [[5, 5]], "point"), shape("ant", [[5, 5], [6, 6]], "line"),
        shape("__ignore__", [[1, 2], [11, 2], [11, 22]]),
    )  # fmt: skip
    samples = split_of(tmp_path, "labelme", head="mask_rcnn")
    assert samples.index.boxes.tolist() == [[1, 2, 10, 20], [40, 20, 20, 20], [20, 20, 24, 28]]
    assert samples.index.segmentation(2) == [[20, 20, 30, 20, 30, 30], [40, 40, 44, 40, 44, 48]]
    said = "\n".join(samples.remarks())
    for part in ("shapes of one group joined to an object in 1 shape", "a point, which has no area, left out in 1 shape",
                 "a line, which has no area, left out in 1 shape", "shapes called __ignore__ left out in 1 shape"):  # fmt: skip
        assert part in said


def test_a_mask_of_labelme_is_placed_in_its_picture(tmp_path):
    import base64
    import io

    inside = np.zeros((5, 4), np.uint8)
    inside[1:3, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(inside).save(buffer, "PNG")
    code = base64.b64encode(buffer.getvalue()).decode()
    labelme_of(tmp_path / "train", shape("ant", [[10, 20], [13, 24]], "mask", mask=code))
    mask = split_of(tmp_path, "labelme", head="mask_rcnn")[0].targets["masks"][0].numpy()
    assert sorted(map(tuple, np.argwhere(mask))) == [(21, 12), (22, 12)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (shape("ant", [[1, 2], [3, 4]]), r"shape 1 \(ant\): a polygon of 2 points"),
        (shape("ant", [[1, 2]], "rectangle"), "a rectangle of 1 point"),
        ({"label": "ant"}, "is not of LabelMe's format"),
    ],
)  # fmt: skip
def test_wrong_shapes_of_labelme(tmp_path, given, said):
    labelme_of(tmp_path / "train", given)
    with pytest.raises(DataError, match=said):
        split_of(tmp_path, "labelme")


# Label Studio


def task_of(*results: dict, people=((1, 10),), **more) -> dict:
    annotations = [
        {"id": n, "completed_by": {"id": who, "email": f"p{who}@example.org"}, "result": list(results)}
        for who, n in people
    ]
    return {"id": 5, "data": {"image": "https://example.org/x/a.jpg?token=1"}, "annotations": annotations, **more}


def region(kind: str = "rectanglelabels", labels=("ant",), **value) -> dict:
    usual = {"x": 25.0, "y": 25.0, "width": 50.0, "height": 50.0, "rotation": 0}
    return {"type": kind, "original_width": 96, "original_height": 64, "value": {**usual, **value, kind: list(labels)}}


def studio(root: Path, *tasks: dict) -> Path:
    work.pictures(root / "images", ("a.jpg",))
    work.text(root / "train.json", json.dumps(list(tasks)))
    return root


def test_regions_of_label_studio(tmp_path):
    polygon = region("polygonlabels", points=[[0, 0], [50, 0], [50, 50]])
    ellipse = region("ellipselabels", x=50, y=50, radiusX=25, radiusY=12.5)
    studio(tmp_path, task_of(region(), polygon, ellipse, {"type": "choices", "value": {"choices": ["x"]}}))
    samples = split_of(tmp_path, "labelstudio")
    assert np.allclose(samples.index.boxes, [[24, 16, 48, 32], [0, 0, 48, 32], [24, 24, 48, 16]])
    assert any(
        "a region of choices, which is no object with a label, left out in 1 region" in r for r in samples.remarks()
    )


def test_rotated_boxes_are_enclosed_on_demand_alone(tmp_path):
    studio(tmp_path, task_of(region(rotation=90)))
    with pytest.raises(DataError, match=r"task 5: a box rotated by 90 degrees: rotated=enclose takes the upright box"):
        split_of(tmp_path, "labelstudio")
    # turned clockwise about its upper left corner at 24, 16: it then lies to the left and below
    assert np.allclose(split_of(tmp_path, "labelstudio", rotated="enclose").index.boxes, [[24 - 32, 16, 32, 48]])


def test_shapes_and_labels_that_are_said_apart_are_joined_by_their_id(tmp_path):
    shape = {**region(), "type": "rectangle", "id": "x"}
    shape["value"] = {k: v for k, v in shape["value"].items() if k != "rectanglelabels"}
    studio(tmp_path, task_of(shape, {"type": "labels", "id": "x", "value": {"labels": ["bee"], "x": 1}}))
    samples = split_of(tmp_path, "labelstudio")
    assert (
        samples.classes == ("bee",) and samples.index.boxes.tolist() == [[24, 16, 48, 32]] and not samples.index.notes
    )


def test_two_pictures_of_one_name_are_both_named(tmp_path):
    studio(tmp_path, task_of(region()))
    work.pictures(tmp_path / "other", ("a.jpg",))
    with pytest.raises(DataError, match=r"may be images/a\.jpg or other/a\.jpg: leave one"):
        split_of(tmp_path, "labelstudio")


def test_several_people_are_chosen_from(tmp_path):
    task = task_of(region(), people=((1, 10), (2, 11)))
    task["annotations"][1]["result"] = [region(labels=["bee"])]
    studio(tmp_path, task)
    with pytest.raises(DataError, match=r"2 annotations, of 1, 2, p1@example.org, p2@example.org: say whose count"):
        split_of(tmp_path, "labelstudio")
    for annotator, name in (("first", "ant"), ("last", "bee"), ("2", "bee"), ("p1@example.org", "ant")):
        assert split_of(tmp_path, "labelstudio", annotator=annotator).classes == (name,)
    with pytest.raises(DataError, match="annotator=9: 0 annotations"):
        split_of(tmp_path, "labelstudio", annotator="9")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (task_of(region(labels=["ant", "bee"])), r"a rectangle with 2 labels \(ant, bee\); expected one"),
        (task_of({**region(), "image_rotation": 90}), "image_rotation=90"),
        (task_of(region("brushlabels")), "brush masks are not read"),
        (task_of(region(), data={"image": "/data/upload/1/other.jpg"}), "there is no picture /data/upload/1/other.jpg"),
        (task_of(region(), data={"image": "/data/local-files/?d=../../a.jpg"}), "there is no picture"),
        ({"id": 1, "image": "a.jpg", "label": []}, "JSON-MIN"),
    ],
)  # fmt: skip
def test_wrong_tasks_of_label_studio(tmp_path, task, said):
    studio(tmp_path, task)
    with pytest.raises(DataError, match=said):
        split_of(tmp_path, "labelstudio")


# Tables


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("label,x,y,width,height\nant,1,2,3,4\n", "has no column of files"),
        ("file,label\na.jpg,ant\n", "has no columns of a box"),
        ("file,filename,label,x,y,width,height\n", "several columns of files: file, filename"),
        ("file,label,xmin,ymin,xmax,ymax,x,y\n", "two kinds of boxes; leave one"),
        ("file,label,x,y,width,height\na.jpg,ant,1,2,3,x\n", "line 2: height='x': expected a number"),
        ("file,label,x,y,width,height\na.jpg,ant,1,2,3\n", "line 2: expected 6 cells"),
        ("file,label,x,y,width,height\na.jpg,,1,2,3,4\n", "line 2: a box without a label"),
        ("file,label,x,y,width,height\na.jpg,ant,1,2,,4\n", "line 2: a box with 1 empty cells"),
        ("file,label,x,y,width,height\nz.jpg,ant,1,2,3,4\n", "line 2: there is no picture z.jpg"),
        ("file,label,x,y,width,height\n../a.jpg,ant,1,2,3,nan\n", "line 2: height='nan'"),
        ("file,label,x,x,width,height\n", "two columns are called x"),
        ("file,label,x,y,width,height,split\na.jpg,ant,1,2,3,4,val\n", "line 2: split=val in the table of train"),
    ],
)  # fmt: skip
def test_wrong_tables(tmp_path, table, said):
    work.pictures(tmp_path / "images", ("a.jpg",))
    work.text(tmp_path / "train.csv", table)
    with pytest.raises(DataError) as error:
        split_of(tmp_path, "csv")
    assert said in str(error.value)


def numbered(root: Path, labels, split="train") -> Path:
    """A table of boxes with these labels."""
    pictures = [*work.SIZES] * 2
    work.pictures(root)
    rows = [f"{name},{label},1,2,9,9" for name, label in zip(pictures, labels, strict=False)]
    work.text(root / f"{split}.csv", "\n".join(["file,label,xmin,ymin,xmax,ymax", *rows]))
    return root


def test_labels_that_are_one_number_in_two_spellings_are_refused_and_floats_of_all_counted(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv: lines 2 and 4: the labels '1' and '1.0' are one number"):
        work.split_of(numbered(tmp_path / "two", ("1", "2", "1.0")), "csv")
    found = work.split_of(numbered(tmp_path / "floats", ("1.0", "0.0", "1.0", "10.0")), "csv")
    assert found.classes == ("0", "1", "10") and found.index.labels.tolist() == [1, 2, 0, 1]
    assert any(r.endswith("train.csv: labels written as 1.0 taken as 1 in 4 rows") for r in found.remarks())
    mixed = work.split_of(numbered(tmp_path / "mixed", ("1.0", "2.5", "v1.0")), "csv")
    assert mixed.classes == ("1.0", "2.5", "v1.0")


def test_blanks_around_labels_are_taken_off_and_counted_or_refused(tmp_path):
    box = [[1, 2], [9, 9]]
    work.labelme_of(tmp_path / "data/train", work.shape("bee ", box, "rectangle"), work.shape("bee", box, "rectangle"))
    found = work.split_of(tmp_path / "data", "labelme")
    assert found.classes == ("bee",) and len(found.index.labels) == 2
    assert any(r.endswith("labels with blanks around them taken without in 1 shape") for r in found.remarks())
    work.coco(tmp_path / "coco", "annotations/instances_train.json", "images")
    file = tmp_path / "coco/annotations/instances_train.json"
    file.write_text(file.read_text().replace('"ant"', '"bee "'))
    with pytest.raises(DataError, match="the categories 'bee ' and 'bee' differ in blanks alone"):
        work.split_of(tmp_path / "coco", "coco")


@pytest.mark.parametrize("form", ["yolo", "voc", "labelme", "labelstudio", "csv"])
def test_the_format_that_a_folder_shows_is_in_the_message(tmp_path, form):
    writers = {"yolo": yolo_yaml, "labelme": labelme, "labelstudio": label_studio,
               "voc": lambda root: [work.flat_voc(root / split) for split in ("train", "val")],
               "csv": lambda root: [work.tensorflow_csv(root / split) for split in ("train", "val")]}  # fmt: skip
    writers[form](tmp_path)
    with pytest.raises(DataError, match=f"it looks like format={form}: give that"):
        split_of(tmp_path, "coco")
    split_of(tmp_path, form)


@pytest.mark.parametrize("form", ["labelme", "labelstudio"])
def test_a_damaged_file_does_not_hide_the_format(tmp_path, form):
    if form == "labelme":
        labelme_of(tmp_path / "train", shape("ant", [[1, 2], [9, 9]], "rectangle"))
        file = tmp_path / "train/a.json"
    else:
        work.label_studio(tmp_path, "train")
        file = tmp_path / "train.json"
    file.write_text(file.read_text()[:-9])
    assert format_of(tmp_path) == form
    with pytest.raises(DataError, match=file.name):
        split_of(tmp_path, form)


def test_labels_that_are_numbers_are_text_and_counted(tmp_path):
    box = [[1, 2], [9, 9]]
    labelme_of(tmp_path / "data/train", shape(3, box, "rectangle"), shape("3", box, "rectangle"))
    found = split_of(tmp_path / "data", "labelme")
    assert found.classes == ("3",) and len(found.index.labels) == 2
    assert any(r.endswith("labels that are numbers taken as text in 1 shape") for r in found.remarks())
    work.coco(tmp_path / "coco", "annotations/instances_train.json", "images")
    file = tmp_path / "coco/annotations/instances_train.json"
    text = file.read_text()
    file.write_text(text.replace('"ant"', "1"))
    found = split_of(tmp_path / "coco", "coco")
    assert found.classes == ("1", "bee")
    assert f"{file}: name: numbers taken as text in 1 category" in found.remarks()
    file.write_text(text.replace('"ant"', "[1]"))
    with pytest.raises(DataError, match="expected `str`, got `array`; write text, in quotation marks"):
        split_of(tmp_path / "coco", "coco")


def test_what_is_wrong_with_a_file_of_labelme_is_said_in_plain_words(tmp_path):
    labelme_of(tmp_path / "data/train", shape("ant", "none"))
    said = "a.json: is not of LabelMe's format (shapes[0].points: expected a list, found text); open it in LabelMe"
    with pytest.raises(DataError, match=re.escape(said)):
        split_of(tmp_path / "data", "labelme")


def test_names_of_yolo_with_numbers_before_them_are_refused(tmp_path):
    darknet(tmp_path)
    work.text(tmp_path / "classes.txt", "0: ant\n1: bee\n")
    with pytest.raises(DataError, match=r"classes\.txt: '0: ant': expected a name a line alone"):
        split_of(tmp_path, "yolo")
