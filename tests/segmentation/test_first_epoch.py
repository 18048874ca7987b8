"""Counts over all masks come after the first epoch, whoever decoded them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkline.pipelines.command.cli import main
from trunkline.tasks.segmentation.formats.tally import Tally, counted
from trunkline.tasks.segmentation.options import Options
from trunkline.tasks.segmentation.scenes import write_pixel_scenes
from trunkline.tasks.segmentation.splits import read_split

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """40 masks, of which the last alone has void: a hundredth of all pixels."""
    folder = write_pixel_scenes(tmp_path_factory.mktemp("pixels") / "data", train=40, val=4, size=32)
    last = sorted((folder / "masks/train").iterdir())[-1]
    mask = np.array(Image.open(last))
    mask.flat[:410] = 255
    made = Image.fromarray(mask)
    made.putpalette(Image.open(last).getpalette() or [])
    made.save(last)
    return folder


@pytest.mark.parametrize("loaders", [0, 2])
def test_the_first_epoch_counts_all_masks(data, tmp_path, loaders):
    words = ["train", "segment", f"data={data}", "format=pairs", "weights=none", "backbone=narrow", "head=fcn", "crop=16",
             "batch=8", "epochs=2", "machine.threads=1", f"machine.loaders={loaders}", "machine.precision=fp32",
             "log.tensorboard=false", "evaluation.times=1", "--run", str(tmp_path / "run")]  # fmt: skip
    assert main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    notes = [line["text"] for line in lines if line["kind"] == "note"]
    masks = [np.asarray(Image.open(file)) for file in (data / "masks/train").iterdir()]
    share = sum(int((mask == 255).sum()) for mask in masks) / sum(mask.size for mask in masks)
    said = (
        f"{share:.1%} of the pixels of all 40 masks of train, counted in the first epoch are void: 255, by classes.txt"
    )
    assert said in notes


def test_what_several_workers_saw_is_one_count():
    one, other = Tally.of(3, 2), Tally.of(3, 2)
    one.add(0, np.array([[0, 0, 255]], np.uint8))
    other.add(0, np.array([[0, 0, 255]], np.uint8))
    other.add(2, np.array([[0, 0, 0, 0, 0, 0, 0, 255, 255]], np.uint8))
    said = counted([one.state(), other.state()], ("a", "b"), "train", "255, by void=")
    assert said == [
        "25.0% of the pixels of 2 of the 3 masks of train, counted in the first epoch are void: 255, by void=",
        "no pixel of b in 2 of the 3 masks of train, counted in the first epoch",
    ]


def test_a_small_split_is_counted_at_the_start_alone(data):
    samples = read_split(Options(data=str(data), format="pairs", crop=16), "val")
    samples.watch()
    assert samples.seen() is None and samples.watched([None]) == []
