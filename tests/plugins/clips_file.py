"""Clips: folders of frames in, a class out, by any 2-D trunk frame by frame."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trunkline.cluster.config import Optimizer
from trunkline.ground.errors import DataError
from trunkline.heads.classification import ClassificationHead
from trunkline.heads.contract import Batch
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.tasks.classification.draw import draw
from trunkline.tasks.classification.evaluator import ClassificationEvaluator
from trunkline.tasks.classification.predicted import PredictedClass
from trunkline.tasks.contract import Sample, Task
from trunkline.tasks.data.listed import Listed
from trunkline.tasks.fitting import copy_head
from trunkline.tasks.images.decode import read_image
from trunkline.tasks.images.photos import photos
from trunkline.tasks.options import TaskOptions
from trunkline.tasks.table import Row


@dataclass(frozen=True)
class Options(TaskOptions):
    """`data` holds train/CLASS/CLIP/*.png and val alike."""

    frames: int = 3
    top: int = 2

    def uncached(self):
        return ""


class Frames(nn.Module):
    """A 2-D trunk on every frame: clips `(N, C, T, H, W)` to maps `(N, C, T, h, w)`."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.channels, self.strides = body.channels, body.strides
        self.time_strides = dict.fromkeys(body.channels, 1)
        self.stages, self.stride_in, self.report = body.stages, body.stride_in, body.report

    @property
    def arch(self):
        return self.body.arch

    def forward(self, clips):
        n, t = clips.shape[0], clips.shape[2]
        found = self.body(clips.transpose(1, 2).flatten(0, 1))
        return {name: x.unflatten(0, (n, t)).transpose(1, 2) for name, x in found.items()}

    def freeze(self, stages):
        self.body.freeze(stages)
        return self


class Mean(nn.Module):
    needs = ("c5",)
    trunk = "backbone."

    def __init__(self, channels, classes):
        super().__init__()
        self.inner = ClassificationHead(channels, classes)

    def condense(self, features):
        """`(N, C, 1, 1)` whatever the number of frames; what is cached is condensed already."""
        x = features["c5"]
        return {"c5": x if x.ndim == 4 else x.mean((2, 3, 4))[..., None, None]}

    def losses(self, features, batch):
        return self.inner.losses(self.condense(features), batch)

    def predict(self, features, batch):
        return self.inner.predict(self.condense(features), batch)

    def published(self, tensors):
        return tensors


def load(name, files):
    frames = [read_image(file) for file in files]
    if len({f.shape for f in frames}) > 1:
        raise DataError(f"{files[0].parent}: its frames differ in size")
    return Sample(name, files[0].parent, torch.stack(frames, 1))


@dataclass(frozen=True)
class Labelled:
    """The clips of a split, each with the number of its class."""

    listed: Listed
    labels: tuple[int, ...]

    def __len__(self):
        return len(self.listed)

    def __getattr__(self, name):
        return getattr(self.__dict__["listed"], name)

    def __getitem__(self, index):
        sample = self.listed[index]
        sample.targets["label"] = self.labels[index]
        return sample


def as_it_is(sample):
    return sample


class Clips(Task):
    """Folders of frames, named after their classes."""

    name = "clips"
    unit = "clips"
    inputs_are = "folder of frames"
    together = 4
    predicted = PredictedClass

    def samples(self, split):
        root = Path(self.options.data) / split
        classes = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        if not classes:
            raise DataError(f"{root}: holds no class folders")
        clips = [(c, clip) for c in classes for clip in sorted((root / c).iterdir())]
        files = [sorted(clip.glob("*.png"))[: self.options.frames] for _, clip in clips]
        listed = Listed(root, files, load, tuple(classes))
        return Labelled(listed, tuple(classes.index(c) for c, _ in clips))

    def transform(self, training):
        return as_it_is

    def collate(self, samples):
        named = "label" in samples[0].targets
        targets = {"label": torch.tensor([s.targets["label"] for s in samples])} if named else {}
        return Batch(self.name, [s.id for s in samples], torch.stack([s.image for s in samples]), targets=targets)

    def head(self, backbone, weights=None):
        head = Mean(backbone.channels["c5"], len(self.classes))
        copy_head(weights, self.name, head)
        return head

    @classmethod
    def inputs(cls, given):
        """A folder of frames is one input; of other folders, those below."""
        seen = dict.fromkeys(photo.parent for photo in photos(given))
        yield from seen

    def read(self, address):
        return load(address, sorted(Path(address).glob("*.png"))[: self.options.frames])

    def evaluator(self, samples):
        return ClassificationEvaluator(self.classes, resamples=50)

    def draw(self, sample, prediction):
        return draw(Sample(sample.id, sample.source, sample.image[:, 0]), prediction, self.classes)


def clips(data: str = "clips", cached: bool = False, micro_batch: int | str = 2, updates: int = 5) -> Recipe:
    """Classes of clips, by the frames of a trunk for pictures."""
    micro = micro_batch if micro_batch == "auto" else int(micro_batch)
    return Recipe(
        tasks={"clips": Options(data=data)},
        network=Network(backbone="timm:test_resnet.r160_in1k", weights="none", wrapper="each_frame"),
        batch=Batches(4, micro),
        phases=(Phase(updates=updates, frozen=5 if cached else 0, cached=cached),),
        optimizer=Optimizer("adamw", lr=1e-3),
        evaluation=Evaluation(every=0),
    )


TASKS = {"clips": Row(Clips, Options)}
WRAPPERS = {"each_frame": Frames}
recipe = clips
