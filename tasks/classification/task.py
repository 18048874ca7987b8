"""Image classification on class folders."""

import json
from collections.abc import Callable
from typing import Any

import torch
from PIL.Image import Image
from torch import nn

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ...backbones.contract import Backbone, Preprocessing, deepest, sizes_of, within
from ...backbones.weights import Weights, load
from ...heads.classification import ClassificationHead, ClassPrediction
from ...heads.contract import Batch, Prediction
from ..contract import Published, Sample, Samples, Task
from ..data.folds import divided
from ..data.groups import group_numbers
from ..options import depth_of
from .draw import draw
from .evaluator import ClassificationEvaluator
from .folders import ONE_CLASS, FolderSamples, lacks, read_splits, read_whole
from .options import Options
from .predicted import PredictedClass
from .transforms import eval_transform, train_transform


def _stacked(images: list[torch.Tensor]) -> torch.Tensor:
    """Stack images `(C, H, W)` that lie in memory as height, width, channel, to `(N, C, H, W)`.

    Stacking them in that order is 14 times quicker.
    """
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _of_others(weights: Weights, *names: str) -> bool:
    """Say whether a file's header says that its `fc` is the head of another task than these (several labels, say)."""
    return weights.info.get("trunkline_task", names[0]) not in names


class Classification(Task):
    """Class folders in; `facts` are the class names, and for `append` the size of the classifier that is kept."""

    name = "classification"
    predicted = PredictedClass

    @classmethod
    def reads(cls, weights: Weights) -> Published | None:
        """Read the class names of a published classifier, and how deep pictures are read; None for other weights."""
        if not weights.classes or not cls.outputs(weights) or _of_others(weights, cls.name):
            return None
        options = json.loads(weights.info.get("trunkline_options", "{}"))
        return Published({k: options[k] for k in ("depth",) if k in options}, {"classes": list(weights.classes)})

    @classmethod
    def outputs(cls, weights: Weights) -> int:
        """Count the classifier's rows; 0 without one, and in networks for clips."""
        return 0 if weights.over_time else len(weights.tensors.get("fc.weight", ()))

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing.at(options.size), facts)
        self._splits: dict[str, FolderSamples] | None = None
        self._whole: FolderSamples | None = None

    def stated(self) -> dict[str, str]:
        """Return how deep pictures are read, where that was said; class names and size are in every file's header."""
        said = depth_of(self.options)
        return {"trunkline_options": json.dumps(said)} if said else {}

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val` of the folder.

        Raises DataError with every problem of its layout, where the split is missing, and where the folder has a single
        class and no checkpoint gives the classes.
        """
        o, known = self.options, self.known("classes")
        if o.folds and self._splits is None:
            folds = divided(self.whole(), o)
            self._splits = {name: folds.split(name, o.fold or 0) for name in ("train", "val")}
        if self._splits is None:
            self._splits = read_splits(
                o.data, val=o.val, group=o.group, classes=known, on_bad_sample=o.on_bad_sample, depth=o.depth,
                form=o.format,
            )  # fmt: skip
        if split not in self._splits:
            raise DataError(lacks(o.data, split, self._splits))
        found = self._splits[split]
        if not known and len(found.classes) == 1:
            raise DataError(f"{o.data}: {ONE_CLASS.format(found.classes[0], storage.join(o.data, found.classes[0]))}")
        return found

    def whole(self) -> FolderSamples:
        """Read all samples of the folder: of train/ and val/ together, or of all classes."""
        o = self.options
        if self._whole is None:
            self._whole = read_whole(
                o.data,
                group=o.group,
                classes=self.known("classes"),
                on_bad_sample=o.on_bad_sample,
                depth=o.depth,
                form=o.format,
            )
        return self._whole

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build the random crop and flip of training, or the exact evaluation transform of the weights."""
        if training and self.options.augment:
            return train_transform(self.preprocessing, self.options)
        return eval_transform(self.preprocessing)

    def collate(self, samples: list[Sample]) -> Batch:
        """Stack images to `(N, 3, size, size)` uint8 and, where the samples have one, `label` to `(N,)` int64."""
        targets = {}
        if "label" in samples[0].targets:
            targets["label"] = torch.tensor([s.targets["label"] for s in samples])
        return Batch(self.name, [s.id for s in samples], _stacked([s.image for s in samples]), targets=targets)

    def head(self, backbone: Backbone, weights: Weights | None = None) -> ClassificationHead:
        """Build a classifier for these classes, with the weights' own tensors where their class names are the same.

        With `append` it keeps the weights' classifier, frozen, and adds a layer; raises DataError where they have none.
        """
        o, reads = self.options, deepest(backbone.channels)
        channels = backbone.channels[reads]
        given = None if weights is None else weights.tensors.get("fc.weight")
        if o.append and given is not None:
            self.facts["kept"] = given.shape[0]
        if o.append and not self.facts.get("kept"):
            raise DataError(
                "append=true keeps the weights' own classifier, and these weights have none; use mode=probe"
            )
        kept = nn.Linear(channels, self.facts["kept"]) if o.append else None
        head = ClassificationHead(
            channels, len(self.classes), dropout=o.dropout, label_smoothing=o.label_smoothing, kept=kept, reads=reads
        )
        same = (
            weights is not None
            and tuple(weights.classes or ()) == self.classes
            and not _of_others(weights, Classification.name, type(self).name)
        )
        self.facts["classifier"] = "kept, with a new layer on top" if o.append else "kept" if same else "new"
        if weights is not None and (o.append or same):
            trunk = within(backbone)
            trunk.report = load(weights, trunk, head.fc)
        return head

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say whether the trunk takes squares of `size` pixels."""
        return [said] if (said := sizes_of(backbone).misfit(self.preprocessing.size, "size")) else []

    def evaluator(self, samples: Samples) -> ClassificationEvaluator:
        """Build the evaluator: top-1, top-5, per class, confusion matrix, calibration."""
        return ClassificationEvaluator(self.classes, groups=group_numbers(samples, self.options.group))

    def draw(self, sample: Sample, prediction: Prediction) -> Image:
        """Draw the picture with its likeliest classes."""
        assert isinstance(prediction, ClassPrediction)
        return draw(sample, prediction, self.classes)
