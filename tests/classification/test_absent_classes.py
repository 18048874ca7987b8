"""A test set that lacks classes, or has empty ones, is scored for those that are there; another name is a typing error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from short_run import SHORT, photos

from trunkline.ground.errors import DataError
from trunkline.pipelines.api import check, evaluate, predict
from trunkline.pipelines.command.cli import main
from trunkline.tasks.classification.folders import read_splits
from trunkline.tasks.scores import metrics_in


def shards_of(data: Path, root: Path) -> Path:
    import tarfile

    root.mkdir()
    for split in data.iterdir():
        if split.is_dir():
            with tarfile.open(root / f"{split.name}-0.tar", "w") as archive:
                archive.add(split, ".")
    return root


PLACES = {
    "folders": lambda data, tmp_path: data,
    "address": lambda data, tmp_path: f"file://{data}",
    "shards": lambda data, tmp_path: shards_of(data, tmp_path / "shards"),
}


@pytest.mark.parametrize("place", PLACES)
def test_scores_are_of_the_classes_that_are_there(short_run, data, tmp_path, place, capsys):
    """Against the predictions of each file: top-1 is over all files, the classes of the model all stand in the matrix."""
    shutil.rmtree(data / "val/circle")
    scores = evaluate(short_run, data=str(PLACES[place](data, tmp_path)), loaders=0)
    told = capsys.readouterr()
    assert "no file of circle: scored over the 9 of 10 classes that are there" in told.out + told.err
    said = {Path(p.file): p.label for p in predict(short_run, data / "val")}
    right = {file: label == file.parent.name for file, label in said.items()}
    assert len(said) == 18 and scores.samples == 18
    assert scores.metrics["top1"] == pytest.approx(np.mean([*right.values()]))
    each = {c.name: [r for f, r in right.items() if f.parent.name == c.name] for c in (data / "train").iterdir()}
    shares = [np.mean(own) for own in each.values() if own]
    assert len(shares) == 9 and scores.metrics["mean_per_class"] == pytest.approx(np.mean(shares))
    per_class = {row["name"]: row for row in scores.details["per_class"]}
    assert per_class["circle"] == {"name": "circle", "samples": 0, "accuracy": None, "low": None, "high": None}
    assert len(per_class) == len(scores.details["confusion"]) == len(scores.details["confusion"][0]) == 10
    assert scores.notes == ("mean_per_class: a mean over 9 of 10 classes; no sample: circle",)


def test_empty_folders_and_folders_without_a_photo_are_as_absent_ones(short_run, data, capsys):
    for photo in (data / "val/circle").iterdir():
        photo.unlink()
    own = evaluate(short_run, data=str(data), loaders=0)
    (data / "val/circle").rmdir()
    assert evaluate(short_run, data=str(data), loaders=0).metrics == own.metrics
    (data / "val/circle").mkdir()
    (data / "val/circle/notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"circle/notes\.txt: is no photo by its name"):
        evaluate(short_run, data=str(data), loaders=0)
    assert evaluate(short_run, data=str(data), on_bad_sample="skip", loaders=0).metrics == own.metrics


def test_a_test_set_without_any_picture_is_refused(data):
    classes = read_splits(data)["train"].classes
    for photo in photos(data, "val"):
        photo.unlink()
    for known in (None, classes):
        with pytest.raises(DataError, match="val/: holds no file of any class"):
            read_splits(data, classes=known)


@pytest.mark.parametrize("place", PLACES)
def test_a_class_that_is_misspelt_is_refused_with_the_nearest_names(data, tmp_path, place):
    classes = read_splits(data)["train"].classes
    (data / "val/circle").rename(data / "val/circel")
    for known, first in ((None, "train/"), (classes, "the checkpoint")):
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        with pytest.raises(DataError) as caught:
            read_splits(PLACES[place](data, tmp_path), classes=known)
        text = str(caught.value)
        assert f"the classes of {first} and val/ differ" in text and "circel; nearest: circle" in text
        assert "only in val/: circel (1)" in text and f"only in {first}: circle (1)" in text


def test_a_class_too_many_is_refused(data):
    classes = read_splits(data)["train"].classes
    shutil.copytree(data / "val/circle", data / "val/zeppelin")
    for known in (None, classes):
        with pytest.raises(DataError, match=r"only in val/: zeppelin \(1\)"):
            read_splits(data, classes=known)


def test_a_part_of_an_undivided_folder_is_scored_too(short_run, data):
    shutil.rmtree(data / "train/circle")
    scores = evaluate(short_run, data=str(data / "train"), val=0.5, loaders=0)
    assert scores.notes == ("mean_per_class: a mean over 9 of 10 classes; no sample: circle",)


def test_what_is_trained_on_has_all_its_classes(data, tmp_path, capsys):
    """An empty class is a problem in train/, and one that is only not scored in val/."""
    for photo in [p for p in photos(data, "val") if p.parent.name == "circle"]:
        photo.unlink()
    shutil.rmtree(data / "val/heart")
    words = ["train", "transfer", f"data={data}", "--run", str(tmp_path / "run"), *SHORT]
    assert main(words) == 0
    told = capsys.readouterr()
    line = "no file of circle, heart: scored over the 8 of 10 classes that are there"
    assert f"val: {line}" in told.out + told.err
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["notes"] == ["mean_per_class: a mean over 8 of 10 classes; no sample: circle, heart"]
    assert all(value is not None for value in metrics_in(scores).values())
    found = check(data, progress=False, loaders=0)
    assert found.ok and {"file": "val/", "what": line} in found.oddities
    for photo in [p for p in photos(data) if p.parent.name == "circle"]:
        photo.unlink()
    with pytest.raises(DataError, match="train/circle: the class holds no files"):
        read_splits(data)
    assert [p["file"] for p in check(data, progress=False, loaders=0).problems] == ["train/circle"]


@pytest.mark.parametrize("empty", [False, True])
def test_ants_alone_for_a_model_of_ants_and_bees(shared_data, tmp_path, empty, one_core, capsys):
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for cls in ("ant", "bee"):
            (tmp_path / "data" / split / cls).mkdir(parents=True)
            for n in range(4):
                Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(
                    tmp_path / "data" / split / cls / f"{n}.png"
                )
    run = tmp_path / "run"
    assert main(["train", "transfer", f"data={tmp_path / 'data'}", "--run", str(run), *SHORT]) == 0
    test = shutil.copytree(
        shared_data / "cases/07-test-lacks-class" / ("E3b-test-empty" if empty else "E3-test"), tmp_path / "t"
    )
    if empty:
        (test / "val/bee").mkdir(exist_ok=True)
    capsys.readouterr()
    assert main(["evaluate", str(run), f"data={test}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 3 and found["mean_per_class"] == found["top1"]
    assert found["auroc"] is None and "auroc" not in found["intervals"]
    assert [(c["name"], c["samples"], c["accuracy"] is None) for c in found["details"]["per_class"]] == [
        ("ant", 3, False), ("bee", 0, True)]  # fmt: skip
    assert found["notes"] == [
        "mean_per_class: a mean over 1 of 2 classes; no sample: bee", "auroc: none, as it needs samples of both classes"
    ]  # fmt: skip
