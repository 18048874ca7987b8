"""Two players: a generator that draws pictures again from a trunk's maps, and a critic that tells its own from real ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from trunkline.cluster.config import Average, Optimizer, Schedule
from trunkline.ground.errors import DataError
from trunkline.ground.keys import key, seed_model
from trunkline.heads.contract import Batch, Player, Prediction
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
    """`data` holds train/*.png and val/*.png."""

    adversarial: float = of_training(0.1)  # the weight of the critic's opinion in the generator's loss


@dataclass
class Drawn(Prediction):
    picture: np.ndarray


class Generator(nn.Module):
    needs = ("c1",)

    def __init__(self, channels):
        super().__init__()
        self.draw, self.norm, self.last = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)
        self.drop = nn.Dropout2d(0.2)

    def forward(self, features):
        """Pictures `(N, 3, 2h, 2w)` in 0..1."""
        return torch.sigmoid(
            self.last(F.interpolate(self.drop(F.relu(self.norm(self.draw(features["c1"])))), scale_factor=2))
        )

    def losses(self, features, batch):
        """`l1`: the mean over the pixels of the micro-batch."""
        return {"l1": (self(features).float() - batch.images / 255).abs().mean()}

    def predict(self, features, batch):
        made = (self(features) * 255).round().to(torch.uint8).cpu().numpy()
        return [Drawn(i, p) for i, p in zip(batch.ids, made, strict=True)]

    def condense(self, features):
        return features

    def published(self, tensors):
        return tensors


def critic():
    """A number for a picture: high for a real one. It has both kinds of buffers that move in a forward."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(3, 8, 4, 4)), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Flatten(), nn.LazyLinear(1)
    )


class Distance:
    """`mae`: the mean absolute difference in grey levels."""

    metrics = {"mae": Metric("Mean absolute error", better="lower")}

    def __init__(self):
        self.found = []

    def measure(self, batch, predictions):
        real = batch.images.cpu().numpy().astype(float)
        return [
            {"id": p.id, "mae": float(np.abs(p.picture - t).mean())} for p, t in zip(predictions, real, strict=True)
        ]

    def add(self, records):
        self.found += [r["mae"] for r in records]

    def result(self):
        return Scores({"mae": float(np.mean(self.found))}, samples=len(self.found))


def load(name, files):
    return Sample(name, files[0], read_image(files[0]))


def as_it_is(sample):
    return sample


class Redrawing(Task):
    name = "redrawing"
    predicted = PredictedPicture

    def samples(self, split):
        found = sorted((Path(self.options.data) / split).glob("*.png"))
        if not found:
            raise DataError(f"{self.options.data}/{split}: holds no *.png")
        return Listed(Path(self.options.data), [(file,) for file in found], load)

    def transform(self, training):
        return as_it_is

    def collate(self, samples):
        return Batch(self.name, [s.id for s in samples], torch.stack([s.image for s in samples]))

    def head(self, backbone, weights=None):
        head = Generator(backbone.channels["c1"])
        copy_head(weights, self.name, head)
        return head

    def beside(self):
        made = critic()
        made(torch.zeros(2, 3, 32, 32))  # its last layer learns its size
        return {"critic": made}

    def players(self, model, playing):
        judge, weight = model.beside["critic"], self.options.adversarial

        def of_generator(model, batch):
            seed_model(key(batch.key, "trunk"))
            features = model.maps(batch)
            seed_model(key(batch.key, self.name))
            made = model.heads[self.name](features)
            named = {"generator/l1": (made.float() - batch.images / 255).abs().mean()}
            if not playing or "critic" in playing:
                named["generator/adversarial"] = weight * F.softplus(-judge(made)).mean()
            return named

        def of_critic(module, batch):
            with torch.no_grad():
                made = model.heads[self.name](model.maps(batch))
            real = batch.images.float() / 255
            return {
                "critic/real": F.softplus(-module(real)).mean(),
                "critic/made": F.softplus(module(made.detach())).mean(),
            }

        return {"generator": Player(model, of_generator), "critic": Player(judge, of_critic)}

    def evaluator(self, samples):
        return Distance()

    def draw(self, sample, prediction):
        return Image.fromarray(prediction.picture.transpose(1, 2, 0))


def redraw(data: str = "pictures") -> Recipe:
    """Pixels first, then against a critic."""
    return Recipe(
        tasks={"redrawing": Options(data=data)},
        network=Network(backbone="timm:test_resnet.r160_in1k", weights="none"),
        batch=Batches(4, 2),
        phases=(Phase("pixels", updates=3, players=("generator",)), Phase("adversarial", updates=5)),
        optimizer=Optimizer("adamw", lr=1e-3),
        average=Average(0.9),
        evaluation=Evaluation(every=0),
        players={"critic": Playing(Optimizer("adam", lr=3e-3, clip=1.0), Schedule("constant"))},
    )


TASKS = {"redrawing": Row(Redrawing, Options)}
recipe = redraw
