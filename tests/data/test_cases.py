"""What labelling tools and people make of the same data: each oddity in every reader that can meet it, with the right boxes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from case_work import (
    ANT,
    BEE,
    HEIGHT,
    SPLITS,
    WIDTH,
    coco_file,
    corners,
    labelme_files,
    photo,
    studio_files,
    table,
    voc_files,
    yolo_files,
)
from label_work import shape, split_of, text
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.pipelines.score.score_coco import coco
from trunkline.pipelines.score.score_voc import voc
from trunkline.tasks.check import check
from trunkline.tasks.classification.folders import read_folders
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.splits import read_split
from trunkline.tasks.segmentation.options import Options as PixelOptions
from trunkline.tasks.segmentation.splits import read_split as read_pixels

pytest.importorskip("pycocotools")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path_factory.mktemp("cache")))


@dataclass(frozen=True)
class Case:
    """An oddity in a reader: what writes it, the lines that say it (none: it needs none), and what is left of two objects."""

    write: Callable[..., None]
    form: str
    given: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    flags: tuple[int, ...] = (0, 0)


SLASHES, FOLDERS = "backslashes taken as slashes in 1", "folders before the picture left out in 1"
CASES = {
    "words: coco true": Case(
        coco_file, "coco", {"crowd": True}, "iscrowd: true/false taken as 1/0 in 1 annotation", (1, 0)
    ),
    "words: coco text": Case(
        coco_file, "coco", {"crowd": "true"}, "iscrowd: the words true/false taken as 1/0 in 1 annot", (1, 0)
    ),
    "words: coco 1.0": Case(
        coco_file, "coco", {"crowd": 1.0}, "iscrowd: numbers written as 1.0 taken as 1 in 1 annot", (1, 0)
    ),
    "words: voc": Case(voc_files, "voc", {"difficult": "True"}, "difficult and truncated: words (true, false", (1, 0)),
    "words: table": Case(
        table,
        "csv",
        {"more": (",iscrowd", ",true", ",no")},
        "iscrowd: words (true, false, yes, no) taken as 1/0 in 2 rows",
        (1, 0),
    ),
    "words: label studio": Case(
        studio_files, "labelstudio", {"cancelled": "false"}, "was_cancelled: words (true, false"
    ),
    "text: labelme": Case(
        labelme_files, "labelme", {"imageWidth": "96"}, "imageWidth: numbers written as text taken as numbers in 1"
    ),
    "text: label studio": Case(
        studio_files, "labelstudio", {"kind": str}, "numbers written as text taken as numbers in 16 numbers"
    ),
    "windows: coco": Case(coco_file, "coco", {"said": r"C:\pics\a.jpg"}, FOLDERS),
    "windows: voc's filename": Case(voc_files, "voc", {"said": r"C:\pics\a.jpg"}),
    "windows: voc's list": Case(
        voc_files, "voc", {"listed": r"C:\pics\a.jpg"}, "folders or suffixes in a list of names: left out in 1"
    ),
    "windows: yolo's list": Case(yolo_files, "yolo", {"listed": r"images\{}\a.jpg"}, SLASHES),
    "windows: yolo's list, far": Case(yolo_files, "yolo", {"listed": r"D:\me\images\{}\a.jpg"}, FOLDERS),
    "windows: yolo's data.yaml": Case(
        yolo_files, "yolo", {"yaml": r"images\{}"}, "paths with backslashes: taken as slashes in 1 path"
    ),
    "windows: labelme": Case(
        labelme_files, "labelme", {"said": r"..\pics\a.jpg"}, "imagePath: the picture beside the file taken in 1"
    ),
    "windows: label studio": Case(studio_files, "labelstudio", {"said": "/data/local-files/?d=pics%5Ca.jpg"}, SLASHES),
    "windows: table": Case(table, "csv", {"said": r"C:\pics\a.jpg"}, FOLDERS),
    "windows: table, near": Case(table, "csv", {"said": r"images\a.jpg"}, SLASHES),
    "crowd: coco": Case(
        coco_file, "coco", {"crowd": 1}, "1 of 2 objects are crowds (iscrowd=1), which are not trained on", (1, 0)
    ),
    "crowd: table": Case(
        table, "csv", {"more": (",iscrowd", ",1", ",0")}, "1 of 2 objects are crowds (iscrowd=1)", (1, 0)
    ),
    "crowd: voc": Case(
        voc_files, "voc", {"difficult": 1}, "1 of 2 objects are difficult, which are trained on and not scored", (1, 0)
    ),
    "crowd: labelme": Case(
        labelme_files,
        "labelme",
        {"more": (shape("bee", corners(ANT), difficult=True),)},
        "`difficult` is not read: 1 shape",
        (0, 0, 0),
    ),
    "crowd: table's difficult": Case(
        table, "csv", {"more": (",difficult", ",1", ",0")}, "the column difficult is not read"
    ),
    "size: coco": Case(coco_file, "coco", {"side": {}}, "width and height: absent in 1 image"),
    "size: coco 0": Case(
        coco_file, "coco", {"side": {"width": 0, "height": 0}}, "width and height: 0, taken as not said in 1 image"
    ),
    "size: voc": Case(voc_files, "voc", {"size": ""}, "<size>: absent or 0, taken from the picture in 1 file"),
    "size: labelme": Case(
        labelme_files, "labelme", {"imageWidth": None, "imageHeight": 0}, "imageWidth and imageHeight: absent or 0"
    ),
    "size: label studio": Case(
        studio_files, "labelstudio", {"size": False}, "original_width and original_height: absent or 0, taken from"
    ),
    "size: table": Case(
        table,
        "csv",
        {"more": (",image_width,image_height", ",96,64", ",,")},
        "width and height: empty or 0, taken from other rows or the picture in 1 row",
    ),
    "spaces: coco": Case(coco_file, "coco", {"on_disk": "my photo 1.jpg", "said": "my photo 1.jpg"}),
    "spaces: voc": Case(voc_files, "voc", {"on_disk": "my photo 1.jpg", "listed": "my photo 1", "said": "x.jpg"}),
    "spaces: yolo": Case(yolo_files, "yolo", {"on_disk": "my photo 1.jpg"}),
    "spaces: yolo's list": Case(
        yolo_files, "yolo", {"on_disk": "my photo 1.jpg", "listed": "images/{}/my photo 1.jpg"}
    ),
    "spaces: labelme": Case(labelme_files, "labelme", {"on_disk": "my photo 1.jpg", "said": "my photo 1.jpg"}),
    "spaces: label studio": Case(
        studio_files, "labelstudio", {"on_disk": "my photo 1.jpg", "said": "/data/upload/1/my%20photo%201.jpg"}
    ),
    "spaces: table": Case(table, "csv", {"on_disk": "my photo 1.jpg", "said": "my photo 1.jpg"}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_reader_reads_an_oddity_to_the_same_boxes_and_says_it_once(tmp_path, name):
    case, root = CASES[name], tmp_path / "data"
    case.write(root, **case.given)
    samples = split_of(root, case.form)
    assert samples.classes == ("ant", "bee")
    assert np.abs(samples.index.boxes[:2] - [ANT, BEE]).max() < 1e-5
    assert samples.index.flags.tolist() == list(case.flags)
    trained = samples[0].targets["labels"].tolist()
    assert trained == ([1] if case.flags[0] and case.form != "voc" else [0, 1, 1][: len(case.flags)])
    assert sum(case.said in line for line in samples.remarks()) == 1 or not case.said
    found = check(root, format=case.form, loaders=0, progress=False)
    assert found.ok, found.problems
    for split in SPLITS:
        own = [odd["what"] for odd in found.oddities if odd["file"] == split]
        assert sum(case.said in line for line in own) == 1 or not case.said
        assert len(own) == len({*own}) and (case.said or not own)


DEGENERATE = {
    "coco: two points": Case(coco_file, "coco", {"ant": [[10, 20, 30, 40]]}, "a polygon of 4 numbers"),
    "coco: none": Case(coco_file, "coco", {"ant": []}, "has no polygon"),
    "voc: a pixel": Case(
        voc_files, "voc", {"ant": (10, 20, 1, 1)}, "a.jpg: ant, id 1, xmin, ymin, xmax, ymax 11, 21, 11, 21"
    ),
    "yolo: a point": Case(yolo_files, "yolo-seg", {"ant": "0.1 0.1"}, "a.txt: line 1: a polygon of 1 point"),
    "labelme: two points": Case(
        labelme_files, "labelme", {"ant": [[10, 20], [30, 40]]}, "a.json: shape 1 (ant): a polygon of 2 points"
    ),
    "labelme: none": Case(labelme_files, "labelme", {"ant": []}, "a.json: shape 1 (ant): a polygon of 0 points"),
    "label studio: two": Case(studio_files, "labelstudio", {"ant": [[10, 20], [30, 40]]}, "a polygon of 2 points"),
    "label studio: none": Case(studio_files, "labelstudio", {"ant": []}, "a polygon of 0 points"),
    "table: no width": Case(table, "csv", {"ant": (10, 20, 0, 4)}, "ant, id 1, x, y, width, height 10, 20, 0, 4"),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_objects_stop_or_are_left_out_in_every_format(tmp_path, name):
    case, root = DEGENERATE[name], tmp_path / "data"
    case.write(root, **case.given)
    head = "faster_rcnn" if case.form in ("voc", "csv") else "mask_rcnn"
    with pytest.raises(DataError) as error:
        split_of(root, case.form, head=head)
    said = str(error.value)
    assert (
        case.said in said and said.count("ant, id 1") == 1 and said.endswith("or leave them out with on_bad_box=skip")
    )
    samples = split_of(root, case.form, head=head, on_bad_box="skip")
    sample = samples[0]
    assert sample.targets["labels"].tolist() == [1]
    if head == "mask_rcnn":
        assert sample.targets["masks"].sum() == BEE[2] * BEE[3]
    assert any(line.startswith("left out 1 box") for line in samples.remarks())
    found = check(root, format=case.form, loaders=0, progress=False)
    assert [case.said in p["what"] and p["skip"] == "on_bad_box=skip" for p in found.problems] == [True, True]
    assert found.files in (1, 2), "everything else is looked at too"


def test_of_a_group_of_labelme_the_part_that_encloses_something_is_kept(tmp_path):
    """As of COCO's polygons: the object keeps its whole polygon, and a line says it."""
    two = shape("ant", [[1, 1], [2, 2]], group_id=1)
    labelme_files(tmp_path, more=(two,))
    with pytest.raises(DataError, match=r"in part: .*a\.json: shape 3 \(ant\): a polygon of 2 points"):
        split_of(tmp_path, "labelme")
    samples = split_of(tmp_path, "labelme", head="mask_rcnn", on_bad_box="skip")
    assert samples.index.boxes.tolist() == [[*ANT], [*BEE]] and samples[0].targets["labels"].tolist() == [0, 1]
    assert "left out what is degenerate in the masks of 1 object, of which the rest is kept" in samples.remarks()


