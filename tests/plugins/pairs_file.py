"""Denoising: pictures in pairs, a picture as output, no classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from trunkline.cluster.config import Average, Optimizer
from trunkline.ground.errors import DataError
from trunkline.heads.contract import Batch, Prediction
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.tasks.contract import Sample, Scores, Task
from trunkline.tasks.data.listed import Listed
from trunkline.tasks.fitting import copy_head
from trunkline.tasks.images.decode import read_image
from trunkline.tasks.options import PIXELS, TaskOptions, of_training
from trunkline.tasks.predicted import PredictedPicture
from trunkline.tasks.scores import Metric
from trunkline.tasks.table import Row


@dataclass(frozen=True)
class Options(TaskOptions):
    """`data` holds train/noisy, train/clean, val/noisy and val/clean, with the same names in both of each."""

    crop: int = of_training(32, within=PIXELS)  # training sees squares of so many pixels
    scale: int = 4  # channels of the decoder are so many times 8


@dataclass
class Cleaned(Prediction):
    """`picture` is `(3, H, W)` uint8."""

    picture: np.ndarray


class Decoder(nn.Module):
    """From the stem's map back to the picture's own size, added to the picture."""

    needs = ("c1", "c2")

    def __init__(self, channels, width):
        super().__init__()
        self.up2 = nn.Conv2d(channels["c2"], width, 1)
        self.up1 = nn.Conv2d(channels["c1"], width, 1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, features, batch):
        """Pictures `(N, 3, H, W)` in 0..1, fp32."""
        size = batch.images.shape[-2:]
        x = F.interpolate(self.up2(features["c2"]), features["c1"].shape[-2:]) + self.up1(features["c1"])
        return batch.images.float() / 255 + self.last(F.interpolate(F.relu(x), size)).float()

    def losses(self, features, batch):
        """`l1`: the mean over all pixels of the micro-batch of the distance to the clean picture."""
        return {"l1": (self(features, batch) - batch.targets["clean"].float() / 255).abs().mean()}

    def predict(self, features, batch):
        pictures = (self(features, batch).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        rows = zip(batch.ids, pictures, batch.sizes.tolist(), strict=True)
        return [Cleaned(i, p[:, :h, :w].numpy()) for i, p, (h, w) in rows]

    def condense(self, features):
        return features

    def published(self, tensors):
        return tensors


class Gain:
    """`psnr`: the mean over pictures of 10 log10(255^2 / mean squared error), in dB."""

    metrics = {"psnr": Metric("PSNR", "dB")}

    def __init__(self):
        self.found = []

    def measure(self, batch, predictions):
        clean = batch.targets["clean"].cpu().numpy()
        records = []
        for p, truth in zip(predictions, clean, strict=True):
            h, w = p.picture.shape[-2:]
            error = ((p.picture.astype(np.float64) - truth[:, :h, :w]) ** 2).mean()
            records.append({"id": p.id, "psnr": float(10 * np.log10(255**2 / max(error, 1e-9)))})
        return records

    def add(self, records):
        self.found += [r["psnr"] for r in records]

    def result(self):
        mean, half = float(np.mean(self.found)), 1.96 * float(np.std(self.found)) / len(self.found) ** 0.5
        return Scores({"psnr": mean}, {"psnr": (mean - half, mean + half)}, samples=len(self.found))


def load(name, files):
    noisy, clean = (read_image(file) for file in files)
    if noisy.shape != clean.shape:
        raise DataError(f"{files[0]}: is {tuple(noisy.shape)}, {files[1]} {tuple(clean.shape)}; expected equal sizes")
    return Sample(name, files[0], noisy, {"clean": clean})


@dataclass(frozen=True)
class Crop:
    """A random square of noisy and clean alike."""

    side: int

    def __call__(self, sample):
        (_, h, w), s = sample.image.shape, self.side
        y, x = int(torch.randint(0, h - s + 1, ())), int(torch.randint(0, w - s + 1, ()))
        cut = {name: t[:, y : y + s, x : x + s] for name, t in sample.targets.items()}
        return Sample(sample.id, sample.source, sample.image[:, y : y + s, x : x + s], cut)


def as_it_is(sample):
    return sample


class Denoising(Task):
    """Pairs of pictures in, a picture out."""

    name = "denoising"
    predicted = PredictedPicture

    def samples(self, split):
        root = Path(self.options.data) / split
        noisy = sorted((root / "noisy").glob("*.png"))
        if not noisy:
            raise DataError(f"{root}/noisy: holds no *.png")
        return Listed(root, [(file, root / "clean" / file.name) for file in noisy], load)

    def transform(self, training):
        return Crop(self.options.crop) if training else as_it_is

    def collate(self, samples):
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        high, wide = (-(-int(side) // 4) * 4 for side in sizes.max(0).values)

        def stacked(pictures):
            return torch.stack([F.pad(p, (0, wide - p.shape[2], 0, high - p.shape[1])) for p in pictures])

        targets = {"clean": stacked([s.targets["clean"] for s in samples])} if samples[0].targets else {}
        return Batch(self.name, [s.id for s in samples], stacked([s.image for s in samples]), sizes, targets)

    def head(self, backbone, weights=None):
        head = Decoder(backbone.channels, 8 * self.options.scale)
        copy_head(weights, self.name, head)
        return head

    def evaluator(self, samples):
        return Gain()

    def draw(self, sample, prediction):
        both = np.concatenate([sample.image.numpy(), prediction.picture], axis=2)
        return Image.fromarray(both.transpose(1, 2, 0))


def denoise(data: str = "pairs", updates: int = 6, batch: int = 4, micro_batch: int = 2) -> Recipe:
    """Learn to take noise off pictures."""
    return Recipe(
        tasks={"denoising": Options(data=data)},
        network=Network(backbone="timm:test_resnet.r160_in1k", weights="none"),
        batch=Batches(batch, micro_batch),
        phases=(Phase(updates=updates),),
        optimizer=Optimizer("adamw", lr=1e-3),
        average=Average(0.9),
        evaluation=Evaluation(every=0),
    )


TASKS = {"denoising": Row(Denoising, Options)}
recipe = denoise
