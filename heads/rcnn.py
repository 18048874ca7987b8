"""Faster and Mask R-CNN on a pyramid, put together from torchvision's parts.

Ren et al. 2015; He et al. 2017, "Mask R-CNN"; Lin et al. 2017, "Feature Pyramid Networks", section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from ..backbones.contract import Features
from .boxes import BoxPrediction, at_least_fp32, predictions, sizes_of
from .contract import Batch, Prediction
from .roi_align import SAMPLES, RoIAlign

SIZES = (32, 64, 128, 256, 512)  # of anchors, in pixels, by level


@dataclass(frozen=True)
class Thresholds:
    """The numbers of training and of prediction; torchvision's."""

    rpn_sampled: int = 256  # anchors of an image in the loss, half of them positive where there are enough
    rpn_before: tuple[int, int] = (2000, 1000)  # proposals of a level before suppression: in training, in prediction
    rpn_after: tuple[int, int] = (2000, 1000)  # and of an image after it
    rpn_nms: float = 0.7
    box_sampled: int = 512  # proposals of an image in the loss, a quarter of them positive
    box_score: float = 0.05
    box_nms: float = 0.5
    detections: int = 100  # of an image


class RCNNHead(nn.Module):
    """Proposals from all levels of a pyramid, classes and boxes of each from `p2` to `p5`; with `masks`, masks of each.

    channels, strides  of the pyramid's maps by name, `p2` … `p6`
    classes            how many there are, K, without the background
    numbers            sampling, thresholds, limits
    as_torchvision     take anchors' strides and the scales of RoIAlign as torchvision does, from the padded size over the
                       grid and from the first image: for its own checkpoints, to the digit. Else they are the pyramid's.

    Parameter names are torchvision's (`rpn.head.…`, `roi_heads.…`). Boxes are decoded in fp32 under autocast.
    """

    def __init__(
        self, channels: int, strides: Mapping[str, int], classes: int, *, masks: bool = False,
        numbers: Thresholds = Thresholds(), as_torchvision: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.needs = tuple(name for name in strides if name.startswith("p"))
        self.masks = masks
        levels = {name: strides[name] for name in self.needs}
        pooled = {name: stride for name, stride in levels.items() if name != self.needs[-1]}
        ratios = ((0.5, 1.0, 2.0),) * len(levels)
        sizes = tuple((size,) for size in SIZES[: len(levels)])
        anchors = AnchorGenerator(sizes, ratios) if as_torchvision else Anchors(sizes, ratios, tuple(levels.values()))
        both = ("training", "testing")
        self.rpn = RegionProposalNetwork(
            anchors, _FullRPNHead(channels, anchors.num_anchors_per_location()[0]), 0.7, 0.3, numbers.rpn_sampled, 0.5,
            dict(zip(both, numbers.rpn_before, strict=True)), dict(zip(both, numbers.rpn_after, strict=True)),
            numbers.rpn_nms,
        )  # fmt: skip
        mask_parts: dict[str, nn.Module] = {}
        if masks:
            mask_parts = {
                "mask_roi_pool": _pool(pooled, 14, as_torchvision),
                "mask_head": MaskRCNNHeads(channels, (256, 256, 256, 256), 1),
                "mask_predictor": MaskRCNNPredictor(256, 256, classes + 1),
            }
        self.roi_heads = RoIHeads(
            _pool(pooled, 7, as_torchvision), TwoMLPHead(channels * 7**2, 1024), _FullPredictor(1024, classes + 1),
            0.5, 0.5, numbers.box_sampled, 0.25, None, numbers.box_score, numbers.box_nms, numbers.detections,
            **mask_parts,
        )  # fmt: skip

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `objectness`, `rpn_box`, `classifier`, `box` (and `mask`), as torchvision has them.

        Targets: `boxes`, a list of `(n, 4)` fp32 x1, y1, x2, y2 in pixels; `labels`, of `(n,)` int64 from 0; with masks
        `masks`, of `(n, H, W)` uint8. Each is a mean over what was sampled in the whole micro-batch: anchors,
        proposals, positive proposals (`box` too is divided by all sampled proposals).
        """
        given = batch.targets
        targets = [
            {"boxes": boxes, "labels": labels + 1}
            for boxes, labels in zip(given["boxes"], given["labels"], strict=True)
        ]
        for target, masks in zip(targets, given["masks"] if self.masks else (), strict=False):
            target["masks"] = masks
        _, found = self._run(features, batch, targets)
        return {_NAMES[name]: value for name, value in found.items()}

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a BoxPrediction for each sample, best score first."""
        found, _ = self._run(features, batch, None)
        return predictions(batch, [{**one, "labels": one["labels"] - 1} for one in found])

    def condense(self, features: Features) -> Features:
        """Keep the pyramid's maps; nothing smaller would do."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as they are: the names are torchvision's."""
        return tensors

    def _run(self, features: Features, batch: Batch, targets: list[dict[str, Tensor]] | None) -> Any:
        sizes = sizes_of(batch)
        assert batch.images is not None
        images = ImageList(batch.images, sizes)
        levels = {name: features[name] for name in self.needs}
        proposals, first = self.rpn(images, levels, targets)
        found, second = self.roi_heads(levels, proposals, sizes, targets)
        return found, {**first, **second}


_NAMES = {"loss_objectness": "objectness", "loss_rpn_box_reg": "rpn_box", "loss_classifier": "classifier",
          "loss_box_reg": "box", "loss_mask": "mask"}  # fmt: skip


class Anchors(AnchorGenerator):
    """Anchors whose strides are known.

    torchvision's divides the padded size by the grid: at 800 pixels the coarsest level of 13 rows is taken to have a
    stride of 61 in place of 64, and its last anchors are 36 pixels off.
    """

    def __init__(self, sizes: Any, aspect_ratios: Any, strides: Sequence[int]) -> None:
        super().__init__(sizes, aspect_ratios)
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Compute the anchors `(A, 4)` fp32 of each image, level after level."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.promote_types(feature_maps[0].dtype, torch.float32), device)
        strides = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        found = torch.cat(self.grid_anchors([list(m.shape[-2:]) for m in feature_maps], strides))
        return [found] * len(image_list.image_sizes)


def _pool(strides: Mapping[str, int], size: int, as_torchvision: bool) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(list(strides), size, SAMPLES) if as_torchvision else RoIAlign(strides, size)


class _FullRPNHead(RPNHead):
    """Outputs in fp32 at least: a delta in bf16 moves a box by 4 pixels at 800."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [at_least_fp32(t) for t in logits], [at_least_fp32(t) for t in deltas]


class _FullPredictor(FastRCNNPredictor):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = super().forward(x)
        return at_least_fp32(logits), at_least_fp32(deltas)


__all__ = ["Anchors", "BoxPrediction", "RCNNHead", "Thresholds"]
