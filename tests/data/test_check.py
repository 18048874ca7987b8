"""`check`: everything that is wrong or odd with a data set, in one report."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.classification.folders import read_splits
from trunkline.tasks.detection.options import Options
from trunkline.tasks.detection.scenes import write_box_scenes
from trunkline.tasks.detection.splits import read_split
from trunkline.tasks.segmentation.scenes import write_pixel_scenes

DATA = os.environ.get("TRUNKLINE_TEST_DATA", "")


def photo(file: Path, width: int = 40, height: int = 50, mode: str = "RGB", seed: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(file))) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode).save(file)


@pytest.fixture
def data(tmp_path) -> Path:
    for split, count in (("train", 5), ("val", 3)):
        for cls in ("ants", "bees"):
            for i in range(count):
                photo(tmp_path / split / cls / f"{i}.jpg", 40 + i)
    return tmp_path


def problems(result) -> dict[str, str]:
    return {entry["file"]: entry["what"] for entry in result.problems}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_good_data_set(data, workers):
    photo(data / "train/ants/grey.png", 100, 200, "L")
    result = check(data, loaders=workers, progress=False)
    assert result.ok and result.problems == [] and result.oddities == [] and result.leaks == []
    assert result.counts == {"train": {"ants": 6, "bees": 5}, "val": {"ants": 3, "bees": 3}} and result.files == 17
    assert result.sizes["width"] == (40, 42, 100) and result.sizes["height"] == (50, 50, 200)
    sizes = sorted(file.stat().st_size for file in data.rglob("*.*g"))
    assert result.sizes["bytes"] == (sizes[0], sizes[8], sizes[-1])
    assert result.formats == {"JPEG": 16, "PNG": 1} and result.modes == {"RGB": 16, "L": 1}
    assert "no problems: training can start" in result.summary()
    again = json.loads(json.dumps(result.to_json()))
    assert again["ok"] is True and again["counts"] == result.counts


def test_every_kind_of_problem_at_once(data):
    cut = data / "train/ants/1.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    (data / "val/bees/2.jpg").write_bytes(b"")
    (data / "train/bees/notes.txt").write_text("x")
    (data / "train/wasps").mkdir()
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(data / "train/bees/deep.png")
    result = check(data, classes=("ants", "flies"), loaders=2, progress=False)
    found = problems(result)
    assert not result.ok
    assert "cut off" in found["train/ants/1.jpg"] or "no image" in found["train/ants/1.jpg"]
    assert found["val/bees/2.jpg"] == "the file is empty"
    assert "no photo by its name" in found["train/bees/notes.txt"]
    assert "16 bits" in found["train/bees/deep.png"]
    assert "no files" in found["train/wasps"]
    said = "\n".join(entry["what"] for entry in result.problems if entry["file"] == ".")
    assert "the checkpoint: ants, flies (2)" in said and "val/: ants, bees (2)" in said
    for file in found:
        assert file in result.summary()


def test_leaks_conflicts_repeats_and_odd_shapes(data):
    shutil.copy(data / "train/ants/0.jpg", data / "val/ants/copy.jpg")
    shutil.copy(data / "train/ants/1.jpg", data / "train/bees/copy.jpg")
    shutil.copy(data / "train/ants/2.jpg", data / "train/ants/copy.jpg")
    photo(data / "train/ants/tiny.jpg", 8, 8)
    photo(data / "train/ants/long.jpg", 400, 40)
    result = check(data, loaders=0, progress=False)
    assert result.leaks == [["train/ants/0.jpg", "val/ants/copy.jpg"]]
    assert result.conflicts == [["train/ants/1.jpg", "train/bees/copy.jpg"]]
    assert result.repeats == [["train/ants/2.jpg", "train/ants/copy.jpg"]]
    assert {entry["file"]: entry["what"] for entry in result.oddities} == {
        "train/ants/tiny.jpg": "is very small: 8 x 8 pixels",
        "train/ants/long.jpg": "is very long: 400 x 40 pixels",
    }
    assert result.ok and "the same bytes in train and val" in result.summary()


def test_a_folder_of_classes_needs_no_split(data):
    result = check(data / "train", loaders=0, progress=False)
    assert result.ok and result.counts == {"all": {"ants": 5, "bees": 5}}


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        check(tmp_path / "gone", progress=False)
    with pytest.raises(DataError, match="holds no folders"):
        check(tmp_path, progress=False)


@pytest.mark.skipif(not DATA, reason="TRUNKLINE_TEST_DATA is unset: the awkward images are not at hand")
def test_awkward_images_in_a_class_folder(tmp_path):
    shutil.copytree(Path(DATA, "awkward"), tmp_path / "data" / "awkward")
    found = problems(check(tmp_path / "data", loaders=2, progress=False))
    assert "a single class, awkward" in found.pop(".")
    bad = ["broken_data_stream", "truncated_end_chunk", "truncated_image", "truncated_jpeg", "i_trns", "mode_16bit"]
    assert {Path(file).stem for file in found} == set(bad)


@pytest.mark.parametrize("left", [0, 1])
def test_skip_is_recommended_only_where_something_is_left(data, tmp_path, left):
    pictures = sorted((data / "val/ants").iterdir())
    for file in pictures[left:]:
        file.write_bytes(b"no picture")
    assert ("on_bad_sample=skip leaves out" in str(check(data, loaders=0, progress=False))) == bool(left)
    boxes, pairs = (
        write_box_scenes(tmp_path / "boxes", train=2, val=2, size=64),
        write_pixel_scenes(tmp_path / "pairs", train=2, val=2, size=64),
    )
    for root, form, place in ((boxes, "coco", "JPEGImages/val_*"), (pairs, "pairs", "images/val/*")):
        for file in sorted(root.glob(place))[left:]:
            file.write_bytes(b"no picture")
        found = str(check(root, format=form, loaders=0, progress=False))
        assert "header is damaged" in found and ("on_bad_sample=skip leaves out" in found) == bool(left)


def test_skip_is_not_recommended_where_all_of_a_table_or_a_class_is_missing(data, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "table").mkdir(exist_ok=True)
        (tmp_path / f"table/{split}.csv").write_text("file,label\na.jpg,ant\nb.jpg,bee\n")
    found = str(check(tmp_path / "table", format="csv", loaders=0, progress=False))
    assert "there is no picture a.jpg" in found and "on_bad_sample=skip" not in found
    with pytest.raises(DataError) as error:
        read_splits(tmp_path / "table", form="csv")
    assert "there is no picture a.jpg" in str(error.value) and "on_bad_sample=skip" not in str(error.value)
    (data / "train/wasps").mkdir()
    (data / "train/wasps/notes.txt").write_text("x")
    assert "on_bad_sample=skip" not in str(check(data, loaders=0, progress=False)), "the class would be empty"
    (data / "train/bees/notes.txt").write_text("x")
    assert "on_bad_sample=skip leaves out 1" in str(check(data, loaders=0, progress=False))
    (tmp_path / "loose/train").mkdir(parents=True)
    photo(tmp_path / "loose/train/a.jpg")
    (tmp_path / "loose/val").mkdir()
    assert "on_bad_sample=skip" not in str(check(tmp_path / "loose", loaders=0, progress=False))


@pytest.mark.parametrize("left", [False, True])
def test_bad_boxes_are_left_out_only_where_another_is_left(tmp_path, left):
    root = write_box_scenes(tmp_path / "boxes", train=2, val=2, size=64)
    file = root / "annotations/instances_val.json"
    said = json.loads(file.read_text())
    for one in said["annotations"][left:]:
        one["bbox"][2] = 0
    file.write_text(json.dumps(said))
    found = str(check(root, format="coco", loaders=0, progress=False))
    assert "a box without area" in found and ("on_bad_box=skip leaves out" in found) == left
    with pytest.raises(DataError) as error:
        read_split(Options(data=str(root)), "val")
    assert ("on_bad_box=skip" in str(error.value)) == left


@pytest.mark.parametrize("name", ["validation", "valid", "test"])
def test_folders_that_may_be_splits_of_another_name_are_said(data, name):
    shutil.copytree(data / "val", data / name)
    assert f"{name}/: is not read: train/ and val/ are" in str(check(data, loaders=0, progress=False))
    shutil.rmtree(data / "val")
    assert f"give val=0.2 to hold out a fifth of each class. Rename {name}/ to val/" in str(
        check(data, loaders=0, progress=False)
    )
