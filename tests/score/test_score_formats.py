"""Truth and results as labelling tools have them are scored as COCO's are; what almost nothing matches is asked what it means."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "detection"))
import label_work as work

import trunkline
from trunkline.ground.errors import DataError
from trunkline.tasks.objects.coco_file import Objects
from trunkline.tasks.objects.hints import hints

pytest.importorskip("pycocotools")
SEEN = {  # what a detector says: file, class, score, box
    "a.jpg": [("ant", 0.9, (10, 20, 30, 40)), ("bee", 0.8, (1, 1, 95, 63)), ("ant", 0.3, (60, 0, 5, 5))],
    "b.jpg": [("bee", 0.7, (7, 10, 11, 13)), ("ant", 0.6, (7, 9, 11, 13))],
    "c.jpg": [("ant", 0.5, (33, 1, 3, 30))],
}
ROWS = [(name, *one) for name, found in SEEN.items() for one in found]


def coco_results(path: Path, change=lambda box: list(box), by: int = 0) -> Path:
    number = {name: n for n, name in enumerate(work.SIZES, 1)}
    rows = [{"image_id": number[f], "category_id": work.CLASSES.index(label) + 1 + by, "score": s, "bbox": change(box)}
            for f, label, s, box in ROWS]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def yolo_results(folder: Path) -> Path:
    for name, found in SEEN.items():
        width, height = work.SIZES[name]
        lines = [f"{work.CLASSES.index(label)} {(x + w / 2) / width!r} {(y + h / 2) / height!r} {w / width!r} {h / height!r} {s}"
                 for label, s, (x, y, w, h) in found]  # fmt: skip
        work.text(folder / f"{Path(name).stem}.txt", "\n".join(lines))
    return folder


def table(path: Path) -> Path:
    lines = [f"{f},{label},{s},{x},{y},{x + w},{y + h}" for f, label, s, (x, y, w, h) in ROWS]
    work.text(path, "\n".join(["file,label,score,xmin,ymin,xmax,ymax", *lines]) + "\n")
    return path


def predictions(path: Path) -> Path:
    lines = [{"file": f"photos/{f}", "boxes": [list(box) for _, _, box in found], "labels": [k for k, _, _ in found],
              "scores": [s for _, s, _ in found], "numbers": []} for f, found in SEEN.items()]  # fmt: skip
    work.text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def truths(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("truths")
    work.coco(root / "coco", "annotations/instances_val.json", "images")
    for form in ("yolo", "voc", "labelme", "labelstudio", "csv"):
        trunkline.convert("data", root / "coco", format=form, out=root / form)
    return root


def test_truth_and_results_of_every_format_give_one_score(truths, tmp_path):
    file = truths / "coco/annotations/instances_val.json"
    whole = trunkline.score("coco", file, coco_results(tmp_path / "results.json"))
    assert 0.3 < whole.metrics["AP50"] < 1
    given = [
        yolo_results(tmp_path / "yolo"),
        table(tmp_path / "results.csv"),
        predictions(tmp_path / "predictions.jsonl"),
    ]
    for results in given:
        assert trunkline.score("coco", file, results).metrics == whole.metrics
    named = [truths / "yolo", truths / "yolo/data.yaml", truths / "voc", truths / "labelme", truths / "labelstudio",
             truths / "labelstudio/val.json", truths / "csv", truths / "csv/val.csv"]  # fmt: skip
    for truth in named:
        assert trunkline.score("coco", truth, given[1]).metrics == whole.metrics
    assert trunkline.score("coco", truths / "yolo", given[0], split="val").metrics == whole.metrics


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: work.text(p / "r/z.txt", "0 0.5 0.5 0.1 0.1 0.9\n") or p / "r", "z is not among the pictures of"),
        (lambda p: work.text(p / "r/a.txt", "0 0.5 0.5 0.1 0.1\n") or p / "r", "5 numbers; expected class, x, y"),
        (lambda p: work.text(p / "r/a.txt", "0.9 0 0.5 0.5 0.1 0.1\n") or p / "r", "line 1: the class 0.9 is no whole number"),
        (lambda p: work.text(p / "r/a.txt", "nan 0 0.5 0.5 0.1 0.1\n") or p / "r", "line 1: the class nan is no whole number"),
        (lambda p: work.text(p / "r/a.txt", "0 32 24 16 24 0.9\n1 0.5 0.5 1 1 0.9\n0 9 9 4 2 0.1\n") or p / "r",
         "line 1: 32, 24, 16, 24: expected shares of the picture's width and height, 0 to 1: are these pixels? (2 of 3 results)"),
        (lambda p: work.text(p / "r/note.md", "x") or p / "r", "has no text file"),
        (lambda p: work.text(p / "r.csv", "file,label,x,y,width,height\na.jpg,ant,1,2,3,4\n") or p / "r.csv",
         "results need columns"),
        (lambda p: work.text(p / "r.csv", "file,label,score,x,y,width,height\na.jpg,ant,,1,2,3,4\n") or p / "r.csv",
         "line 2: a box without a score"),
    ],
)  # fmt: skip
def test_wrong_results_of_tools(truths, tmp_path, make, said):
    with pytest.raises(DataError) as error:
        trunkline.score("coco", truths / "coco/annotations/instances_val.json", make(tmp_path))
    assert said in str(error.value)


def test_classes_written_as_floats_are_read_and_counted(truths, tmp_path):
    plain = trunkline.score("coco", truths / "yolo", yolo_results(tmp_path / "plain"))
    folder = yolo_results(tmp_path / "floats")
    for file in folder.glob("*.txt"):
        lines = [
            f"{kind}.0 {rest}" for kind, _, rest in (line.partition(" ") for line in file.read_text().splitlines())
        ]
        file.write_text("\n".join([*lines, "-1 0.5 0.5 0.1 0.1 0.01", "0 3 3 1 1 0.01"]))  # wrong ones are only false
    found = trunkline.score("coco", truths / "yolo", folder)
    assert found.metrics == plain.metrics
    assert f"{folder}: classes written as 1.0 taken as 1 in {len(ROWS)} lines" in found.warnings


def test_a_class_that_the_truth_lacks_is_counted_and_not_scored(truths, tmp_path):
    table(tmp_path / "r.csv")
    text = (tmp_path / "r.csv").read_text()
    (tmp_path / "r.csv").write_text(text + "a.jpg,wasp,0.95,0,0,96,64\n")
    plain = trunkline.score("coco", truths / "yolo", table(tmp_path / "plain.csv"))
    found = trunkline.score("coco", truths / "yolo", tmp_path / "r.csv")
    assert found.metrics == plain.metrics
    assert any("1 result of a category that the truth lacks, which are not scored" in w for w in found.warnings)


HINTS = {
    "x1, y1, x2, y2": (lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]], 0),
    "category's number one larger": (list, -1),
    "category's number one smaller": (list, 1),
}


@pytest.mark.parametrize("name", HINTS)
def test_what_almost_nothing_matches_is_asked_what_it_means(name):
    change, by = HINTS[name]
    rng = np.random.default_rng(1)
    count = 60
    boxes = np.concatenate([rng.integers(100, 300, (count, 2)), rng.integers(20, 60, (count, 2))], 1).astype(float)
    images, kinds = np.arange(count) // 3, rng.integers(5, 9, count) * 2
    truth = Objects(images, kinds, boxes)
    found = Objects(images, kinds + by, np.array([change(b) for b in boxes]), scores=np.ones(count))
    (said,) = hints(truth, found)
    assert name in said and "100% of the truth" in said
    assert hints(truth, Objects(images, kinds, boxes)) == []


def test_shares_of_one_are_told(truths, tmp_path):
    number = {name: n for n, name in enumerate(work.SIZES, 1)}
    rows = [{"image_id": number[f], "category_id": work.CLASSES.index(label) + 1, "score": s,
             "bbox": [box[0] / work.SIZES[f][0], box[1] / work.SIZES[f][1], box[2] / work.SIZES[f][0], box[3] / work.SIZES[f][1]]}
            for f, label, s, box in ROWS]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(rows))
    found = trunkline.score("coco", truths / "coco/annotations/instances_val.json", tmp_path / "r.json")
    assert any("shares of the pictures' sides: expected are pixels" in w for w in found.warnings)


def test_voc_results_with_sides_in_place_of_corners_are_told(truths, tmp_path):
    for kind in work.CLASSES:
        lines = [f"{Path(f).stem} {s} {x + 1} {y + 1} {w} {h}" for f, label, s, (x, y, w, h) in ROWS if label == kind]
        work.text(tmp_path / f"r/comp4_det_val_{kind}.txt", "\n".join(lines) + "\n")
    names = truths / "voc/ImageSets/Main/val.txt"
    found = trunkline.score("voc", truths / "voc/Annotations", tmp_path / "r", list=names, classes=("ant",))
    assert any("were the boxes x, y, width, height: expected are xmin, ymin, xmax, ymax" in w for w in found.warnings)


def test_strict_takes_a_repair_as_a_mistake(truths, tmp_path):
    said = json.loads((truths / "coco/annotations/instances_val.json").read_text())
    for one in said["annotations"]:
        one["iscrowd"] = False
    (tmp_path / "truth.json").write_text(json.dumps(said))
    results = coco_results(tmp_path / "r.json")
    assert "iscrowd: true/false taken as 1/0" in trunkline.score("coco", tmp_path / "truth.json", results).warnings[0]
    with pytest.raises(
        DataError, match=r"strict: what would be mended is a mistake:\n.*iscrowd: true/false taken as 1/0"
    ):
        trunkline.score("coco", tmp_path / "truth.json", results, strict=True)


def test_a_root_category_is_kept_and_remarked_and_left_out_on_demand(tmp_path):
    work.coco(tmp_path / "data", "annotations/instances_train.json", "images")
    file = tmp_path / "data/annotations/instances_train.json"
    said = json.loads(file.read_text())
    said["categories"] = [{"id": 0, "name": "insects", "supercategory": "none"},
                          *({**c, "supercategory": "insects"} for c in said["categories"])]  # fmt: skip
    file.write_text(json.dumps(said))
    samples = work.split_of(tmp_path / "data", "coco")
    assert samples.classes == ("insects", "ant", "bee")
    remark = ("the category insects has no object and is only the parent of other categories; it is kept as a class. Without it: "
              "categories=ant,bee")  # fmt: skip
    assert remark in samples.remarks()
    work.same(work.split_of(tmp_path / "data", "coco", categories=("ant", "bee")))
    one = work.split_of(tmp_path / "data", "coco", categories=("bee",))
    assert one.classes == ("bee",) and one.index.boxes.tolist() == [[0, 0, 96, 64], [7, 9, 11, 13]]
    assert "left out 2 objects of categories that were not chosen" in one.remarks()
    with pytest.raises(DataError, match=r"categories=be: .* has no be; nearest: bee; it has insects, ant, bee"):
        work.split_of(tmp_path / "data", "coco", categories=("be",))


def test_a_truth_of_two_readings_is_chosen_by_the_setting_that_the_message_names(truths, tmp_path):
    results = table(tmp_path / "r.csv")
    truth = tmp_path / "yolo"
    shutil.copytree(truths / "yolo", truth)
    for file in (truth / "labels/val").glob("*.txt"):
        file.write_text("0 0.1 0.1 0.5 0.1 0.5 0.9 0.1 0.9\n")
    with pytest.raises(DataError, match="say which with truth_format=yolo-seg or truth_format=yolo-obb"):
        trunkline.score("coco", truth, results)
    with pytest.raises(DataError, match="say which with source_format=yolo-seg or source_format=yolo-obb"):
        trunkline.convert("data", truth, format="coco", out=tmp_path / "out")
    assert trunkline.score("coco", truth, results, truth_format="yolo-obb").counts["objects"] == 3
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", work.SIZES["a.jpg"]).save(truth / "images/val/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"exif=turn takes .* exif=ignore"):
        trunkline.score("coco", truth, results, truth_format="yolo-obb")
    for exif in ("turn", "ignore"):
        assert trunkline.score("coco", truth, results, truth_format="yolo-obb", exif=exif).counts["objects"] == 3
    plain, moved = (trunkline.score("coco", truths / "voc", results, origin=origin).metrics["AP"] for origin in (1, 0))
    assert plain != moved
    with pytest.raises(DataError, match="origin: data of truth_format=yolo has no use for this"):
        trunkline.score("coco", truths / "yolo", results, origin=0)
    with pytest.raises(DataError, match=r"exif=turn: .*json is one file of annotations; leave exif= out"):
        trunkline.score("coco", truths / "coco/annotations/instances_val.json", results, exif="turn")
