"""Several labels a picture: objects of any format, or tables, in; which classes are in a picture out."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from PIL.Image import Image

from ...backbones.contract import Backbone, Preprocessing, deepest, sizes_of, within
from ...backbones.weights import Weights, load
from ...heads.contract import Batch, Prediction
from ...heads.multilabel import MultiLabelHead, MultiLabelPrediction
from ..classification.transforms import eval_transform, train_transform
from ..contract import Sample, Samples, Task
from ..data.groups import group_numbers
from ..images.fit import FitEvaluation, FitTraining, padded
from .draw import draw
from .evaluator import MultiLabelEvaluator
from .options import Options
from .predicted import PredictedLabels
from .samples import LabelSamples
from .splits import read_labels, read_whole_labels


class MultiLabel(Task):
    """Pictures with several labels in; `facts` are the class names."""

    name = "multilabel"
    predicted = PredictedLabels

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        fit = options.view == "fit"
        super().__init__(options, preprocessing if fit else preprocessing.at(options.size), facts)
        self._splits: dict[str, LabelSamples] = {}

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`. Raises DataError with every problem of its files."""
        if split not in self._splits:
            known = self.known("classes") if split == "train" else self.facts["classes"]
            with self.reading():
                self._splits[split] = read_labels(self.options, split, known)
        return self._splits[split]

    def whole(self) -> LabelSamples:
        """Read all pictures, of train and val together. Raises DataError as `samples`."""
        return read_whole_labels(self.options, self.known("classes"))

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build the crops of a classifier, or the resizing and the random changes of a detector."""
        o = self.options
        if o.view == "crop":
            return train_transform(self.preprocessing, o) if training else eval_transform(self.preprocessing)
        size, longest = o.sides
        if training:
            return FitTraining(size, longest, o.sizes, o.jitter, o.flip, o.photometric, o.padding)
        return FitEvaluation(size, longest, o.padding, keeps=("labels",))

    @property
    def padding(self) -> int:
        """Of whole pictures the options'; squares need none."""
        return 1 if self.options.view == "crop" else self.options.padding

    def view(self, training: bool) -> Hashable:
        """Return the transform of whole pictures, which is data; None for crops, which no other task shares."""
        return None if self.options.view == "crop" else self.transform(training)  # type: ignore[return-value]

    def targets(self, samples: list[Sample], height: int, width: int) -> dict[str, Any]:
        """Stack `labels` to `(N, K)` int8, where the samples have any."""
        if "labels" not in samples[0].targets:
            return {}
        return {"labels": torch.stack([torch.as_tensor(s.targets["labels"]) for s in samples])}

    def collate(self, samples: list[Sample]) -> Batch:
        """Join images to `(N, 3, H, W)` uint8: squares, or whole pictures, padded to the largest.

        The `sizes` `(N, 2)` int64 of whole pictures are heights and widths without the padding.
        """
        images = padded([s.image for s in samples], self.padding)
        sizes = torch.tensor([s.image.shape[-2:] for s in samples]) if self.options.view == "fit" else None
        return Batch(self.name, [s.id for s in samples], images, sizes, self.targets(samples, *images.shape[-2:]))

    def head(self, backbone: Backbone, weights: Weights | None = None) -> MultiLabelHead:
        """Build a classifier for these classes, with the weights' own tensors where they are of this task and these classes."""
        reads = deepest(backbone.channels)
        head = MultiLabelHead(
            backbone.channels[reads], len(self.classes), self.options.dropout, reads, backbone.strides[reads]
        )
        own = weights is not None and weights.info.get("trunkline_task") == type(self).name
        same = own and weights is not None and tuple(weights.classes or ()) == self.classes
        self.facts["classifier"] = "kept" if same else "new"
        if weights is not None and same:
            trunk = within(backbone)
            trunk.report = load(weights, trunk, head.fc)
        return head

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say whether the trunk takes squares of `size` pixels, or whole pictures as large as `longest`."""
        o, sizes = self.options, sizes_of(backbone)
        if o.view == "crop":
            return [said] if (said := sizes.misfit(self.preprocessing.size, "size")) else []
        side = max(*o.sides, *o.sizes)
        if sizes.padded(side):
            return []
        return [
            f"the trunk takes {sizes}, and view=fit sees pictures of up to {side} x {side}: take a trunk of any size, set "
            f"size= and tasks.{self.name}.longest= to at most {sizes.most}, or view=crop"
        ]

    def evaluator(self, samples: Samples) -> MultiLabelEvaluator:
        """Build the evaluator: average precision by class, F1 at the threshold, pictures with every label right."""
        return MultiLabelEvaluator(self.classes, self.options.threshold, group_numbers(samples, self.options.group))

    def draw(self, sample: Sample, prediction: Prediction) -> Image:
        """Draw the picture with the classes that are seen in it."""
        assert isinstance(prediction, MultiLabelPrediction)
        return draw(sample, prediction, self.classes, self.options.threshold)
