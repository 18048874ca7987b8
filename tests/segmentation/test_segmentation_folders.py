"""Folders that are not as they should be: what is left out, what is remarked, what the message says to do."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from short_run import PLAIN

from trunkline.ground.errors import DataError
from trunkline.heads.contract import Batch
from trunkline.heads.pixels.pixel_head import PixelPrediction
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.runs.files import write_folder
from trunkline.tasks.check import check
from trunkline.tasks.segmentation.draw import shaded
from trunkline.tasks.segmentation.evaluator import PixelEvaluator
from trunkline.tasks.segmentation.formats.encoding import read_mask
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.predicted import PredictedMask
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.splits import read_split


@pytest.fixture
def data(tmp_path) -> Path:
    return write_pixel_scenes(tmp_path / "data", train=4, val=3, size=64)


def split_of(data: Path, split: str = "train", **options):
    return read_split(Options(data=str(data), format="pairs", crop=32, **options), split)


def test_skip_leaves_out_what_has_no_mask(data):
    (data / "masks/train/00001.png").unlink()
    with pytest.raises(DataError, match="on_bad_sample=skip leaves them out"):
        split_of(data)
    found = split_of(data, on_bad_sample="skip")
    assert [found.id(i) for i in range(len(found))] == ["train/00000", "train/00002", "train/00003"]
    assert list(found.excluded) == ["train/00001"] and "without a mask" in found.excluded["train/00001"]
    looked = check(data, loaders=0, progress=False)
    assert [p["file"] for p in looked.problems] == ["train/00001"] and sum(
        looked.counts["train"].values()
    ) > 3 * 60 * 60
    shutil.rmtree(data / "masks/train")
    (data / "masks/train").mkdir()
    with pytest.raises(DataError, match="no picture of train can be used"):
        split_of(data, on_bad_sample="skip")


def test_files_that_are_left_out_are_remarked(data):
    Image.new("P", (64, 64)).save(data / "images/train/moving.gif")
    shutil.copy(data / "masks/train/00000.png", data / "masks/train/alone.png")
    notes = split_of(data).remarks()
    assert notes[:2] == ["masks/train: 1 files have no picture and are left out: alone.png",
                         "images/train: 1 files are of no kind of picture that is read and are left out: moving.gif"]  # fmt: skip
    assert re.fullmatch(r"1\.3% of the pixels of all 4 masks of train are void: 255, by classes\.txt", notes[2])
    odd = [odd["what"] for odd in check(data, loaders=0, progress=False).oddities if odd["file"] == "train"]
    assert odd[:2] == notes[:2]


def test_a_mask_that_is_a_jpeg(data, tmp_path, capsys):
    with Image.open(data / "masks/val/00002.png") as mask:
        mask.convert("RGB").save(data / "masks/val/00002.jpg")
    (data / "masks/val/00002.png").unlink()
    with pytest.raises(DataError, match=r"masks/val/00002\.jpg is a JPEG.*: masks are PNGs"):
        split_of(data, "val")
    shutil.copytree(data / "masks/train", tmp_path / "true")
    assert main(["score", "masks", str(tmp_path / "true"), str(data / "masks/val"), "--classes", "7"]) == 2
    assert "val/00002.png: there is no such mask (but a JPEG, which changes numbers)" in capsys.readouterr().err


def test_masks_of_no_class_are_told(data):
    for file in (data / "masks/val").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(file)
    (remark,) = split_of(data, "val").remarks()
    assert "no pixel of any class in all 3 masks of val: do their numbers or colours stand with the classes?" in remark
    assert {"file": "val", "what": "no mask has a pixel of any class"} in check(
        data, loaders=0, progress=False
    ).problems
    samples = split_of(data, "val")
    evaluator = PixelEvaluator(samples)
    masks = [samples[i].targets["mask"] for i in range(3)]
    batch = Batch("segmentation", ["0", "1", "2"], None, torch.tensor([[64, 64]] * 3), {"mask": masks})
    said = [PixelPrediction(str(i), np.zeros((64, 64), np.uint8)) for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluator.add(evaluator.measure(batch, said))
        result = evaluator.result()
    assert set(result.metrics.values()) == {None} and not result.intervals


def test_the_orientation_is_named_where_it_is_the_reason(data):
    for number, orientation in ((0, 1), (1, 6)):
        exif = Image.Exif()
        exif[274] = orientation
        size = (64, 48) if orientation == 1 else (48, 64)
        Image.new("RGB", size).save(data / f"images/train/0000{number}.jpg", exif=exif)
        Image.new("L", (48, 64)).save(data / f"masks/train/0000{number}.png")
    messages = []
    for number in range(2):
        with pytest.raises(DataError) as error:
            _ = split_of(data)[number]
        messages.append(str(error.value))
    turned = "is 64 x 48 (turned by its EXIF orientation: exif=ignore reads it as it is stored)"
    assert "EXIF" not in messages[0] and turned in messages[1]


def test_other_data_are_of_the_run_s_format_and_a_wrong_format_is_guessed(data, tmp_path, capsys, one_core):
    run = tmp_path / "run"
    short = ["format=pairs", "weights=none", "backbone=narrow", "crop=64", "batch=2", "updates=1", "head=fcn",
             *PLAIN]  # fmt: skip
    assert main(["train", "segment", f"data={data}", "--run", str(run), *short]) == 0
    other = write_pixel_scenes(tmp_path / "other", train=2, val=2, size=64, seed=1)
    (tmp_path / ".found.part").mkdir()  # of an evaluation that was killed
    assert main(["evaluate", str(run), f"data={other}", f"results={tmp_path / 'found'}"]) == 0
    assert len(list((tmp_path / "found").rglob("*.png"))) == 2 and not (tmp_path / ".found.part").exists()
    capsys.readouterr()
    assert main(["evaluate", str(run / "weights.safetensors"), f"data={other}"]) == 2
    assert "it looks like format=pairs: give that" in capsys.readouterr().err


def test_a_folder_is_whole_or_not_there(tmp_path):
    class Broken(dict):
        def items(self):
            yield "a/b.txt", "one"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", Broken())
    assert not (tmp_path / "out").exists()
    write_folder(tmp_path / "out", {"a/b.txt": "one", "c": b"two"})
    assert (tmp_path / "out/a/b.txt").read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_colours_are_scored_by_the_list_of_classes(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("128 64 128 road\n0 0 1 wall\n0 0 0 void\n")
    for folder in ("true", "found"):
        (tmp_path / folder).mkdir()
    colours = np.array([[[128, 64, 128], [0, 0, 1], [0, 0, 0], [0, 0, 1]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "true/a.png")
    Image.fromarray(np.array([[0, 1, 1, 0]], np.uint8)).save(tmp_path / "found/a.png")
    words = ["score", "masks", str(tmp_path / "true"), str(tmp_path / "found"), "--json", "--classes"]
    assert main([*words, str(tmp_path / "classes.txt")]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"road": 0.5, "wall": 0.5}
    assert main([*words, str(tmp_path / "none.txt")]) == 2
    assert "there is no such file; expected a number" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "classes.txt"), "--void", "9"]) == 2
    assert "void=: these masks hold colours; name the colour `void` in classes.txt" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("road\nwall\n")
    assert main([*words, str(tmp_path / "classes.txt"), "--names", str(tmp_path / "names.txt")]) == 2
    assert "says the names too; leave names= out" in capsys.readouterr().err


def test_what_is_trained_on_and_scored_is_remarked(tmp_path):
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("a\n")
    for folder, end in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / f"{folder}/a.{end}")
    note, absent = read_split(Options(data=str(tmp_path), crop=8), "train").remarks()
    assert "1 of 1 pictures of the training are in val.txt too" in note
    assert absent.startswith("no pixel of aeroplane, bicycle, ") and absent.endswith(
        "and 12 more in all 1 masks of train"
    )


def test_fractions_and_texts_are_no_masks(tmp_path, data):
    encoding = split_of(data).encoding
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tif")
    (tmp_path / "t.png").write_text("hello")
    for name, said in (("f.tif", "its pixels are fractions"), ("t.png", "is no picture of a format of masks")):
        with pytest.raises(DataError, match=said) as error:
            read_mask(tmp_path / name, encoding)
        assert "BytesIO" not in str(error.value)


def test_a_black_class_is_left_as_it_is():
    picture = torch.full((3, 6, 6), 200, dtype=torch.uint8)
    labels = np.zeros((6, 6), np.uint8)
    labels[:, 3:] = 1
    drawn = np.asarray(shaded(picture, labels, ((0, 0, 0), (128, 0, 0))))
    assert drawn[0, 0].tolist() == [200] * 3 and drawn[0, 5].tolist() == [160, 90, 90]
    caption = PredictedMask("a.jpg", None, {"sky": 0.996, "car": 0.004}, ["sky", "car"]).caption()
    assert caption.replace("\xa0", " ") == "sky 100%, car <1%"
