"""Acceptance of super-resolution on real pictures: T91 for training, Set5 for the score, two cores."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_run import run
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.tasks.intervals import bootstrap
from trunkline.tasks.super_resolution.options import Options
from trunkline.tasks.super_resolution.resize import shrunk
from trunkline.tasks.super_resolution.splits import read_split

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
HELD_OUT = ("val=0.1", "together=t36+t65")  # these two show one scene
ASKED = 31.05
"""dB on Set5 x4; bicubic has 28.42, a plain loop of 18 minutes on one core 31.10."""


def done(*words: object) -> tuple[str, float]:
    found, seconds = run(*words)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout, seconds


def set5(data: Path, weights: Path, out: Path) -> dict[str, float]:
    done("predict", weights, data / "sr/Set5/LRx4_mirror", f"out={out}")
    words = ("score", "images", data / "sr/Set5/HR", out, "--scale", "4", "more=haarpsi,gmsd", "--json")
    return {name: value for name, value in json.loads(done(*words)[0]).items() if isinstance(value, float)}


@pytest.fixture(scope="module")
def trained(shared_data, tmp_path_factory) -> dict[int, tuple[Path, dict[str, float], float]]:
    """For each seed the run, its scores on Set5, and the seconds that its training took."""
    folder, found = tmp_path_factory.mktemp("upscale"), {}
    for seed in SEEDS:
        place = folder / f"seed{seed}"
        knobs = (f"data={shared_data / 'sr/T91'}", *HELD_OUT, f"seed={seed}")
        _, seconds = done("train", "upscale", *knobs, "--run", place)
        found[seed] = place, set5(shared_data, place, folder / f"set5-{seed}"), seconds
        print(f"\nseed {seed}: {seconds:.0f} s, {found[seed][1]}")
    return found


def test_the_default_recipe_on_set5(trained):
    found = [scores["psnr_y"] for _, scores, _ in trained.values()]
    assert statistics.median(found) >= ASKED, found


def test_against_a_critic_pictures_look_nearer_to_the_truth(trained, shared_data, tmp_path):
    """Five minutes lower a distance that is not in the loss, over Set5 and the pictures held out."""
    start, before, _ = trained[SEEDS[0]]
    network = CifarResNet(shared_data / "cifar10/resnet20-12fca82f.th")
    assert network.accuracy(shared_data / "cifar10/test_batch.bin") > 0.9  # it is what its file says
    knobs = (f"data={shared_data / 'sr/T91'}", *HELD_OUT, f"weights={start}", "updates=0", "adversarial=240",
             f"perceptual={shared_data / 'weights/resnet50_v1.safetensors'}")  # fmt: skip
    _, seconds = done("train", "upscale", *knobs, "--run", tmp_path / "run")
    after = set5(shared_data, tmp_path / "run", tmp_path / "set5")
    print(f"\nagainst a critic, {seconds:.0f} s; before {before}, after {after}")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "train")

    pairs = pictures(shared_data, tmp_path / "small")
    large = {}
    for name, weights in (("before", start), ("after", tmp_path / "run")):
        done("predict", weights, tmp_path / "small", f"out={tmp_path / name}")
        large[name] = [tmp_path / name / f"{key}.png" for key in pairs]
    found = np.array([[network.distance(pixels(made), truth) for made, truth in zip(large[name], pairs.values(), strict=True)]
                      for name in ("before", "after")])  # fmt: skip
    change = found[1] - found[0]
    (low,), (high,) = bootstrap(lambda weights: (weights @ change / weights.sum(1))[:, None], len(change))
    print(
        f"distance {found.mean(1)}, paired change {change.mean():.5f} ({low:.5f} to {high:.5f}), {len(change)} pictures"
    )
    assert high < 0, change
    assert after["psnr_y"] > before["psnr_y"] - 2, "the trade in PSNR"


def pictures(data: Path, small: Path) -> dict[str, np.ndarray]:
    """Write the small pictures of Set5 and of the held-out part of T91, and return the true ones by name."""
    small.mkdir()
    found = {}
    held = read_split(Options(data=str(data / "sr/T91"), val="0.1", together=("t36+t65",)), "val")
    for file in [*sorted((data / "sr/Set5/HR").iterdir()), *(held.source(i) for i in range(len(held)))]:
        large = pixels(file)
        large = large[: large.shape[0] // 4 * 4, : large.shape[1] // 4 * 4]
        Image.fromarray(shrunk(large, 4, "mirror")).save(small / f"{file.stem}.png")
        found[file.stem] = large
    return found


def pixels(file: Path) -> np.ndarray:
    return np.array(Image.open(file).convert("RGB"))


class CifarResNet(nn.Module):
    """The published ResNet-20 of CIFAR-10 (He et al. 2016, section 4.2, shortcuts A), whose stages give the distance."""

    def __init__(self, file: Path):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        width = 16
        for stage in (1, 2, 3):
            blocks = []
            for block in range(3):
                blocks.append(_Block(width, 16 * 2 ** (stage - 1), 2 if stage > 1 and not block else 1))
                width = 16 * 2 ** (stage - 1)
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        tensors = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        self.load_state_dict({name.removeprefix("module."): value for name, value in tensors.items()})
        self.requires_grad_(False).eval()

    def stages(self, images: Tensor) -> list[Tensor]:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = F.relu(self.bn1(self.conv1((images / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))))
        found = []
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
            found.append(x)
        return found

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """The squared difference of maps whose channels have length 1, summed over channels, a mean over places and stages."""
        both = [self.stages(torch.from_numpy(p).permute(2, 0, 1)[None].float()) for p in (one, other)]
        return statistics.mean(
            float((F.normalize(a, eps=1e-10) - F.normalize(b, eps=1e-10)).square().sum(1).mean())
            for a, b in zip(*both, strict=True)
        )

    def accuracy(self, file: Path) -> float:
        rows = torch.from_numpy(np.fromfile(file, np.uint8).reshape(-1, 3073))
        logits = self.linear(self.stages(rows[:, 1:].reshape(-1, 3, 32, 32).float())[-1].mean((2, 3)))
        return float((logits.argmax(1) == rows[:, 0]).double().mean())


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.more = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y + shortcut)
