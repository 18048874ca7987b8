"""Detection of boxes, and of masks: COCO or VOC in; Faster or Mask R-CNN, or a one-stage head, on a pyramid."""

import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from trunkline.ground.errors import DataError

from ...backbones.contract import Backbone, Preprocessing
from ...backbones.contract import sizes_of as sizes_of_trunk
from ...backbones.pyramid import pyramid_of
from ...backbones.weights import Weights
from ...heads.boxes import BoxPrediction, sizes_of
from ...heads.contract import Batch, Prediction
from ...heads.one_stage import OneStageHead
from ...heads.rcnn import RCNNHead, Thresholds
from ..contract import Published, Sample, Samples, Task
from ..images.fit import padded, too_large
from ..objects.geometry import back
from ..objects.masks import to_rle
from ..options import depth_of
from .draw import draw, drawn
from .evaluator import BoxEvaluator
from .options import Options
from .predicted import PredictedObjects
from .samples import BoxSamples
from .splits import read_split, read_whole
from .stored import KEPT, load_detector, stated_by, without_epsilon
from .transforms import as_it_is, eval_transform, padding_of, train_transform
from .views import see, wanted


class Detection(Task):
    """COCO or VOC in; `facts` are the class names."""

    name = "detection"
    predicted = PredictedObjects
    together = 4

    @classmethod
    def reads(cls, weights: Weights) -> Published | None:
        """Read what a detector's file says of itself; torchvision's says nothing, and is known by its tensors' names."""
        return stated_by(weights)

    @classmethod
    def outputs(cls, weights: Weights) -> int:
        """Count the classes of a two-stage detector without the background, which is its first output."""
        return max(0, len(weights.rest.get("roi_heads.box_predictor.cls_score.weight", ())) - 1)

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing, facts)
        self._splits: dict[str, BoxSamples] = {}

    def stated(self) -> dict[str, str]:
        """Return what the weights' header says of the detector: its options, as JSON."""
        said = {name: getattr(self.options, name) for name in KEPT} | depth_of(self.options)
        said |= {} if self.options.padding is None else {"padding": self.options.padding}
        return {"trunkline_detection": json.dumps(said)}

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`. Raises DataError with every problem of its files."""
        if split not in self._splits:
            known = self.known("classes") if split == "train" else self.facts["classes"]
            with self.reading():
                self._splits[split] = read_split(self.options, split, known)
        return self._splits[split]

    def whole(self) -> BoxSamples:
        """Read all pictures, of train and val together. Raises DataError as `samples`."""
        return read_whole(self.options, self.known("classes"))

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build the resizing and random changes of training that the options name, or the exact resizing of evaluation."""
        if training:
            return train_transform(self.options)
        return as_it_is if wanted(self.options) else eval_transform(self.options)

    def collate(self, samples: list[Sample]) -> Batch:
        """Stack images to `(N, 3, H, W)` uint8, padded to the largest and to the coarsest stride.

        The batch's `sizes` `(N, 2)` int64 are heights and widths without the padding.
        """
        images = padded([s.image for s in samples], self.padding)
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        targets = self.targets(samples, *images.shape[-2:])
        return Batch(self.name, [s.id for s in samples], images, sizes, targets)

    @property
    def padding(self) -> int:
        """The options', or the coarsest level's stride, so that every grid is of whole cells."""
        return padding_of(self.options)

    def view(self, training: bool) -> Hashable:
        """Return the transform, which is data; None where evaluation sees a picture several times."""
        return None if wanted(self.options) and not training else self.transform(training)  # type: ignore[return-value]

    def targets(self, samples: list[Sample], height: int, width: int) -> dict[str, Any]:
        """List `boxes`, `labels` and `masks` by picture, where there are any, and `original` `(N, 2)` int64."""
        found: dict[str, Any] = {"original": torch.tensor([s.targets["original"] for s in samples])}
        for name in ("boxes", "labels", "masks"):
            if name in samples[0].targets:
                found[name] = [s.targets[name] for s in samples]
        if "masks" in found:
            found["masks"] = [_padded(masks, height, width) for masks in found["masks"]]
        return found

    def head(self, backbone: Backbone, weights: Weights | None = None) -> RCNNHead | OneStageHead:
        """Build the head that the options name, for these classes; load the weights' tensors if they hold a detector.

        Raises DataError where the trunk has no pyramid for it.
        """
        o = self.options
        kind = "conv" if o.head == "one_stage" else "pool"
        pyramid = pyramid_of(backbone)
        if pyramid is None or pyramid.kind != kind:
            raise DataError(f"head={o.head} needs a pyramid around the trunk: set network.pyramid={kind}")
        channels, count = backbone.channels["p3"], len(self.classes)
        if o.head == "one_stage":
            head = OneStageHead(channels, backbone.strides, count, score=o.score, nms=o.nms, detections=o.detections)
        else:
            head = RCNNHead(
                channels, backbone.strides, count, masks=o.head == "mask_rcnn", as_torchvision=o.as_torchvision,
                numbers=Thresholds(box_score=o.score, box_nms=o.nms, detections=o.detections),
            )  # fmt: skip
        if o.as_torchvision:
            without_epsilon(pyramid.body)
        if weights is not None and weights.rest:
            load_detector(weights, pyramid, head, self.classes)
        return head

    def misfits(self, backbone: Backbone) -> list[str]:
        """Say whether the trunk takes pictures as large as `longest`, padded to a batch."""
        o, sizes = self.options, sizes_of_trunk(backbone)
        return too_large(sizes, max(o.size, o.longest, *o.sizes), self.padding, self.name)

    def infer(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predict objects, one result a sample, in pixels of the picture's own size, masks as run-length codes."""
        if wanted(self.options):
            return self._views(model, batch)
        found: list[Prediction] = model.predict(batch)  # type: ignore[operator]
        originals = [(int(h), int(w)) for h, w in batch.targets["original"].tolist()]
        return [_at(p, seen, original) for p, seen, original in zip(found, sizes_of(batch), originals, strict=True)]

    def _views(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predict as `infer` does, from several views of each picture, which the batch holds in its own size."""
        assert batch.images is not None
        device = batch.images.device

        def predict(samples: list[Sample]) -> list[BoxPrediction]:
            return model.predict(self.collate(samples).to(device))  # type: ignore[operator]

        result: list[Prediction] = []
        for name, image, (h, w) in zip(batch.ids, batch.images.cpu(), sizes_of(batch), strict=True):
            found = see(Sample(name, name, image[:, :h, :w]), predict, self.options)
            result.append(_at(found, (h, w), (h, w)))
        return result

    def evaluator(self, samples: Samples) -> BoxEvaluator:
        """Build the evaluator: COCO's numbers, and VOC's for VOC's data."""
        assert isinstance(samples, BoxSamples)
        return BoxEvaluator(samples)

    def draw(self, sample: Sample, prediction: Prediction) -> Image:
        """Draw the picture with its objects, as a prediction of a file shows them."""
        assert isinstance(prediction, BoxPrediction)
        return draw(sample, prediction, self.classes, drawn(self.options))


def _padded(masks: Tensor, height: int, width: int) -> Tensor:
    return nn.functional.pad(masks, (0, width - masks.shape[-1], 0, height - masks.shape[-2]))


def _at(prediction: Prediction, seen: tuple[int, int], original: tuple[int, int]) -> BoxPrediction:
    assert isinstance(prediction, BoxPrediction)
    boxes = back(prediction.boxes, seen, original)
    codes = None if prediction.masks is None else to_rle(prediction.masks, boxes, *original)
    return replace(prediction, boxes=boxes, masks=None, codes=codes)
