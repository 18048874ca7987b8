"""A one-stage detector without anchors on a pyramid: classes and boxes from separate towers, labels assigned as it learns.

The decoupled towers of Ge et al. 2021, "YOLOX", section 2.1; distances to the four sides from each place of each level as
in Tian et al. 2019, "FCOS", section 3.1; assignment and targets of Feng et al. 2021, "TOOD", section 3.2; the loss of
classes of Li et al. 2020, "Generalized Focal Loss", equation 2.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from ..backbones.contract import Features
from .boxes import at_least_fp32, predictions, sizes_of
from .contract import Batch, Prediction
from .dense import PRIOR, START, best_of_levels, dense_losses

BEFORE = 1000  # candidates of a level before suppression, at most


class OneStageHead(nn.Module):
    """K scores for every place of every level, and its distances to the four sides of a box.

    channels, strides  of the pyramid's maps by name, `p3` … `p7`
    classes            how many there are, K
    depth              3x3 convolutions of each tower, shared by all levels
    score, nms, detections  the lowest score that is given out, the overlap that suppresses, how many of an image at most
    """

    def __init__(
        self, channels: int, strides: Mapping[str, int], classes: int, *, depth: int = 2, score: float = 0.05,
        nms: float = 0.6, detections: int = 100,
    ) -> None:  # fmt: skip
        super().__init__()
        self.needs = tuple(name for name in strides if name.startswith("p"))
        self.strides = tuple(strides[name] for name in self.needs)
        self.score, self.nms, self.detections = score, nms, detections
        parts: dict[str, nn.Module] = {
            "class_tower": _tower(channels, depth),
            "box_tower": _tower(channels, depth),
            "classes": nn.Conv2d(channels, classes, 3, padding=1),
            "boxes": nn.Conv2d(channels, 4, 3, padding=1),
        }
        self.one_stage = nn.ModuleDict(parts)
        self.one_stage.register_parameter("scales", nn.Parameter(torch.ones(len(self.needs))))
        for module in self.one_stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(parts["classes"].bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.constant_(parts["boxes"].bias, math.log(START))  # type: ignore[arg-type]

    def forward(self, features: Features) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute logits `(N, A, K)`, boxes `(N, A, 4)`, places `(A, 2)` and strides `(A,)`; all fp32.

        Boxes are x1, y1, x2, y2 and places x, y, both in pixels.
        """
        logits, boxes, places, strides = [], [], [], []
        for level, (name, stride) in enumerate(zip(self.needs, self.strides, strict=True)):
            x = features[name]
            said = at_least_fp32(self.one_stage["classes"](self.one_stage["class_tower"](x)))
            far = at_least_fp32(self.one_stage["boxes"](self.one_stage["box_tower"](x)))
            scale = self.one_stage.get_parameter("scales")[level]
            sides = (far * scale).clamp(max=math.log(1e4)).exp().flatten(2).transpose(1, 2) * stride
            at = _places(x.shape[-2:], stride, sides)
            boxes.append(torch.cat([at - sides[..., :2], at + sides[..., 2:]], -1))
            logits.append(said.flatten(2).transpose(1, 2))
            places.append(at)
            strides.append(torch.full((len(at),), float(stride), device=x.device))
        return torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(places), torch.cat(strides)

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `classes` and `boxes`: sums over the micro-batch, divided by its sum of target scores (at least 1).

        Targets: `boxes`, a list of `(n, 4)` fp32 x1, y1, x2, y2 in pixels; `labels`, of `(n,)` int64 from 0.
        """
        logits, boxes, places, strides = self(features)
        return dense_losses(logits, boxes, places, strides, batch.targets["boxes"], batch.targets["labels"])

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a BoxPrediction for each sample, best score first."""
        logits, boxes, _, strides = self(features)
        found = []
        for scores, corners, size in zip(logits.sigmoid(), boxes, sizes_of(batch), strict=True):
            found.append(self._of_one(scores, clip_boxes_to_image(corners, size), strides))
        return predictions(batch, found)

    def _of_one(self, scores: Tensor, boxes: Tensor, strides: Tensor) -> dict[str, Any]:
        row, label, value = best_of_levels(scores, strides, self.strides, self.score, BEFORE)
        corners = boxes[row]
        large = ((corners[:, 2:] - corners[:, :2]) >= 1e-2).all(1)
        corners, label, value = corners[large], label[large], value[large]
        kept = batched_nms(corners, value, label, self.nms)[: self.detections]
        return {"boxes": corners[kept], "labels": label[kept], "scores": value[kept]}

    def condense(self, features: Features) -> Features:
        """Keep the pyramid's maps; nothing smaller would do."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as they are: no other library has this head."""
        return tensors


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        norm = nn.GroupNorm(
            math.gcd(32, channels // 2), channels
        )  # groups of more than one channel: a coarse map may be one place
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm, nn.ReLU(True)]
    return nn.Sequential(*layers)


def _places(size: torch.Size, stride: int, like: Tensor) -> Tensor:
    """Compute the centres of a grid's cells in pixels, `(H*W, 2)` x, y."""
    y, x = (torch.arange(n, device=like.device, dtype=like.dtype).add_(0.5).mul_(stride) for n in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
