"""Pictures that their EXIF turns without another size: labels of places in them have two readings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from trunkline.backbones import Preprocessing
from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.data.scan import scan
from trunkline.tasks.detection.options import Options as BoxOptions
from trunkline.tasks.detection.splits import read_split as read_boxes
from trunkline.tasks.detection.task import Detection
from trunkline.tasks.segmentation.options import Options as PixelOptions
from trunkline.tasks.segmentation.splits import read_split as read_pixels

SIZES = {2: (60, 40), 3: (60, 40), 4: (60, 40), 5: (40, 40), 6: (40, 40), 7: (40, 40), 8: (40, 40)}  # width, height


def made(folder, orientation: int, suffix: str):
    """One picture in train and val, labelled as COCO and as pairs of masks; returns its pixels as stored."""
    width, height = SIZES.get(orientation, (60, 40))
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    for split in ("train", "val"):
        (folder / f"images/{split}").mkdir(parents=True)
        (folder / f"masks/{split}").mkdir(parents=True)
        Image.fromarray(pixels).save(folder / f"images/{split}/a.{suffix}", exif=exif, quality=95)
        Image.fromarray(np.arange(height * width).reshape(height, width).astype(np.uint8) % 2).save(
            folder / f"masks/{split}/a.png"
        )
        said = {"images": [{"id": 1, "file_name": f"a.{suffix}", "width": width, "height": height}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9], "area": 81, "iscrowd": 0}],
                "categories": [{"id": 1, "name": "nut"}]}  # fmt: skip
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(said))
    (folder / "classes.txt").write_text("back\nfront\n")
    return folder


def samples_of(folder, kind: str, exif: str):
    if kind == "coco":
        return read_boxes(BoxOptions(data=str(folder), format="coco", exif=exif), "train")
    return read_pixels(PixelOptions(data=str(folder), format="pairs", exif=exif), "train")


@pytest.mark.parametrize("kind", ["coco", "pairs"])
@pytest.mark.parametrize(
    ("orientation", "suffix"), [(2, "jpg"), (3, "png"), (4, "tif"), (5, "jpg"), (6, "webp"), (8, "png")]
)
def test_a_size_that_stays_decides_nothing(tmp_path, kind, orientation, suffix):
    folder = made(tmp_path / "data", orientation, suffix)
    with pytest.raises(DataError, match=rf"a\.{suffix}: its EXIF .*exif=turn .*exif=ignore .*on_bad_sample=skip"):
        _ = samples_of(folder, kind, "stop")[0]
    (said,) = scan(samples_of(folder, kind, "stop"), 0, False).values()  # what on_bad_sample=skip leaves out
    assert said.startswith(str(folder)) and "exif=turn" in said and "on_bad_sample" not in said
    with Image.open(folder / f"images/train/a.{suffix}") as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    turned, stored = (samples_of(folder, kind, exif)[0].image.permute(1, 2, 0).numpy() for exif in ("turn", "ignore"))
    assert np.array_equal(turned, shown)
    back = Image.fromarray(shown)
    back.getexif()[274] = {6: 8, 8: 6}.get(orientation, orientation)
    assert np.array_equal(stored, np.asarray(ImageOps.exif_transpose(back)))


@pytest.mark.parametrize("kind", ["coco", "pairs"])
def test_check_lists_them_and_upright_pictures_are_no_problem(tmp_path, kind):
    found = check(
        made(tmp_path / "turned", 3, "jpg"),
        format=kind,
        task="detection" if kind == "coco" else "segmentation",
        progress=False,
        loaders=0,
    )
    said = [p for p in found.problems if "exif=turn" in p["what"] and "exif=ignore" in p["what"]]
    assert len(said) == 2
    assert check(
        tmp_path / "turned",
        format=kind,
        task="detection" if kind == "coco" else "segmentation",
        progress=False,
        loaders=0,
        exif="turn",
    ).ok
    assert check(
        made(tmp_path / "upright", 1, "jpg"),
        format=kind,
        task="detection" if kind == "coco" else "segmentation",
        progress=False,
        loaders=0,
    ).ok


@pytest.mark.parametrize("exif", ["ignore", "turn", "stop"])
def test_a_task_reads_new_pictures_as_it_was_trained(tmp_path, exif):
    made(tmp_path / "data", 3, "png")
    file = str(tmp_path / "data/images/train/a.png")
    task = Detection(BoxOptions(exif=exif), Preprocessing(), {"classes": ["nut"]})
    with Image.open(file) as image:
        stored = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(task.read(file).image, stored if exif == "ignore" else stored.flip((1, 2)))
