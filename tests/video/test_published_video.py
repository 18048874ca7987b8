"""Published recipes for clips: their settings, their views, and that each runs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.backbones.contract import Preprocessing
from trunkline.cluster.engines.schedule import factor
from trunkline.ground.errors import RecipeError
from trunkline.pipelines.command.cli import main
from trunkline.pipelines.recipe.knobs import resolve
from trunkline.pipelines.recipes.table import RECIPES
from trunkline.tasks.contract import Sample
from trunkline.tasks.video.options import Options
from trunkline.tasks.video.sampling import fixed_frames
from trunkline.tasks.video.scenes import write_clips
from trunkline.tasks.video.transforms import TrainTransform, cropped

OURS = sorted(name for name, place in RECIPES.items() if "published.video" in place)


def recipe(name: str, **given):
    return resolve(name, {"data": "clips", **given}).recipe


def test_all_are_in_the_table_and_ask_for_their_data():
    assert OURS == ["kinetics-resnet3d", "kinetics-slowfast", "kinetics-tsm", "ucf101"]
    for name in OURS:
        with pytest.raises(RecipeError, match="data= is missing: give the folder with"):
            resolve(name, {})


@pytest.mark.parametrize(
    ("name", "given", "lr", "batch", "epochs", "frames", "views"),
    [
        ("kinetics-resnet3d", {}, 0.64, 1536, 45, 16, 5),
        ("kinetics-resnet3d", {"backbone": "r3d_18", "batch": "768"}, 0.32, 768, 45, 16, 5),
        ("kinetics-tsm", {}, 0.02, 128, 50, 8, 1),
        ("kinetics-tsm", {"sampling": "dense", "batch": "64"}, 0.01, 64, 100, 8, 1),
        ("kinetics-slowfast", {}, 0.1, 64, 196, 32, 1),
        ("ucf101", {}, 0.00128, 256, 75, 3, 1),
        ("ucf101", {"head": "lstm", "split": "3"}, 2e-4, 8, 15, 16, 1),
    ],
)
def test_settings_are_the_published_ones(name, given, lr, batch, epochs, frames, views):
    found = recipe(name, **given)
    options = found.tasks["action"]
    assert found.optimizer.lr == pytest.approx(lr) and found.batch.size == batch
    assert found.phases[0].epochs == epochs and (options.frames, options.clips) == (frames, views)
    assert options.split == int(given.get("split", 1)) and options.problems() == []


def rates(name: str, epochs, **given):
    """The learning rate at the beginning of these epochs, where an epoch has 100 updates."""
    found = recipe(name, **given)
    total = int(found.phases[0].epochs * 100)
    return [found.optimizer.lr * factor(found.schedule, int(e * 100), total, 100) for e in epochs]


def test_rates_rise_and_fall_where_published():
    assert rates("kinetics-resnet3d", [0, 5, 10, 19.9, 20, 30, 40]) == pytest.approx(
        [0.64e-3, 0.64 * 0.5005, 0.64, 0.64, 0.064, 0.0064, 0.00064]
    )
    assert rates("kinetics-tsm", [0, 19.9, 20, 40]) == pytest.approx([0.02, 0.02, 0.002, 0.0002])
    assert rates("kinetics-tsm", [39.9, 40, 80], sampling="dense") == pytest.approx([0.02, 0.002, 0.0002])
    assert rates("kinetics-slowfast", [0, 34, 115])[:2] == pytest.approx([0.01, 0.1])
    assert rates("ucf101", [0, 74]) == pytest.approx([0.00128, 0.00128])


def test_five_clips_of_a_video_are_what_torchvisions_sampler_takes():
    """UniformClipSampler: of all windows at 15 frames a second, five from the first to the last, rounded down."""
    options = recipe("kinetics-resnet3d").tasks["action"]
    times = np.arange(300) / 30
    at15 = torch.arange(150) * 2  # VideoClips resamples 30 frames a second to 15 by every second frame
    starts = torch.linspace(0, 150 - 16, 5).floor().long()
    expected = torch.stack([at15[s : s + 16] for s in starts])
    assert (fixed_frames(300, times, options).indices == expected.numpy()).all()


def test_training_resizes_before_its_random_crop_where_resize_says_so(tmp_path):
    clips = write_clips(tmp_path / "clips", train=2, val=2, size=40)
    folder = Path(clips) / "train/falls/00000"
    sample, p = Sample("clip", folder, torch.empty(0, dtype=torch.uint8), {}), Preprocessing(size=24, resize=24)
    options = Options(frames=2, resize=(24, 36), sampling="stride", augment=True)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        found = TrainTransform(p, options, flip=0.0)(sample).image
        assert found.shape == (3, 2, 24, 24)
        seen.add(found.numpy().tobytes())
    assert len(seen) > 1
    frames = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    frames[..., 30:] = 200
    one, two = (cropped(frames, p, dataclasses.replace(options, resize=r)) for r in ((48,), (48, 48)))
    assert one.shape == two.shape == (1, 1, 3, 24, 24)
    assert torch.equal(one[0, 0, 0, 0] > 100, torch.arange(24) >= 12)


@pytest.mark.parametrize("name", ["kinetics-tsm", "ucf101"])
def test_smoke_variants_run(name, tmp_path):
    assert (
        main(["train", name, "smoke=true", "machine.threads=1", "machine.loaders=0", "--run", str(tmp_path / "run")])
        == 0
    )
    assert (tmp_path / "run/scores.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ["kinetics-slowfast"],
        ["kinetics-tsm", "sampling=dense"],
        ["ucf101", "head=lstm"],
        ["kinetics-resnet3d"],
        ["kinetics-resnet3d", "backbone=r3d_18"],
    ],
)
def test_other_smoke_variants_run(given, tmp_path):
    assert main(["train", *given, "smoke=true", "machine.loaders=0", "--run", str(tmp_path / "run")]) == 0
