"""SBD's masks beside VOC's, and a look at whole folders of masks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trunkline.ground.errors import DataError, RecipeError
from trunkline.heads.contract import Batch
from trunkline.heads.pixels.pixel_head import PixelPrediction
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.score.score_masks import masks as score_masks
from trunkline.tasks.check import check
from trunkline.tasks.contract import Sample
from trunkline.tasks.segmentation.evaluator import PixelEvaluator
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.splits import read_split
from trunkline.tasks.segmentation.transforms import eval_transform
from trunkline.tasks.segmentation.views import see

savemat = pytest.importorskip("scipy.io").savemat


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (value, 90, 90)).save(path)


def png(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12), value, np.uint8)).save(path)


def mat(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.full((8, 12), value, np.uint8)
    savemat(path, {"GTcls": {"Segmentation": labels, "CategoriesPresent": value}}, do_compression=True)


@pytest.fixture
def both(tmp_path) -> Path:
    """VOC has a and b to train on and v to score; SBD has b, c and v to train on, d and e to score."""
    voc, sbd = tmp_path / "VOCdevkit/VOC2012", tmp_path / "benchmark_RELEASE/dataset"
    for number, name in enumerate("abcdv"):
        picture(voc / f"JPEGImages/{name}.jpg", number)
    picture(sbd / "img/e.jpg", 9)  # SBD alone has this one
    for name in "abv":
        png(voc / f"SegmentationClass/{name}.png", 1)
    for name in "bcdev":
        mat(sbd / f"cls/{name}.mat", 2)
    lists = voc / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    wanted = {lists / "train": "ab", lists / "val": "v", sbd / "train": "bcv", sbd / "val": "de"}
    for file, names in wanted.items():
        file.with_suffix(".txt").write_text("\n".join(names))
    return tmp_path


def test_sbd_joins_the_training_without_what_voc_scores(both):
    options = Options(data=str(both), sbd="benchmark_RELEASE/dataset")
    train, val = read_split(options, "train"), read_split(options, "val")
    assert [train.id(i) for i in range(len(train))] == list("abcde") and [val.id(0)] == ["v"]
    assert [int(train[i].targets["mask"].unique()) for i in range(5)] == [1, 1, 2, 2, 2]  # VOC's own masks come first
    assert train.source(4).endswith("benchmark_RELEASE/dataset/img/e.jpg") and int(val.labels(0).max()) == 1
    alone = Options(data=str(both), sbd="benchmark_RELEASE/dataset", train=("ImageSets/Segmentation/train.txt",))
    assert len(read_split(alone, "train")) == 2
    with pytest.raises(DataError, match=r"there is no .*missing/cls/"):
        read_split(Options(data=str(both), sbd="missing"), "train")
    with pytest.raises(DataError, match="expected a folder below data"):
        read_split(Options(data=str(both / "VOCdevkit"), sbd="../benchmark_RELEASE/dataset"), "train")


def test_what_is_scored_is_not_trained_on(both):
    options = Options(data=str(both), sbd="benchmark_RELEASE/dataset", val=("../../benchmark_RELEASE/dataset/val.txt",))
    train, val = read_split(options, "train"), read_split(options, "val")
    assert [[s.id(i) for i in range(len(s))] for s in (train, val)] == [["a", "b", "c", "v"], ["d", "e"]]
    assert val.groups(False) is not None and set(val.groups(False).tolist()) == {8 << 32 | 12}  # pictures' sizes


def test_sbd_alone(both):
    for name in "bcd":
        picture(both / f"benchmark_RELEASE/dataset/img/{name}.jpg", 1)
    options = Options(data=str(both), format="sbd")
    with pytest.raises(DataError, match=r"v: there is no benchmark_RELEASE/dataset/img/v.jpg"):
        read_split(options, "train")
    picture(both / "benchmark_RELEASE/dataset/img/v.jpg", 1)
    assert [len(read_split(options, split)) for split in ("train", "val")] == [3, 2]
    with pytest.raises(DataError, match="holds no SBD data"):
        read_split(Options(data=str(both / "VOCdevkit"), format="sbd"), "train")


def test_a_damaged_mat_file_is_named(both):
    file = both / "benchmark_RELEASE/dataset/cls/c.mat"
    samples = read_split(Options(data=str(both), sbd="benchmark_RELEASE/dataset"), "train")
    whole = file.read_bytes()
    savemat(file, {"other": 1})
    texts = [(file.read_bytes(), "KeyError"), (whole[:150], "damaged"), (b"", "is empty"), (b"MATLAB" * 30, "damaged")]
    savemat(file, {"GTcls": {"Segmentation": np.zeros((2, 3, 4))}})
    texts += [(file.read_bytes(), "expected a number a pixel"), (bytes(5 << 20), "bytes; a mask of SBD")]
    mat(file, 77)
    texts += [(file.read_bytes(), r"77 in 96 pixels; expected 0 to 20, 255")]
    for data, said in texts:
        file.write_bytes(data)
        with pytest.raises(DataError, match=rf"c\.mat: .*{said}"):
            samples.labels(2)


def test_check_counts_the_pixels_and_names_what_is_wrong(tmp_path, capsys):
    data = write_pixel_scenes(tmp_path / "data", train=6, val=3, size=48)
    found = check(data, loaders=0, progress=False)
    assert found.ok and found.counted == "pixels" and sum(found.counts["train"].values()) <= 6 * 48 * 48
    masks = sorted((data / "masks/train").glob("*.png"))
    truth = [np.asarray(Image.open(m)) for m in masks]
    assert found.counts["train"]["background"] == sum(int((t == 0).sum()) for t in truth)
    Image.fromarray(np.full((48, 48), 255, np.uint8)).save(masks[0])
    Image.fromarray(np.full((47, 48), 1, np.uint8)).save(masks[1])
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(masks[2])
    masks[3].write_bytes(b"nonsense")
    images = sorted((data / "images/train").iterdir())
    (data / "images/val/again.png").write_bytes(images[4].read_bytes())
    (data / "masks/val/again.png").write_bytes(masks[4].read_bytes())
    assert main(["check", str(data), "--json", "--workers", "2"]) == 2
    said = json.loads(capsys.readouterr().out)
    what = " ".join(problem["what"] for problem in said["problems"])
    assert "48 x 48 pixels; its mask 48 x 47" in what and "99 in 2,304 pixels" in what and "is no picture" in what
    assert (
        len(said["problems"]) == 3
        and "no pixel of any class" in said["oddities"][0]["what"]
        and len(said["leaks"]) == 1
    )


def test_results_have_the_numbers_of_the_data(tmp_path):
    """So that they can be scored beside its masks."""
    for name, value in (("a", 7), ("b", 128)):
        picture(tmp_path / f"images/val/{name}.png", value)
        png(tmp_path / f"masks/val/{name}.png", value)
    (tmp_path / "classes.txt").write_text("128 road\n7 wall\n9 sky\n")
    samples = read_split(
        Options(data=str(tmp_path), format="pairs", written=True), "val", ["wall", "tree", "road", "sky"]
    )
    evaluator = PixelEvaluator(samples)
    batch = Batch(
        "segmentation", ["val/a", "val/b"], targets={"mask": [samples[0].targets["mask"], samples[1].targets["mask"]]}
    )
    said = [PixelPrediction(f"val/{name}", np.full((8, 12), n, np.uint8)) for name, n in (("a", 0), ("b", 2))]
    records = evaluator.measure(batch, said)
    for name, content in evaluator.results(records).items():
        (tmp_path / "found" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "found" / name).write_bytes(content)
    found = score_masks(tmp_path / "masks/val", tmp_path / "found/val", classes=129, boundary=True)
    assert found.metrics["mIoU"] == 1.0 and found.metrics["boundary_IoU"] == 1.0
    assert samples.encoding.stored[1] not in (7, 9, 128)  # a class that the data lacks is written as none of its own
    (tmp_path / "masks/val/.a.png").write_bytes(b"what a file manager leaves behind")
    assert score_masks(tmp_path / "masks/val", tmp_path / "found/val", classes=129).counts["masks"] == 2
    (tmp_path / "names.txt").write_text("x\n" * 129)
    with pytest.raises(RecipeError, match="has x twice"):
        score_masks(tmp_path / "masks/val", tmp_path / "found/val", classes=129, names=tmp_path / "names.txt")


def test_settings_that_cannot_be_are_refused_before_anything_is_read():
    for key, value, said in (
        ("tiles", 20, "windows of 64 pixels or more"), ("cross_entropy", 0.0, "every loss has the weight 0"),
        ("cat_max_ratio", 0, "up to 1"), ("palette", "[[300,0,0]]", "three numbers from 0 to 255"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=said):
            resolve("segment", {"data": "x", f"tasks.segmentation.{key}": value})
    with pytest.raises(RecipeError, match=r"overlap=0.6: of windows of 64 pixels expected up to 0.50"):
        resolve("segment", {"data": "x", "tasks.segmentation.tiles": 64, "tasks.segmentation.overlap": 0.6})
    with pytest.raises(RecipeError, match=r"optimizer.rates.heads=-1.0: expected a number above 0"):
        resolve("segment", {"data": "x", "optimizer.rates.heads": -1})


def test_a_crf_takes_pictures_up_to_a_size():
    sample = Sample("a", "a.jpg", torch.zeros(3, 2001, 2000, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"a\.jpg: is 2000 x 2001 pixels; crf=true takes up to 2 million"):
        eval_transform(Options(crf=True))(sample)
    assert eval_transform(Options())(sample).image.shape == (3, 2001, 2000)


def test_all_windows_of_a_picture_are_seen_at_one_zoom():
    sizes = []

    def logits(image):
        sizes.append(tuple(image.shape[-2:]))
        return image.new_zeros(2, *image.shape[-2:]).float()

    list(see(torch.zeros(3, 64, 100, dtype=torch.uint8), logits, Options(tiles=64, size=128, overlap=0.0)))
    assert sizes == [(128, 128), (128, 72)]


def test_check_knows_the_formats(both, tmp_path, capsys):
    voc = both / "VOCdevkit/VOC2012"
    assert main(["check", str(voc), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["train"]["aeroplane"] == 2 * 96
    (voc / "Annotations").mkdir()
    assert main(["check", str(voc), "masks=true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counted"] == "pixels"
    assert main(["check", str(tmp_path), "masks=true", "--format", "pairs"]) == 2
    assert "masks=true" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--format", "camvid", "--json"]) == 2
    assert "there is no folder train/" in json.loads(capsys.readouterr().out)["problems"][0]["what"]
