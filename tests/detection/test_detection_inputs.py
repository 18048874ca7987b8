"""Wrong data of detection: every file and object by its name, whoever meets it first."""

# ruff: noqa: F811 - pytest finds fixtures by the names that are imported

import json
from pathlib import Path

import pytest
from box_work import SHORT, SLIM, SLIM_CONV, boxes, change, options, own_cache, written  # noqa: F401

from trunkline.ground.errors import DataError
from trunkline.pipelines.command.cli import main
from trunkline.tasks.detection.splits import read_split

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.usefixtures("one_core")


RLE = "expected polygons or a run-length code"
WRONG = [
    (lambda d: d["annotations"][1].update(bbox=[3, 3, 0, 5]), "1 box without area, or outside the picture"),
    (lambda d: d["annotations"][1].update(bbox=[70, 3, 5, 5]), "id 2, x, y, width, height 70, 3, 5, 5"),
    (
        lambda d: d["annotations"][1].update(segmentation=[[1, 2, 3, 4]]),
        ": segmentation: a polygon of 4 numbers",
    ),
    (
        lambda d: d["annotations"][1]["segmentation"].update(size=[64, 32]),
        ": segmentation: a run-length code of 64 x 32",
    ),
    (lambda d: d["annotations"][1].pop("segmentation"), f": segmentation: has no mask; {RLE}"),
    (
        lambda d: d["annotations"][1].update(category_id=44),
        "annotation 2: category_id=44 is not among the file's categories",
    ),
    (lambda d: d["annotations"][1].update(id=1), "annotations: the id 1 occurs more than once"),
    (lambda d: d["categories"][1].update(name="circle"), "two categories are called circle"),
    (lambda d: d["images"][0].update(file_name="nothing.jpg"), "nothing.jpg: cannot be read"),
    (lambda d: d["images"][0].update(file_name="../../etc/passwd"), "leaves the folder of images"),
    (lambda d: d["images"][0].update(file_name="/etc/passwd"), "leaves the folder of images"),
    (lambda d: d["annotations"].clear(), "the train split has no picture with objects"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_coco_data_stops_the_run_by_name(boxes, tmp_path, capsys, edit, said):
    change(boxes, edit)
    short = [w for w in [*SHORT, *SLIM, "head=mask_rcnn"] if w != "updates=2"]
    assert main(["train", "detect", f"data={boxes}", "--run", str(tmp_path / "run"), *short, "updates=6"]) == 2
    heard = capsys.readouterr().err
    assert said in heard and "Traceback" not in heard


def test_a_picture_of_another_size_than_annotated(boxes, tmp_path, capsys):
    change(boxes, lambda d: [image.update(width=32) for image in d["images"]])
    words = ["train", "detect", f"data={boxes}", "on_bad_box=skip", "--run", str(tmp_path / "run"), *SHORT, *SLIM_CONV]
    assert main(words) == 2
    heard = capsys.readouterr().err
    assert "is 64 x 64 pixels; its annotation says 32 x 64" in heard and "JPEGImages/train_" in heard


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        (
            "Annotations/train_00000.xml",
            lambda t: t.replace("<xmin>", "<xmin>9").replace("<xmax>", "<xmax>9"),
            "outside the picture",
        ),
        ("Annotations/train_00000.xml", lambda t: t[:90], "train_00000.xml: is no XML"),
        ("Annotations/train_00000.xml", lambda t: '<!DOCTYPE x [<!ENTITY a "b">]>' + t, "which are not read"),
        (
            "Annotations/train_00000.xml",
            lambda t: t.replace("<width>64", "<width>1e300"),
            "train_00000.xml: width='1e300'",
        ),
        (
            "Annotations/train_00000.xml",
            lambda t: t.replace("<width>64", "<width>64.5"),
            "width=64.5 is no whole number",
        ),
        ("ImageSets/Main/train.txt", lambda t: t + "train_00000\n", "train_00000 for the second time"),
        ("ImageSets/Main/train.txt", lambda t: t + "nothing\n", "nothing.xml: cannot be read"),
        ("ImageSets/Main/val.txt", lambda t: "", "val.txt: names no image"),
    ],
)
def test_wrong_voc_data_stops_the_run_by_name(boxes, tmp_path, capsys, file, edit, said):
    (boxes / file).write_text(edit((boxes / file).read_text()))
    assert (
        main(["train", "detect", f"data={boxes}", "format=voc", "--run", str(tmp_path / "run"), *SHORT, *SLIM_CONV])
        == 2
    )
    heard = capsys.readouterr().err
    assert said in heard and "Traceback" not in heard


def test_bad_boxes_are_left_out_where_asked(boxes, tmp_path, capsys):
    change(boxes, lambda d: d["annotations"][1].update(bbox=[3, 3, 0, 5]))
    words = ["train", "detect", f"data={boxes}", "--run", str(tmp_path / "run"), *SHORT, *SLIM_CONV]
    assert main(words) == 2
    assert "on_bad_box=skip" in capsys.readouterr().err
    assert main([*words, "on_bad_box=skip"]) == 0
    assert "train: left out 1 box without area or outside the picture: train_00001.jpg" in capsys.readouterr().err
    assert main(["check", str(boxes)]) == 2
    assert "a box without area or outside" in capsys.readouterr().out


def test_check_says_what_is_odd(boxes, capsys):
    def edit(document):
        rows = document["annotations"]
        rows.append(rows[0] | {"id": 900})
        rows[2]["bbox"] = [0, 0, 60, 60]

    change(boxes, edit)
    assert main(["check", str(boxes)]) == 0
    said = capsys.readouterr().out
    assert "the same object twice" in said and "a mask and a box that differ by" in said and "6 classes" in said
    assert main(["check", str(boxes), "format=voc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_one_picture_for_two_images_is_refused(boxes):
    change(boxes, lambda d: d["images"][1].update(file_name=d["images"][0]["file_name"]))
    with pytest.raises(DataError, match=r"several images have the picture train_00000\.jpg"):
        read_split(options(boxes), "train")


def test_a_name_that_no_file_can_have_is_refused(boxes):
    change(boxes, lambda d: d["images"][1].update(file_name="a\0.jpg"))
    with pytest.raises(DataError, match="or is no name"):
        read_split(options(boxes), "train")


def test_check_says_when_nothing_can_be_trained_on(boxes, capsys):
    change(boxes, lambda d: d["annotations"].clear())
    assert main(["check", str(boxes)]) == 2
    assert "no picture has an object that could be trained on" in capsys.readouterr().out


@pytest.mark.parametrize("box", [[63.9999999, 10, 5, 5], [10, 10, 1e-7, 5], [-5, 10, 5.001, 5]])
def test_a_box_that_is_too_narrow_for_fp32_has_no_area(boxes, box):
    change(boxes, lambda d: d["annotations"][1].update(bbox=box))
    with pytest.raises(DataError, match="1 box without area"):
        read_split(options(boxes), "train")
    assert read_split(options(boxes, on_bad_box="skip"), "train").remarks()


def test_a_damaged_index_is_made_again(boxes, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    first = read_split(options(boxes), "train")
    file, fingerprint = Path(first.index.folder) / "boxes.npy", first.fingerprint()
    whole = file.read_bytes()
    del first  # it is mapped from the file
    for damage in (b"", whole[:50], whole[:-8], b"nonsense"):
        file.write_bytes(damage)
        assert read_split(options(boxes), "train").fingerprint() == fingerprint
        assert file.read_bytes() == whole
