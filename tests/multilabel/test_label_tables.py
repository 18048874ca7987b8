"""Tables of several labels a picture: in one column or a column for each class, and what has two meanings."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.data.repairs import Repair
from trunkline.tasks.multilabel.options import Options
from trunkline.tasks.multilabel.splits import read_labels


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six pictures, 0.png to 5.png."""
    for n in range(6):
        Image.fromarray(np.full((8, 8 + n, 3), n, np.uint8)).save(tmp_path / f"{n}.png")
    return tmp_path


def write(folder: Path, rows: list[str], name: str = "train", head: str = "file,labels") -> None:
    (folder / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")


def read(folder: Path, split: str = "train", classes=None, **changed):
    return read_labels(Options(data=str(folder), format="table", **changed), split, classes)


def both(folder: Path, rows: list[str], head: str = "file,labels") -> None:
    write(folder, rows, head=head)
    write(folder, rows, "val", head)


def refused(folder: Path, **changed) -> str:
    with pytest.raises(DataError) as error:
        read(folder, **changed)
    return str(error.value)


@pytest.mark.parametrize("sign", ["|", ";"])
def test_a_cell_lists_labels_and_an_empty_one_none(folder, sign):
    both(folder, [f"0.png,dog{sign}cat", "1.png,", f"2.png, cat {sign} ant"])
    samples = read(folder)
    assert samples.classes == ("ant", "cat", "dog") and samples.known.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 0]]
    assert samples[2].targets["labels"].tolist() == [1, 1, 0] and samples[2].image.shape == (3, 8, 10)
    assert [line.split("\t")[1] for line in samples.manifest()] == ["cat|dog", "", "ant|cat"]
    assert "1 picture of 3 without any of the classes" in samples.remarks()


def test_lists_of_json_are_labels(folder):
    lines = [{"image": "0.png", "tags": ["b", "a"]}, {"image": "1.png", "tags": []}, {"image": "2.png", "tags": "a|b"}]
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(folder).known.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_columns_of_classes_say_there_not_there_and_unknown(folder):
    both(folder, ["0.png,1,0", "1.png,,-1", "2.png,0,1.0"], "file,zebra,ant")
    samples = read(folder)
    assert samples.classes == ("zebra", "ant") and samples.known.tolist() == [[1, 0], [-1, -1], [0, 1]]
    assert "2 labels of 6 unknown: they count in no loss and no score" in samples.remarks()
    assert [line.split("\t")[1] for line in samples.manifest()] == ["zebra", " ?zebra|ant", "ant"]


def test_both_ways_say_the_same(folder, tmp_path):
    write(folder, ["0.png,a|b", "1.png,", "2.png,b", "3.png,a", "4.png,b"], "labels")
    one = {s: read(folder, s, val=("0.4",)) for s in ("train", "val")}
    write(folder, ["0.png,1,1", "1.png,0,0", "2.png,0,1", "3.png,1,0", "4.png,0,1"], "labels", "file,a,b")
    other = {s: read(folder, s, val=("0.4",)) for s in ("train", "val")}
    for split in ("train", "val"):
        assert (
            one[split].manifest() == other[split].manifest() and one[split].fingerprint() == other[split].fingerprint()
        )
    assert len(one["train"]) == 3 and len(one["val"]) == 2


def test_a_class_whose_column_is_not_there_is_unknown(folder):
    write(folder, ["0.png,1,0", "1.png,0,1"], head="file,a,b")
    write(folder, ["2.png,1"], "val", "file,a")
    assert read(folder, "val").known.tolist() == [[1, -1]]
    assert read(folder, "val", ("c", "b", "a")).known.tolist() == [[-1, -1, 1]]
    write(folder, ["2.png,a"], "val")
    assert "val.csv: says labels in one column, and train.csv in a column for each class" in refused(folder)
    write(folder, ["2.png,1,0"], "val", "file,a,c")
    assert "val.csv: has the columns c, which train.csv lacks" in refused(folder)


def test_a_checkpoint_and_training_know_the_classes(folder):
    write(folder, ["0.png,a|b"])
    write(folder, ["1.png,a|c"], "val")
    assert "only in val.csv: c" in refused(folder)
    write(folder, ["1.png,a"], "val")
    assert read(folder, "val").known.tolist() == [[1, 0]]
    assert read(folder, "val", ("z", "b", "a")).known.tolist() == [[0, 0, 1]]


def test_numbers_are_lines_of_classes_txt(folder):
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    both(folder, ["0.png,0|2", "1.png,1"])
    assert read(folder).classes == ("ant", "bee", "cat")
    assert any("labels are positions in classes.txt" in line for line in read(folder).remarks())
    both(folder, ["0.png,0|3", "1.png,1"])
    assert "the label 3: classes.txt has no such line" in refused(folder)


