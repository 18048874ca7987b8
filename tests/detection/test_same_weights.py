"""One data set in every tool's format trains to the same weights, bit for bit."""

# ruff: noqa: F811 - pytest finds fixtures by the names that are imported

import pytest
import torch
from box_work import SHORT, SLIM, own_cache, written  # noqa: F401
from run_work import final

import trunkline
from trunkline.pipelines.command.cli import main

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.usefixtures("one_core")
TOOLS = ("voc", "yolo", "labelme", "labelstudio", "csv")


@pytest.fixture(scope="module")
def layouts(written, tmp_path_factory):
    root = tmp_path_factory.mktemp("layouts")
    (root / "in").mkdir()
    for name in ("JPEGImages", "Annotations", "ImageSets"):
        (root / f"in/{name}").symlink_to(written / name)
    trunkline.convert("data", root / "in", format="coco", out=root / "coco", source_format="voc", strict=True)
    for form in TOOLS:
        lost = trunkline.convert("data", root / "coco", format=form, out=root / form, source_format="coco").lost
        assert lost == []
    for split, folder in (("train", "train"), ("val", "valid")):
        (root / "roboflow").mkdir(exist_ok=True)
        (root / f"roboflow/{folder}").symlink_to(root / f"coco/images/{split}")
        text = (root / f"coco/annotations/instances_{split}.json").read_bytes()
        (root / f"coco/images/{split}/_annotations.coco.json").write_bytes(text)
    for name in ("annotations", "images"):
        (root / f"cvat/{name}").mkdir(parents=True)
    (root / "cvat/annotations/instances_default.json").write_bytes(
        (root / "coco/annotations/instances_train.json").read_bytes()
    )
    for picture in (root / "labelme/train").glob("*.jpg"):
        (root / f"cvat/images/{picture.name}").symlink_to(picture)
    (root / "flat").symlink_to(root / "labelme/train")
    return root


def trained(run, data, form: str, *more: str):
    assert main(["train", "detect", f"format={form}", f"data={data}", "--run", str(run), *SHORT, *SLIM, *more]) == 0
    return final(run)


def same(one, other) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_every_format_trains_to_the_same_weights(layouts, tmp_path):
    first = trained(tmp_path / "coco", layouts / "coco", "coco")
    same(first, trained(tmp_path / "roboflow", layouts / "roboflow", "coco"))
    for form in TOOLS:
        same(first, trained(tmp_path / form, layouts / form, form))


def test_what_is_not_split_trains_to_the_same_weights(layouts, tmp_path):
    """CVAT's instances_default.json beside images/, and LabelMe's files beside pictures, divided by one share."""
    first = trained(tmp_path / "cvat", layouts / "cvat", "coco", "val=0.25")
    same(first, trained(tmp_path / "flat", layouts / "flat", "labelme", "val=0.25"))
