"""Polygons of labelling tools are drawn as classes; each tool's way of overlapping is kept."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "detection"))
import label_work as work

import trunkline
from trunkline.ground.errors import DataError
from trunkline.tasks.check import check
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.splits import read_split

pytest.importorskip("pycocotools")
FIRST = work.shape("ant", [[10, 10], [50, 10], [50, 40], [10, 40]])
SECOND = work.shape("bee", [[40, 20], [80, 20], [80, 60], [40, 60]])


def masks_of(root: Path, form: str, **changed):
    samples = read_split(Options(data=str(root), format=form, crop=32, **changed), "train")
    return samples, samples[0].targets["mask"].numpy()


@pytest.fixture
def labelme(tmp_path) -> Path:
    for split in ("train", "val"):
        work.labelme_of(tmp_path / "labelme" / split, FIRST, SECOND)
    return tmp_path / "labelme"


def test_of_labelme_the_later_shape_covers_the_earlier(labelme):
    samples, mask = masks_of(labelme, "labelme")
    expected = np.zeros((64, 96), np.uint8)
    expected[10:40, 10:50] = 1
    expected[20:60, 40:80] = 2
    assert samples.classes == ("background", "ant", "bee") and (mask == expected).all()
    assert "where shapes overlap, the later one covers the earlier, as LabelMe draws them" in samples.remarks()
    assert check(labelme, task="segmentation", loaders=0, progress=False).counts["train"] == {
        "background": int((expected == 0).sum()), "ant": int((expected == 1).sum()), "bee": int((expected == 2).sum())
    }  # fmt: skip


@pytest.mark.parametrize("form", ["coco", "yolo-seg", "labelstudio"])
def test_of_the_others_what_overlaps_is_void(labelme, tmp_path, form):
    trunkline.convert("data", labelme, format=form, out=tmp_path / form, source_format="labelme")
    _, mask = masks_of(tmp_path / form, form)
    assert (mask[20:40, 40:50] == 255).all() and (mask == 255).sum() == 200
    assert (mask == 1).sum() == 1000 and (mask == 2).sum() == 1400
    _, mask = masks_of(tmp_path / form, form, categories=("bee",))
    assert (mask == 1).sum() == 1600 and (mask == 255).sum() == 0


def test_rectangles_are_filled_where_labelme_fills_them_and_refused_elsewhere(tmp_path):
    work.labelme_of(tmp_path / "in/train", FIRST, work.shape("bee", [[80, 60], [70, 50]], "rectangle"))
    samples, mask = masks_of(tmp_path / "in", "labelme")
    assert (mask[50:60, 70:80] == 2).all() and (mask == 2).sum() == 100
    assert any("1 rectangle filled" in remark for remark in samples.remarks())
    trunkline.convert("data", tmp_path / "in", format="yolo", out=tmp_path / "yolo", source_format="labelme")
    with pytest.raises(DataError, match=r"objects whose masks cannot be used:\n.*has no mask"):
        masks_of(tmp_path / "yolo", "yolo")


def test_one_set_is_divided_by_a_share(tmp_path):
    for name in ("a", "b", "c"):
        work.labelme_of(tmp_path / f"in/{name}", FIRST)
    sizes = [
        len(read_split(Options(data=str(tmp_path / "in"), format="labelme", val=("0.34",), crop=32), split))
        for split in ("train", "val")
    ]
    assert sizes == [2, 1]


def test_settings_that_a_format_does_not_read_are_refused(labelme):
    with pytest.raises(DataError, match="annotator: data of format=labelme has no use for this"):
        masks_of(labelme, "labelme", annotator="first")
