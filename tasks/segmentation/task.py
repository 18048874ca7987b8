"""Semantic segmentation: pictures with masks in; a class for every pixel, in the picture's own size, out."""

import math
from collections.abc import Callable, Hashable
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
from ...heads.pixels.pixel_head import PixelHead, PixelPrediction, labels_of
from ...heads.pixels.pixel_losses import Weighted
from ...heads.pixels.segmentation import SegmentationHead
from ...heads.pixels.segmentation_trunk import ON_PYRAMID, PADDED, last_of, misfits
from ...heads.pixels.semantic_pyramid import SemanticPyramidHead
from ..contract import Published, Sample, Samples, Task
from ..images.fit import padded, too_large
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
        return max((len(weights.rest.get(f"{layer}weight", ())) for layer in LAST[:-1]), default=0)

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
            with self.reading():
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

        H and W are the largest sides, in training with view=crop the crop, rounded up to the head's unit.
        """
        o, training = self.options, "original" not in samples[0].targets
        least = (o.crop_side,) * 2 if training and o.view == "crop" else (0, 0)
        images = padded([s.image for s in samples], self.padding, least)
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        targets = self.targets(samples, *images.shape[-2:])
        return Batch(self.name, [s.id for s in samples], images, sizes, targets)

    @property
    def padding(self) -> int:
        """The sides' unit that the head asks for, and with view=fit the options too."""
        unit = PADDED.get(self.options.head, 1)
        return unit if self.options.view == "crop" else math.lcm(unit, self.options.padding)

    def view(self, training: bool) -> Hashable:
        """Return the transform of view=fit, which is data; None for crops, and where evaluation sees a picture several times."""
        shares = self.options.view == "fit" and (training or not wanted(self.options))
        return self.transform(training) if shares else None  # type: ignore[return-value]

    def targets(self, samples: list[Sample], height: int, width: int) -> dict[str, Any]:
        """Stack the masks to `mask` `(N, height, width)`, 255 in the padding.

        In evaluation they keep their own sizes, in a list, where there are any, beside `original` `(N, 2)` int64.
        """
        masks = [s.targets["mask"].as_subclass(Tensor) for s in samples if "mask" in s.targets]
        if "original" not in samples[0].targets:
            return {"mask": torch.stack([_padded(mask, height, width) for mask in masks])}
        originals = torch.tensor([s.targets["original"] for s in samples])
        return {"original": originals} | ({"mask": masks} if masks else {})

    def head(self, backbone: Backbone, weights: Weights | None = None) -> PixelHead:
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
        if o.head in ON_PYRAMID:
            head = SemanticPyramidHead(backbone.channels, count, output_stride=stride, weighted=losses)
        else:
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
        if o.view == "fit":
            side = round(max(*o.fitted, *o.sizes) * max((1.0, *o.scales)))
            large = too_large(sizes, side, self.padding, self.name)
            return large or misfits(o.head, side, o.aux, backbone, crop=False)
        found = misfits(o.head, o.crop_side, o.aux, backbone)
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
        assert isinstance(head, PixelHead)
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
