"""The demonstration proves learning: no linear model names its shapes, bicubic is far off, frames without order tell nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import trunkline
from trunkline.pipelines.recipe.demo_data import write
from trunkline.tasks.classification.folders import read_splits


def pixels(samples) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([samples[i].image for i in range(len(samples))]).float()
    small = torch.nn.functional.interpolate(images, 32, mode="area").flatten(1) / 127.5 - 1
    return small, torch.from_numpy(np.asarray(samples.labels))


@pytest.mark.slow  # tests/data/test_scenes.py asks the same of the same scenes before they are files
def test_a_linear_model_on_pixels_stays_below_forty_percent(tmp_path):
    splits = read_splits(write("demo", tmp_path / "data", train=1000, val=300))
    (x, y), (xv, yv) = pixels(splits["train"]), pixels(splits["val"])
    best = 0.0
    for decay in (0.01, 0.1, 1.0):
        torch.manual_seed(0)
        layer = torch.nn.Linear(x.shape[1], 10)
        optimizer = torch.optim.AdamW(layer.parameters(), 1e-3, weight_decay=decay)
        for _ in range(150):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x), y).backward()
            optimizer.step()
        best = max(best, float((layer(xv).argmax(1) == yv).float().mean()))
    assert 0.05 < best < 0.40


@pytest.mark.slow
def test_the_demo_learns_in_five_minutes(tmp_path):
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name("trunkline")), "demo", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, found = time.monotonic() - start, json.loads(done.stdout)
    assert found["top1"] > 0.90
    bicubic = trunkline.score("images", tmp_path / "demo/pictures/val", tmp_path / "demo/bicubic", scale=4).metrics
    assert found["super_resolution"]["psnr_y"] > bicubic["psnr_y"] + 4 > 31
    assert found["super_resolution"]["ssim_y"] > bicubic["ssim_y"] + 0.04
    assert found["action"]["video_top1"] > 0.90  # of two classes that no set of frames tells apart
    assert all(f"train {recipe}" in done.stderr for recipe in ("transfer", "upscale", "action"))  # what to run next
    assert seconds < 300
