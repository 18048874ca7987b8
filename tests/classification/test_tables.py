"""Tables of files and labels: the same samples, in the same order, as class folders; what has two meanings is refused."""

import csv
import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file
from short_run import SHORT, photos

from trunkline.ground.errors import DataError
from trunkline.pipelines.api import check, evaluate
from trunkline.pipelines.command.cli import main
from trunkline.tasks.classification.folders import FolderSamples, read_splits
from trunkline.tasks.classification.tables import layout_of
from trunkline.tasks.data.repairs import Repair

PAIR = ("file", "label")
SIX = [word.replace("batch=8", "batch=3") for word in SHORT]


def write(file: Path, rows: list, columns=PAIR) -> Path:
    """Write a table as its suffix says."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as text:
            csv.writer(text, delimiter="\t" if file.suffix == ".tsv" else ",").writerows([columns, *rows])
    return file


def rows_of(data: Path, split: str, below: str = "") -> list[tuple[str, str]]:
    """The rows of a split of class folders, backwards, so that their order is not that of the folders."""
    return [(p.relative_to(data / below).as_posix(), p.relative_to(data).parts[1]) for p in photos(data, split)[::-1]]


def lines(samples: FolderSamples) -> list[tuple[str, str]]:
    return [(samples.id(i), samples.classes[samples.labels[i]]) for i in range(len(samples))]


def refused(data: Path, **given) -> str:
    with pytest.raises(DataError) as caught:
        read_splits(data, **{"form": "csv"} | given)
    return str(caught.value)


@pytest.fixture
def six(data, tmp_path) -> Path:
    """Six pictures, 0.jpg to 5.jpg, in folders that say nothing."""
    (tmp_path / "six/pictures").mkdir(parents=True)
    for n, photo in enumerate(photos(data)[:6]):
        shutil.copy(photo, tmp_path / f"six/pictures/{n}.jpg")
    return tmp_path / "six"


GOOD = [(f"pictures/{n}.jpg", "ant" if n < 3 else "bee") for n in range(6)]


def named(data: Path) -> None:
    write(data / "train.csv", rows_of(data, "train"))
    write(data / "val.jsonl", rows_of(data, "val"))


def column(data: Path) -> None:
    rows = [(*row, word) for split, word in (("train", "Train"), ("val", "validation")) for row in rows_of(data, split)]
    write(data / "all.tsv", rows, ("Image path", "class", "split"))


def hub(data: Path) -> None:
    for split in ("train", "val"):
        write(data / split / "metadata.csv", rows_of(data, split, split), ("file_name", "label"))


@pytest.mark.parametrize("layout", [named, column, hub])
def test_a_table_gives_the_samples_of_class_folders(data, layout):
    """Ids, order, classes, manifests and digests, also with a folder inside a class."""
    inner = photos(data)[0]
    (inner.parent / "!").mkdir()  # before all files by name, behind them in a walk through folders
    inner.rename(inner.parent / "!" / inner.name)
    folders = read_splits(data, form="folders")
    layout(data)
    tables = read_splits(data, form="csv")
    for split in ("train", "val"):
        assert lines(tables[split]) == lines(folders[split])
        assert tables[split].classes == folders[split].classes
        assert tables[split].manifest() == folders[split].manifest()
        assert tables[split].fingerprint() == folders[split].fingerprint()
        assert tables[split].remarks() == []


def test_both_train_to_the_same_weights_and_a_held_out_share_is_the_same(data, tmp_path):
    write(data / "train.csv", rows_of(data, "train"))
    shutil.rmtree(data / "val")
    with pytest.raises(DataError, match="give format=folders or format=csv to say which counts"):
        read_splits(data, val=0.25)
    for form in ("folders", "csv"):
        words = [
            "train",
            "transfer",
            f"data={data}",
            "val=0.25",
            f"format={form}",
            "--run",
            str(tmp_path / form),
            *SHORT,
        ]
        assert main(words) == 0
    one, two = (load_file(tmp_path / form / "weights.safetensors") for form in ("folders", "csv"))
    assert one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)
    for split in ("train", "val"):
        tables = [(tmp_path / form / f"data/{split}.tsv").read_bytes() for form in ("folders", "csv")]
        assert tables[0] == tables[1] and tables[0]


@pytest.mark.parametrize("place", ["", "pictures/", "/elsewhere/pictures/", "pictures\\", "./pictures/", "x/pictures/"])
def test_pictures_are_found_by_what_people_write(six, place):
    """Beside the table, with a path, and with a path of another machine, which is a repair."""
    at = six / "pictures" if place == "" else six
    write(at / "train.csv", [(f"{place}{Path(file).name}", label) for file, label in GOOD])
    if place == "":
        (six / "pictures").rename(six / "train")
        (six / "train/train.csv").rename(six / "train.csv")
    found = read_splits(six, val=0.4)
    told = found["train"].remarks()
    assert len(found["train"]) + len(found["val"]) == 6
    assert all(isinstance(line, Repair) for line in told) and bool(told) == (
        (place[:1] in "/x" and place != "") or "\\" in place
    )
    assert not told or told[0].endswith(" in 6 images")


def test_names_in_other_letters_lead_to_pictures(six):
    write(six / "labels.csv", [(name.replace(".jpg", ".JPG"), label) for name, label in GOOD])
    train = read_splits(six, val=0.4)["train"]
    assert any(
        "small and capital letters as the picture's name has them in 6 images" in line for line in train.remarks()
    )


def test_all_that_is_wrong_is_told_together(six):
    write(six / "labels.jsonl", [
        *GOOD, ("pictures/9.jpg", "ant"), ("pictures/0.jpg", "bee"), ("../six/pictures/1.jpg", "ant"),
        ("pictures/5.jpg", "a|b"), ("", "ant"), ("pictures/2.jpg", ["ant", "bee"]), ("pictures/0.jpg", "")])  # fmt: skip
    (six / "pictures/6.txt").write_text("")
    (six / "pictures/7.jpg").symlink_to("nothing.jpg")
    with (six / "labels.jsonl").open("a") as file:
        file.write('{"file": "pictures/6.txt", "label": "ant"}\n{"file": "pictures/7.jpg", "label": "ant"}\n')
    text = refused(six, val=0.4)
    for line in (
        f"labels.jsonl: line 7: there is no picture pictures/9.jpg below {six}",
        "labels.jsonl: line 8: pictures/0.jpg: has the label 'bee', and in labels.jsonl: line 1 'ant'",
        "labels.jsonl: line 9: ../six/pictures/1.jpg: leads out of the data's folder",
        "labels.jsonl: line 10: pictures/5.jpg: has the label 'a|b', and in labels.jsonl: line 6 'bee'",
        "labels.jsonl: line 11: file: names no file",
        "labels.jsonl: line 12: label=['ant', 'bee']: expected text",
        "labels.jsonl: line 13: pictures/0.jpg: has no label",
        "labels.jsonl: line 14: pictures/6.txt: is no photo by its name (suffix '.txt')",
        "labels.jsonl: line 15: pictures/7.jpg: is a link to nothing",
    ):
        assert line in text
    assert "9 problems" in text and "on_bad_sample=skip leaves out rows that cannot be used" in text
    assert {f"{p['file']}: {p['what']}" for p in check(six, progress=False, loaders=0).problems} == {
        line.strip() for line in text.splitlines()[1:-1]
    }


def test_rows_that_cannot_be_used_are_left_out_where_that_is_asked_for(six):
    write(six / "labels.csv", [*GOOD, ("pictures/9.jpg", "ant"), ("pictures/5.jpg", "")])
    assert "2 problems" in refused(six, val=0.4)
    found = read_splits(six, val=0.4, on_bad_sample="skip")
    assert {*found["train"].excluded} == {"labels.csv: line 8", "labels.csv: line 9"}
    assert sum(map(len, found.values())) == 6


def test_a_row_that_stands_twice_counts_once_and_strict_refuses_it(six, tmp_path, capsys):
    write(six / "labels.csv", [*GOOD, GOOD[0], GOOD[0]])
    found = read_splits(six, val=0.4)
    assert sum(map(len, found.values())) == 6
    (line,) = found["train"].remarks()
    assert line == "labels.csv: files that stand there twice, with the same label, counted once in 2 rows"
    words = ["train", "transfer", f"data={six}", "val=0.4", "strict=true", "--run", str(tmp_path / "run"), *SHORT]
    assert main(words) == 2 and "counted once in 2 rows" in capsys.readouterr().err
    assert not check(six, strict=True, progress=False, loaders=0).ok


@pytest.mark.parametrize("label", ["ant|bee", "cat|dog", "ant;bee", "ant, bee"])
def test_several_labels_are_refused_by_name(six, label):
    write(six / "labels.csv", [*GOOD[:5], ("pictures/5.jpg", label)])
    said = f"labels.csv: line 7: the label {label!r} is several: a classifier takes one class a file"
    assert said in refused(six, val=0.4)


def test_a_comma_in_the_name_of_a_class_is_no_list(six):
    write(six / "labels.csv", [(file, f"{label}, common") for file, label in GOOD])
    assert read_splits(six, val=0.4)["train"].classes == ("ant, common", "bee, common")


def test_numbers_are_names_until_classes_txt_names_them(six):
    write(six / "labels.jsonl", [(file, 0 if label == "ant" else 1) for file, label in GOOD])
    assert read_splits(six, val=0.4)["train"].classes == ("0", "1")
    (six / "classes.txt").write_text("wasp\r\nant\r\n")
    found = read_splits(six, val=0.4)["train"]
    assert found.classes == ("ant", "wasp")
    assert (
        dict(lines(found))["pictures/0.jpg" if ("pictures/0.jpg", "wasp") in lines(found) else "pictures/1.jpg"]
        == "wasp"
    )
    assert {label for file, label in lines(found) if file < "pictures/3"} == {"wasp"}
    assert [label for _, label in lines(found)] == sorted(label for _, label in lines(found))
    assert "labels are positions in classes.txt, counted from 0: 0 is wasp, 1 is ant" in found.remarks()
    (six / "classes.txt").write_text("wasp\n")
    assert "line 4: the label 1: classes.txt has no such line (lines are counted from 0, and it has 1)" in refused(
        six, val=0.4
    )
    (six / "classes.txt").write_text("1\n0\n")
    assert "may be a line of classes.txt, counted from 0 (1), or the class called 0" in refused(six, val=0.4)


def test_numbers_in_two_spellings_are_refused_and_floats_of_all_counted(six):
    labels = ("1.0", "0.0", "1.0", "0.0", "0.0", "1.0")
    write(six / "labels.csv", [(name, label) for (name, _), label in zip(GOOD, labels, strict=True)])
    train = read_splits(six, val=0.4)["train"]
    assert train.classes == ("0", "1")
    assert any("labels written as 1.0 taken as 1 in 6 files" in line for line in train.remarks())
    write(six / "labels.csv", [(name, label) for (name, _), label in zip(GOOD, ("1", *labels[1:]), strict=True)])
    said = "labels.csv: line 2 and labels.csv: line 4: the labels '1' and '1.0' are one number"
    assert said in refused(six, val=0.4)


def test_names_that_classes_txt_lacks_are_refused_with_the_nearest(six):
    write(six / "labels.csv", GOOD)
    (six / "classes.txt").write_text("ants\nbee\n")
    assert "the label 'ant' is not in classes.txt; nearest: ants" in refused(six, val=0.4)


def test_groups_stay_on_one_side(six):
    rows = [(*row, "pqr"[n % 3]) for n, row in enumerate(GOOD)]
    write(six / "labels.csv", rows, (*PAIR, "group"))
    found = read_splits(six, val=0.34)
    group = {file: g for file, _, g in rows}
    sides = [{group[file] for file, _ in lines(found[split])} for split in ("train", "val")]
    assert not sides[0] & sides[1] and len(sides[1]) == 1
    assert "labels.csv: files of the same group are kept on one side of val=0.34" in found["train"].remarks()
    assert "has no such column, and its column group" in refused(six, val=0.34, group="([0-9])")
    write(six / "labels.csv", [*rows[:5], (*GOOD[5], "")], (*PAIR, "group"))
    assert "labels.csv: 1 of 6 rows have an empty group" in refused(six, val=0.34)
    write(six / "labels.csv", [*rows, (*GOOD[0], "q")], (*PAIR, "group"))
    assert "has the group 'q', and in labels.csv: line 2 'p'" in refused(six, val=0.34)


TABLES = {
    "boxes": (("file", "label", "xmin", "ymin", "xmax", "ymax"), "has columns of boxes (xmin, ymin, xmax, ymax)"),
    "no label": (("file", "breed"), "has no column of labels; expected one of label, class"),
    "no file": (("picture_of", "label"), "has no column of files"),
    "a box in one": (
        ("file", "label", "bbox"),
        "the four numbers of bbox may be xmin, ymin, xmax, ymax or x, y, width, height",
    ),
    "two labels": (("file", "label", "class"), "several columns of labels: label, class"),
}


@pytest.mark.parametrize("table", TABLES)
def test_columns_that_do_not_say_a_class_are_refused(six, table):
    columns, line = TABLES[table]
    write(six / "train.csv", [("pictures/0.jpg", *"123456"[: len(columns) - 1])], columns)
    assert line in refused(six)


def test_scores_beside_labels_are_no_labels_unless_that_is_said(six):
    for split in ("train", "val"):
        write(six / f"{split}.csv", [(*row, 0.5) for row in GOOD], (*PAIR, "score"))
    assert "train.csv: has a column score, as a model's results have" in refused(six, form="auto")
    said = read_splits(six, form="csv")["train"].remarks()
    assert "train.csv: the column score is not read: all rows count as true labels" in said


def test_several_tables_and_splits_that_nobody_knows_are_refused(six):
    write(six / "train.csv", GOOD)
    assert "there is no table of val beside train.csv: give val=0.2" in refused(six)
    write(six / "test.csv", GOOD)
    assert refused(six).endswith("Rename test.csv to val.csv")
    write(six / "train.tsv", GOOD)
    assert "several tables of train: train.csv, train.tsv; leave one" in refused(six)
    (six / "train.tsv").unlink()
    (six / "test.csv").rename(six / "more.csv")
    (six / "train.csv").rename(six / "labels.csv")
    assert "several tables, labels.csv, more.csv; call them train.csv and val.csv" in refused(six)
    (six / "more.csv").unlink()
    splits = ["train", "train", "val", "train", "test", "vall"]
    write(six / "labels.csv", [(*row, s) for row, s in zip(GOOD, splits, strict=True)], (*PAIR, "split"))
    assert "labels.csv: line 7: split='vall': expected train, training, val, valid, validation, test" in refused(six)


def test_a_test_split_and_pictures_without_a_row_are_said(six):
    splits = ["train", "val", "train", "train", "val", "test"]
    write(six / "labels.csv", [(*row, s) for row, s in zip(GOOD, splits, strict=True)], (*PAIR, "split"))
    shutil.copy(six / "pictures/0.jpg", six / "pictures/extra.jpg")
    found = read_splits(six)
    assert [len(found[s]) for s in ("train", "val")] == [3, 2]
    assert found["train"].remarks() == [
        "labels.csv: 1 row of split=test not read", "2 pictures below the data's folder in no row: not used"]  # fmt: skip


def test_a_table_of_train_with_rows_of_val_is_refused(six):
    write(six / "train.csv", [(*row, "val" if row == GOOD[5] else "train") for row in GOOD], (*PAIR, "split"))
    write(six / "val.csv", GOOD[:2])
    assert "train.csv: line 7: split='val': expected train" in refused(six)


def test_pictures_in_both_splits_are_said_and_with_two_labels_refused(six):
    write(six / "train.csv", GOOD)
    write(six / "val.csv", GOOD[2:4])
    (line,) = read_splits(six)["val"].remarks()
    assert line.startswith("2 files in train and in val: the score counts what was learnt by heart (pictures/2.jpg")
    write(six / "val.csv", [(GOOD[0][0], "bee"), GOOD[5], GOOD[1]])
    assert "val.csv: line 2: pictures/0.jpg: has the label 'bee', and in train.csv: line 2 'ant'" in refused(six)


def test_a_picture_that_two_folders_have_is_refused(six):
    shutil.copytree(six / "pictures", six / "images")
    shutil.copytree(six / "pictures", six / "train")
    write(six / "train.csv", [(Path(file).name, label) for file, label in GOOD])
    assert "line 2: 0.jpg: may be images/0.jpg or train/0.jpg; write its path below the data's folder" in refused(
        six, val=0.4
    )


def test_links_are_followed_and_names_in_another_normal_form_found(six, tmp_path):
    os.rename(six / "pictures", tmp_path / "far")  # noqa: PTH104
    (six / "pictures").symlink_to(tmp_path / "far")
    composed = unicodedata.normalize("NFC", "pictures/käfer.jpg")
    (six / "pictures/0.jpg").rename(six / unicodedata.normalize("NFD", composed))
    write(six / "labels.csv", [(composed, "ant"), *GOOD[1:]])
    found = read_splits(six, val=0.4)
    assert sum(map(len, found.values())) == 6 and found["train"].remarks() == []


def test_what_is_no_table_of_labels_leaves_class_folders_as_they_are(data):
    plain = lines(read_splits(data)["train"])
    write(data / "predictions.csv", [("a.jpg", "ant", 0.5)], (*PAIR, "confidence"))
    assert lines(read_splits(data)["train"]) == plain
    write(data / "notes.csv", [("x", "y")], ("author", "date"))
    assert lines(read_splits(data)["train"]) == plain


def test_a_test_table_that_lacks_classes_is_scored_for_those_that_are_there(short_run, data, tmp_path, capsys):
    kept = [row for row in rows_of(data, "val") if row[1] != "circle"]
    write(data / "val.csv", kept)
    scores = evaluate(short_run, data=str(data), loaders=0, format="csv")
    shutil.rmtree(data / "val/circle")
    assert scores.metrics == evaluate(short_run, data=str(data), loaders=0, format="folders").metrics
    told = capsys.readouterr()
    assert "no file of circle: scored over the 9 of 10 classes that are there" in told.out + told.err
    write(data / "val.csv", [(file, label.replace("circle", "circel")) for file, label in rows_of(data, "train")])
    with pytest.raises(DataError, match=r"only in val\.csv: circel \(1\)"):
        evaluate(short_run, data=str(data), loaders=0, format="csv")


def test_check_looks_at_tables_and_at_runs_that_were_trained_on_them(six, tmp_path):
    write(six / "train.csv", GOOD)
    write(six / "val.csv", GOOD[2:4])
    assert main(["train", "transfer", f"data={six}", "--run", str(tmp_path / "run"), *SIX]) == 0
    for where, form in ((six, "auto"), (six, "csv"), (tmp_path / "run", "auto")):
        found = check(where, format=form, progress=False, loaders=0)
        assert found.ok and found.counts == {"train": {"ant": 3, "bee": 3}, "val": {"ant": 1, "bee": 1}}
        assert len(found.leaks) == 2
    (six / "data.yaml").write_text("names: [ant]\n")  # of another format; the task is known
    assert check(tmp_path / "run", progress=False, loaders=0).counts["val"] == {"ant": 1, "bee": 1}
    (six / "data.yaml").unlink()
    (six / "pictures").rename(six / "images")
    for split in ("train", "val"):
        (six / f"{split}.csv").write_text((six / f"{split}.csv").read_text().replace("pictures/", ""))
    (six / "classes.txt").write_text("ant\nbee\n")
    assert check(six, progress=False, loaders=0).counts["train"] == {"ant": 3, "bee": 3}


def test_check_of_a_table_of_boxes_is_the_detectors(six):
    write(six / "train.csv", [(file, label, 1, 1, 9, 9) for file, label in GOOD], TABLES["boxes"][0])
    for form in ("auto", "csv"):
        assert check(six, format=form, progress=False, loaders=0).counted == "objects"


def test_a_table_at_an_address_is_refused(six):
    write(six / "train.csv", GOOD)
    with pytest.raises(DataError, match="tables \\(format=csv\\) are read from folders of this machine"):
        read_splits(f"file://{six}", form="csv", val=0.4)


def test_a_table_whose_labels_are_mistyped_is_not_passed_over_for_a_folder(tmp_path):
    (tmp_path / "c").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "c/1.png")
    (tmp_path / "t.csv").write_text("file,labels\nc/1.png,cat\n")
    with pytest.raises(DataError, match=r"t\.csv: has no column of labels.* and has file, labels; nearest: label"):
        layout_of(tmp_path)
