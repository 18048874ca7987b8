"""Semantic segmentation: pictures with masks in; a class for every pixel, in the picture's own size, out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from trunkline.ground.errors import DataError

from ...backbones.contract import Backbone, Preprocessing
from ...backbones.contract import sizes_of as sizes_of_trunk
from ...backbones.weights import Weights
from ...heads.boxes import sizes_of
from ...heads.contract import VOID, Batch, Prediction
from ...heads.model import Model
from ...heads.pixels.pixel_losses import Weighted
from ...heads.pixels.segmentation import PixelPrediction, SegmentationHead, labels_of
from ...heads.pixels.segmentation_trunk import PADDED, last_of, misfits
from ..contract import Published, Sample, Samples, Task
from .crf import refine
from .draw import draw
from .evaluator import PixelEvaluator
from .formats.encoding import Colour, voc_colour
from .options import Options
from .predicted import PredictedMask
from .samples import PixelSamples
from .splits import read_split, read_whole
from .stored import LAST, load_segmenter, stated, stated_by
from .transforms import eval_transform, train_transform
from .views import resized, see, wanted, whole


class Segmentation(Task):
    """Pictures and masks in; `facts` are the class names and their colours."""

    name = "segmentation"
    predicted = PredictedMask
    for_results: ClassVar[dict[str, Any]] = {"written": True}
    together = 4

    @classmethod
    def reads(cls, weights: Weights) -> Published | None:
        """Read what a segmenter's file says of itself; torchvision's says nothing, and is known by its tensors."""
        return stated_by(weights)

    @classmethod
    def outputs(cls, weights: Weights) -> int:
        """Count the maps of the last layer, one for each class."""
        return max((len(weights.rest.get(f"{layer}weight", ())) for layer in LAST[::2]), default=0)

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing, facts)
        self._splits: dict[str, PixelSamples] = {}

    @property
    def palette(self) -> tuple[Colour, ...]:
        """A colour for each class: the options', else the data's, else VOC's."""
        known = self.options.palette or self.facts.get("palette", ())
        rest = (voc_colour(n) for n in range(len(known), len(self.classes)))
        return (*((int(r), int(g), int(b)) for r, g, b in known), *rest)

    def stated(self) -> dict[str, str]:
        """Return what the weights' header says of the segmenter."""
        return stated(self.options, self.palette)

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`, once. Raises DataError with every problem of its files."""
        if split not in self._splits:
            known = self.known("classes") if split == "train" else self.facts["classes"]
            found = read_split(self.options, split, known)
            if split != "train" and "train" in self._splits:  # both splits have one palette, where they have any
                found = replace(found, other_palette=self._splits["train"].palette)
            self._splits[split] = found
        return self._splits[split]

    def whole(self) -> PixelSamples:
        """Read all pairs, of train and val together. Raises DataError as `samples`."""
        return read_whole(self.options, self.known("classes"))

    def facts_of(self, training: Samples) -> dict[str, Any]:
        """Read the class names, and the colours that they have in the data."""
        assert isinstance(training, PixelSamples)
        return super().facts_of(training) | {"palette": [list(colour) for colour in training.encoding.palette]}

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build the transform: for training colours, sizes, crops and flips; else the size of evaluation."""
        return train_transform(self.options) if training else eval_transform(self.options)

    def collate(self, samples: list[Sample]) -> Batch:
        """Pad images to a batch `(N, 3, H, W)` uint8, with each one's own size.

        In training H and W are the crop, and the target `mask` is `(N, H, W)`, 255 in the padding. Else they are the
        largest sides, and the masks keep their own sizes, in a list. Some heads need H and W rounded up to a multiple.
        """
        training, unit = "original" not in samples[0].targets, PADDED.get(self.options.head, 1)
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        sides = [self.options.crop] * 2 if training else sizes.max(0).values.tolist()
        height, width = (-(-side // unit) * unit for side in sides)
        images = torch.zeros(len(samples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for row, sample in zip(images, samples, strict=True):
            row[:, : sample.image.shape[1], : sample.image.shape[2]] = sample.image
        targets: dict[str, Any] = {}
        if training:
            targets["mask"] = torch.stack([_padded(s.targets["mask"], height, width) for s in samples])
        else:
            targets["original"] = torch.tensor([s.targets["original"] for s in samples])
            if "mask" in samples[0].targets:
                targets["mask"] = [s.targets["mask"] for s in samples]
        return Batch(self.name, [s.id for s in samples], images, sizes, targets)

    def head(self, backbone: Backbone, weights: Weights | None = None) -> SegmentationHead:
        """Build the head that the options name, for these classes; `weights` that hold a head fill it.

        Raises DataError where `class_weights` are not one for each class, and WeightsError where a file's tensors do
        not fit.
        """
        o, count = self.options, len(self.classes)
        if o.class_weights and len(o.class_weights) != count:
            raise DataError(
                f"tasks.{self.name}.class_weights: has {len(o.class_weights)} numbers for {count} classes "
                f"({', '.join(self.classes[:8])}{', …' if count > 8 else ''})"
            )
        stride = backbone.strides[last_of(backbone.channels)]
        losses = Weighted(o.cross_entropy, o.dice, o.focal, o.lovasz, o.class_weights)
        head = SegmentationHead(
            o.head, backbone.channels, count, output_stride=stride, dropout=o.dropout, aux=o.aux,
            weighted=losses, norm=getattr(backbone, "norm", "batch"),
        )  # fmt: skip
        if weights is not None and weights.rest:
            load_segmenter(weights, backbone, head, self.classes)
        return head

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say which maps the head lacks, and which sizes of the crop and of whole pictures the trunk does not take."""
        o, sizes = self.options, sizes_of_trunk(backbone)
        found = misfits(o.head, o.crop, o.aux, backbone)
        inside = 0 < o.tiles <= sizes.most and not o.size and max(o.scales, default=1) <= 1
        if sizes.most and not inside:
            found.append(
                f"the trunk takes {sizes}, and evaluation sees whole pictures: set tasks.{self.name}.tiles={sizes.most}, "
                "and neither size nor scales above 1"
            )
        return found

    def infer(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predict a PixelPrediction for each sample, in the picture's own size."""
        assert isinstance(model, Model)
        if wanted(self.options):
            return self._views(model, batch)
        originals = [(int(h), int(w)) for h, w in batch.targets["original"].tolist()]
        found = self._logits(model, batch)
        return [
            PixelPrediction(name, labels_of(resized(one, *size)))
            for name, one, size in zip(batch.ids, found, originals, strict=True)
        ]

    def _logits(self, model: Model, batch: Batch) -> list[Tensor]:
        head = model.heads[self.name]
        assert isinstance(head, SegmentationHead)
        return head.logits(model.maps(batch), batch)

    def _views(self, model: Model, batch: Batch) -> list[Prediction]:
        """Predict as `infer` does, from several views of each picture; the batch holds it in its own size."""
        assert batch.images is not None
        device, result = batch.images.device, []

        def logits(image: Tensor) -> Tensor:
            one = Sample("", "", image, {"original": tuple(image.shape[-2:])})
            return self._logits(model, self.collate([one]).to(device))[0]

        for name, image, (h, w) in zip(batch.ids, batch.images.cpu(), sizes_of(batch), strict=True):
            picture = image[:, :h, :w]
            found = see(picture, logits, self.options)
            if self.options.crf:
                labels = labels_of(refine(whole(found, h, w), picture))
            else:
                labels = np.empty((h, w), np.uint8)
                for rows, columns, probabilities in found:
                    labels[rows, columns] = labels_of(probabilities)
            result.append(PixelPrediction(name, labels))
        return result

    def evaluator(self, samples: Samples) -> PixelEvaluator:
        """Build the evaluator of these samples, with the task's palette."""
        assert isinstance(samples, PixelSamples)
        return PixelEvaluator(replace(samples, encoding=replace(samples.encoding, palette=self.palette)))

    def draw(self, sample: Sample, prediction: Prediction) -> Image.Image:
        """Draw the picture with its classes in their colours, and a legend."""
        assert isinstance(prediction, PixelPrediction)
        return draw(sample.image, prediction.labels, self.classes, self.palette)

    def truth(self, sample: Sample) -> Image.Image:
        """Draw the picture with its true classes in their colours, and a legend."""
        return draw(sample.image, sample.targets["mask"].numpy(), self.classes, self.palette)


def _padded(mask: Tensor, height: int, width: int) -> Tensor:
    return F.pad(mask, (0, width - mask.shape[1], 0, height - mask.shape[0]), value=VOID)