REFUSED = {
    "a list's two names of one picture": (
        yolo_files,
        "yolo",
        {"listed": "images/{0}/a.jpg\nx/images/{0}/a.jpg"},
        "leads to the picture",
    ),
    "a flag that is none": (
        studio_files,
        "labelstudio",
        {"cancelled": "perhaps"},
        "was_cancelled='perhaps': expected true or false",
    ),
    "a number that is a bool": (
        studio_files,
        "labelstudio",
        {"kind": bool},
        "its value has True where a number was expected",
    ),
    "a crowd that is none": (
        table,
        "csv",
        {"more": (",iscrowd", ",maybe", ",0")},
        "line 2: iscrowd='maybe': expected 0 or 1",
    ),
    "a side that is none": (
        labelme_files,
        "labelme",
        {"imageWidth": "wide"},
        "imageWidth='wide': expected a whole number of pixels",
    ),
    "half a pixel": (labelme_files, "labelme", {"imageWidth": 96.5}, "imageWidth=96.5: expected a whole number"),
    "two sizes": (
        table,
        "csv",
        {"more": (",image_width,image_height", ",96,64", ",95,64")},
        "a.jpg is 95 x 64 pixels; it was 96 x 64",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_two_meanings_or_none_is_refused_by_name(tmp_path, name):
    write, form, given, said = REFUSED[name]
    write(tmp_path, **given)
    with pytest.raises(DataError) as error:
        split_of(tmp_path, form)
    assert said in str(error.value)


def test_two_names_of_a_table_that_lead_to_one_picture_are_refused(tmp_path):
    table(tmp_path)
    text(tmp_path / "train.csv", "file,label,x,y,width,height\nu/a.jpg,ant,1,2,3,4\nv/a.jpg,ant,1,2,3,4\n")
    with pytest.raises(DataError, match=r"u/a\.jpg and v/a\.jpg lead to one picture, images/a\.jpg"):
        split_of(tmp_path, "csv")


def test_a_line_that_stands_in_a_list_twice_is_taken_once_and_counted(tmp_path):
    yolo_files(tmp_path, listed="images/{0}/a.jpg\nimages/{0}/a.jpg")
    samples = split_of(tmp_path, "yolo")
    assert len(samples) == 1 and any(
        "lines that stand in a list twice: taken once in 1 line" in r for r in samples.remarks()
    )


def test_objects_without_a_mask_beside_others_train_a_detector_of_boxes(tmp_path):
    """A look at the folder says what a head of masks needs, and no problem where boxes train."""
    labelme_files(tmp_path, more=(shape("bee", [[1, 1], [9, 9]], "rectangle"),))
    found = check(tmp_path, loaders=0, progress=False)
    assert found.ok and split_of(tmp_path, "labelme")[0].targets["labels"].tolist() == [0, 1, 1]
    said = [odd["what"] for odd in found.oddities if odd["file"] == "train"]
    assert said == ["1 object without a mask: head=mask_rcnn trains with on_bad_box=skip, which leaves them out"]


def test_names_with_spaces_of_pairs_and_class_folders(tmp_path):
    for split in SPLITS:
        photo(tmp_path / f"pairs/images/{split}/my photo 1.jpg")
        (tmp_path / f"pairs/masks/{split}").mkdir(parents=True)
        Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(tmp_path / f"pairs/masks/{split}/my photo 1.png")
        for name in ("red ant", "bee"):
            photo(tmp_path / f"photos/{split}/{name}/my photo 1.jpg")
    text(tmp_path / "pairs/classes.txt", "0 back ground\n1 line\n")
    pairs = read_pixels(PixelOptions(data=str(tmp_path / "pairs"), format="pairs"), "train")
    assert (
        pairs.id(0) == "train/my photo 1"
        and pairs.labels(0).sum() == HEIGHT
        and pairs.classes == ("back ground", "line")
    )
    assert {*read_folders(str(tmp_path / "photos"), "train").classes} == {"red ant", "bee"}


# The inputs of other people


def test_crowds_of_somebody(shared_data):
    half = read_split(Options(data=str(shared_data / "cases/02-crowds/half")), "train")
    assert len(half) == 3 and sum(len(half[i].targets["labels"]) for i in range(3)) == 6
    assert (
        sum("6 of 12 objects are crowds (iscrowd=1)" in r and "3 pictures have no other" in r for r in half.remarks())
        == 1
    )
    with pytest.raises(DataError, match="the train split has no picture with objects"):
        read_split(Options(data=str(shared_data / "cases/02-crowds/all")), "train")
    every = check(shared_data / "cases/02-crowds/all", loaders=0, progress=False)
    assert {p["what"] for p in every.problems} == {"no picture has an object that could be trained on"}
    assert sum("12 of 12 objects are crowds" in odd["what"] for odd in every.oddities) == 2


@pytest.mark.parametrize("name", ["B1-winpath", "B3-noext-png", "B3c-upper", "B3e-nofilename"])
def test_file_names_of_somebodys_voc(shared_data, name):
    folder, results = shared_data / "cases/04-voc-filename" / name, shared_data / "cases/10-voc-size-names/voc-res"
    found = check(folder, loaders=0, progress=False)
    assert found.ok and found.files == 10
    sample = read_split(Options(data=str(folder), format="voc"), "train")[1]
    assert sample.targets["boxes"].tolist() == [[14, 25, 38, 42], [1, 16, 30, 36]]
    assert voc(folder / "Annotations", results, list=folder / "ImageSets/Main/val.txt").metrics["mAP"] == pytest.approx(
        1
    )


def test_a_truth_of_somebody_whose_iscrowd_is_false(shared_data):
    folder = shared_data / "cases/05-bool-float"
    scored = coco(folder / "gt-bool.json", folder / "r.json")
    assert scored.metrics == coco(folder / "gt.json", folder / "r.json").metrics and scored.metrics["AP"] == 1
    assert sum("iscrowd: true/false taken as 1/0 in 12 annotations" in line for line in scored.warnings) == 1
    found = check(folder / "A1-bool", loaders=0, progress=False)
    assert found.ok and sum("in 12 annotations" in odd["what"] for odd in found.oddities) == 2


def test_degenerate_polygons_of_somebody(shared_data):
    folder = shared_data / "cases/06-degenerate/data"
    found = check(folder, loaders=0, progress=False)
    assert [f"id {i}," in p["what"] for i, p in zip((1, 2, 3) * 2, found.problems, strict=True)] == [True] * 6
    assert found.files == 12 and sum(found.counts["train"].values()) == 12
    samples = read_split(Options(data=str(folder), head="mask_rcnn", on_bad_box="skip"), "train")
    assert samples.bad.tolist() == [True, False, True, *[False] * 9]
    assert (
        samples.index.segmentation(1) == [[20, 20, 42, 20, 42, 43, 20, 43]]
        and samples[0].targets["masks"].sum() == 22 * 23
    )


@pytest.mark.parametrize("name", ["B5-nosize", "B6-space", "B15-truefalse"])
def test_sizes_names_and_words_of_somebodys_voc(shared_data, tmp_path, name):
    folder, results = shared_data / "cases/10-voc-size-names" / name, shared_data / "cases/10-voc-size-names/voc-res"
    if name == "B6-space":  # the same results, under these pictures' names
        for file in results.iterdir():
            text(tmp_path / file.name, file.read_text().replace("pv", "photo v"))
        results = tmp_path
    assert voc(folder / "Annotations", results, list=folder / "ImageSets/Main/val.txt").metrics["mAP"] == pytest.approx(
        1
    )
    found = check(folder, loaders=0, progress=False)
    assert (
        found.ok
        and found.files == 10
        and found.sizes["width"] == (96, 96, 96)
        and found.sizes["height"] == (64, 64, 64)
    )
    samples = read_split(Options(data=str(folder), format="voc"), "train")
    assert (
        samples.index.sizes.tolist() == [[64, 96]] * 5
        and not samples.index.flags.any()
        and samples[1].image.shape == (3, 64, 96)
    )
