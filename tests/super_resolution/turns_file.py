"""A task of the contract of super-resolution, as small as can be: pictures of 16 pixels from their halves, and a critic."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from trunkline.cluster.config import Average, Optimizer, Schedule
from trunkline.heads.contract import Batch, Prediction
from trunkline.heads.super_resolution.adversarial import Adversarial
from trunkline.heads.super_resolution.critic import make_critic
from trunkline.heads.super_resolution.players import players_of
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Playing, Recipe
from trunkline.tasks.contract import Sample, Scores, Task
from trunkline.tasks.data.listed import Listed
from trunkline.tasks.fitting import copy_head
from trunkline.tasks.images.decode import read_image
from trunkline.tasks.options import TaskOptions, of_training
from trunkline.tasks.predicted import PredictedPicture
from trunkline.tasks.scores import Metric
from trunkline.tasks.table import Row


@dataclass(frozen=True)
class Options(TaskOptions):
    """`data` holds train/*.png and val/*.png of 16 x 16 pixels."""

    adversarial: Adversarial = of_training(Adversarial(weight=0.1, pixel=0.5))  # noqa: RUF009
    dead: bool = of_training(False)  # the generator makes one colour


@dataclass
class Drawn(Prediction):
    picture: np.ndarray


class Trunk(nn.Module):
    def __init__(self, norm="batch"):
        super().__init__()
        self.channels, self.strides, self.time_strides = {"c1": 8}, {"c1": 1}, {}
        self.stages, self.stride_in = 1, "3x3"
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.norm, self.act = nn.BatchNorm2d(8), nn.PReLU()

    def forward(self, images):
        x = self.act(self.first(images))
        return {"c1": x + self.norm(self.second(x))}

    def freeze(self, stages):
        return self.requires_grad_(not stages)


class Head(nn.Module):
    needs = ("c1",)

    def __init__(self, channels, dead=False):
        super().__init__()
        self.up, self.last = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.drop, self.dead = nn.Dropout2d(0.2), dead

    def forward(self, features, batch):
        """Pictures `(N, 3, 2h, 2w)` in 0..1, fp32."""
        made = self.last(F.pixel_shuffle(F.relu(self.drop(self.up(features["c1"]))), 2)).float() + 0.5
        return made * 0.0 + 0.5 if self.dead else made

    def losses(self, features, batch):
        return {"l1": (self(features, batch) - batch.targets["hr"].float() / 255).abs().mean()}

    def predict(self, features, batch):
        made = (self(features, batch).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        return [Drawn(i, p) for i, p in zip(batch.ids, made, strict=True)]

    def condense(self, features):
        return features

    def published(self, tensors):
        return tensors


class Distance:
    metrics = {"mae": Metric("Mean absolute error", better="lower")}

    def __init__(self):
        self.found = []

    def measure(self, batch, predictions):
        truth = batch.targets["hr"].cpu().numpy().astype(float)
        return [
            {"id": p.id, "mae": float(np.abs(p.picture - t).mean())} for p, t in zip(predictions, truth, strict=True)
        ]

    def add(self, records):
        self.found += [r["mae"] for r in records]

    def result(self):
        return Scores({"mae": float(np.mean(self.found))}, samples=len(self.found))


def load(name, files):
    return Sample(name, files[0], read_image(files[0]))


def as_it_is(sample):
    return sample


class Doubling(Task):
    name = "doubling"
    predicted = PredictedPicture

    def samples(self, split):
        return Listed(
            Path(self.options.data), [(f,) for f in sorted((Path(self.options.data) / split).glob("*.png"))], load
        )

    def transform(self, training):
        return as_it_is

    def collate(self, samples):
        large = torch.stack([s.image for s in samples])
        small = F.avg_pool2d(large.float(), 2).round().to(torch.uint8)
        return Batch(self.name, [s.id for s in samples], small, targets={"hr": large})

    def head(self, backbone, weights=None):
        head = Head(backbone.channels["c1"], self.options.dead)
        copy_head(weights, self.name, head)
        return head

    def beside(self):
        own = self.options.adversarial
        return {"critic": make_critic("srgan", 16, 4, own.norm)}

    def players(self, model, playing):
        def pixel(made, truth):
            return {"l1": (made - truth).abs().mean()}

        return players_of(model, self.name, self.options.adversarial, pixel, None, playing)

    def evaluator(self, samples):
        return Distance()

    def draw(self, sample, prediction):
        return Image.fromarray(prediction.picture.transpose(1, 2, 0))


def doubling(data: str = "pictures") -> Recipe:
    """Pixels first, then against a critic."""
    return Recipe(
        tasks={"doubling": Options(data=data)},
        network=Network(backbone="doubler", weights="none"),
        batch=Batches(4, 2),
        phases=(Phase("pixels", updates=3, players=("generator",)), Phase("adversarial", updates=4)),
        optimizer=Optimizer("adam", lr=1e-3, weight_decay=0.0),
        average=Average(0.9),
        evaluation=Evaluation(every=0),
        players={"critic": Playing(Optimizer("adam", lr=3e-3, weight_decay=0.0), Schedule("constant"))},
    )


TASKS = {"doubling": Row(Doubling, Options)}
BACKBONES = {"doubler": Trunk}
recipe = doubling