def test_what_is_mended_is_counted(folder):
    both(folder, ["0.png,a||b|", "1.png,a|a", "2.png,3.0", "2.png,3.0"])
    said = [line for line in read(folder).remarks() if isinstance(line, Repair)]
    assert [line.removeprefix("train.csv: ") for line in said[:3]] == [
        "files that stand there twice, with the same label, counted once in 1 row",
        "empty labels between separators, left out in 1 row",
        "a label that stands twice in a cell, counted once in 1 row",
    ]
    both(folder, ["0.png,yes,0", "1.png,no,1"], "file,a,b")
    assert read(folder).known.tolist() == [[1, 0], [0, 1]]
    assert "train.csv: words (true, false, yes, no) taken as 1/0 in 2 rows" in read(folder).remarks()
    both(folder, ["0.png,1.0|2.0", "1.png,2.0"])
    assert read(folder).classes == ("1", "2")


WRONG = {
    "two separators in a cell": (["0.png,a|b;c"], "file,labels", "labels='a|b;c': has | and ;; separate labels by one"),
    "two separators": (["0.png,a|b", "1.png,c;d"], "file,labels", "train.csv: line 2: separates labels by |, and train.csv: "
                       "line 3 by ;, which may be part of a name"),
    "a comma": (["0.png,'ant; bee'", '1.png,"ant, bee"', "2.png,ant"], "file,labels",
                "the label 'ant, bee' may be one class or several: separate labels by |"),
    "two rows": (["0.png,a", "0.png,b"], "file,labels", "0.png: has the label 'b', and in train.csv: line 2 'a': write all "
                 "labels of a picture into one row, or leave out the row that is wrong"),
    "0 and 1 as labels": (["0.png,1", "1.png,0"], "file,label", "labels of 0 and 1 alone may be two classes called so, or say "
                          "whether one class is there"),
    "labels twice": (["0.png,a,1", "1.png,b,0"], "file,labels,a", "has a column of labels and columns called as labels (a)"),
    "no flag": (["0.png,1,34"], "file,a,age", "line 2: age='34': expected 1 (there), 0 (not there), or an empty cell or -1"),
    "boxes": (["0.png,a,1,1,5,5"], "file,label,xmin,ymin,xmax,ymax", "has columns of boxes (xmin, ymin, xmax, ymax): "
              "format=csv takes the classes of a picture's objects as its labels"),
    "an index": (["0,0.png,1"], ",file,a", "a column has no name: call it as its class, or leave it out"),
    "no labels": (["0.png"], "file", "has no column of labels; expected columns file and labels"),
    "no file": (["0.png,a"], "x,labels", "has no column of files"),
    "nothing": (["0.png,", "1.png,"], "file,labels", "no row has a label"),
    "a number in two ways": (["0.png,1", "1.png,1.0|2"], "file,labels", "the labels '1' and '1.0' are one number"),
    "a name of two": (["0.png,1"], "file,a|b", "the column 'a|b' may be one class or several"),
    "no picture": (["9.png,a", "0.png,a"], "file,labels", "train.csv: line 2: there is no picture 9.png below"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_or_has_two_meanings_is_told(folder, what):
    rows, head, said = WRONG[what]
    both(folder, rows, head)
    assert said in refused(folder)


def test_rows_that_cannot_be_used_are_left_out_where_that_is_asked_for(folder):
    both(folder, ["9.png,a", "0.png,a|b"])
    found = read(folder, on_bad_sample="skip")
    assert len(found) == 1 and {*found.excluded} == {"train.csv: line 2"}


@pytest.mark.parametrize("key", ["train", "categories", "annotator", "val"])
def test_options_of_objects_are_refused(folder, key):
    both(folder, ["0.png,a"])
    given = {key: "x" if key == "annotator" else ("x",)}
    assert f"{key}: data of format=table has no use for this" in refused(folder, **given)


def test_a_table_of_labels_is_named_where_another_format_finds_nothing(folder):
    both(folder, ["0.png,a"])
    for form in ("csv", "coco"):
        with pytest.raises(
            DataError, match=r"train\.csv may be a table of labels of whole pictures, which format=table"
        ):
            read_labels(Options(data=str(folder), format=form), "train")


def test_a_look_at_tables(folder):
    both(folder, ["0.png,a|b", "1.png,a", "9.png,b"])
    (folder / "1.png").write_bytes(b"")
    found = check(folder, task="multilabel", format="table", loaders=0, progress=False)
    assert found.counts == {"train": {"a": 2, "b": 1}, "val": {"a": 2, "b": 1}} and found.files == 4
    told = {f"{p['file']}: {p['what']}": p.get("skip") for p in found.problems}
    assert sum("there is no picture 9.png" in line for line in told) == 2 and {*told.values()} == {"on_bad_sample=skip"}
    assert any(line.startswith("1.png: ") and "empty" in line for line in told)
    assert found.leaks == [["0.png", "0.png"]]
    with pytest.raises(DataError, match=r"does not read format=folders.*give format= one of coco, .*, csv, table"):
        check(folder, task="multilabel", loaders=0, progress=False)


def test_pictures_of_tables_are_grouped_by_what_they_are_resized_to(folder):
    both(folder, [f"{n}.png,a" for n in range(3)])
    fit = read(folder, view="fit", size=16)
    assert fit.groups(True) is None and fit.groups(False).tolist() == [16 << 32 | w for w in (16, 18, 20)]
    assert read(folder).groups(False) is None
