"""Events on a pyramid over time: classes and bounds from separate towers, labels assigned as it learns.

A pyramid by max-pooling alone, as Tang et al. 2023, "TemporalMaxer", section 3; towers and distances to both ends from each
place as Zhang et al. 2022, "ActionFormer", section 3.3; assignment and losses of `dense`, those of the one-stage detector.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.contract import Features
from ..boxes import at_least_fp32
from ..contract import Batch, Prediction
from ..dense import PRIOR, START, best_of_levels, dense_losses
from ..video.segments import suppressed
from .events import STEPS, OverTime, Said, real_steps, whole

BEFORE = 2000  # candidates of a level before suppression, at most
JOINED = 2  # convolutions before the pyramid


class EventPyramid(nn.Module):
    """K scores for every place of every level over time, and its distances to both ends of an event.

    channels    of the features
    classes     how many there are, K
    width       channels of the pyramid and of its towers
    levels      of the pyramid, each half as long as the one before
    depth       convolutions of each tower, shared by all levels
    score, nms, sigma, detections  the lowest score that is given out, the overlap that suppresses (or, with sigma, weakens),
                and how many of a video at most
    """

    needs = (STEPS,)

    def __init__(
        self, channels: int, classes: int, *, width: int = 256, levels: int = 5, depth: int = 2, dropout: float = 0.0,
        score: float = 0.01, nms: float = 0.6, sigma: float = 0.5, detections: int = 200,
    ) -> None:  # fmt: skip
        super().__init__()
        self.score, self.nms, self.sigma, self.detections = score, nms, sigma, detections
        self.levels, self.unit = levels, 2 ** (levels - 1)
        self.reach = JOINED + (depth + 2) * self.unit
        self.drop = nn.Dropout(dropout)
        self.join = nn.ModuleList(OverTime(channels if i == 0 else width, width) for i in range(JOINED))
        self.class_tower, self.end_tower = (
            nn.ModuleList(OverTime(width, width) for _ in range(depth)) for _ in range(2)
        )
        self.classes, self.ends = nn.Conv1d(width, classes, 3, padding=1), nn.Conv1d(width, 2, 3, padding=1)
        self.direct = nn.Conv1d(channels, classes, 1, bias=False)
        self.scales = nn.Parameter(torch.ones(levels))
        for last in (self.classes, self.ends, self.direct):
            nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.constant_(self.ends.bias, math.log(START))  # type: ignore[arg-type]

    def forward(self, steps: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Compute logits `(N, A, K)`, boxes `(N, A, 4)`, places `(A, 2)`, strides `(A,)`, and which places are real `(N, A)`.

        `steps` are `(N, C, T)`, T a multiple of the unit; `real` is `(N, T)`. Boxes are start, 0, end, 1; places x, 0.5.
        """
        x, mask = self.drop(steps), real[:, None].to(steps.dtype)
        raw = x = x * mask
        for layer in self.join:
            x = layer(x, mask)
        found: list[tuple[Tensor, ...]] = []
        for level in range(self.levels):
            if level:
                x, raw, mask = F.max_pool1d(x, 2), F.avg_pool1d(raw, 2), F.max_pool1d(mask, 2)
            found.append(self._of_level(x, raw, mask, level))
        logits, boxes, valid = (torch.cat([own[i] for own in found], 1) for i in (0, 1, 4))
        return logits, boxes, torch.cat([own[2] for own in found]), torch.cat([own[3] for own in found]), valid

    def _of_level(self, x: Tensor, raw: Tensor, mask: Tensor, level: int) -> tuple[Tensor, ...]:
        said, far, stride = x, x, 2**level
        for one, other in zip(self.class_tower, self.end_tower, strict=True):
            said, far = one(said, mask), other(far, mask)
        logits = at_least_fp32(self.classes(said) + self.direct(raw)).transpose(1, 2)
        ends = at_least_fp32(self.ends(far)) * self.scales[level]
        sides = ends.clamp(max=math.log(1e4)).exp().transpose(1, 2) * stride
        at = torch.arange(x.shape[2], device=x.device, dtype=sides.dtype).add_(0.5).mul_(stride)
        low, high = torch.zeros_like(sides[..., 0]), torch.ones_like(sides[..., 0])
        boxes = torch.stack([at - sides[..., 0], low, at + sides[..., 1], high], -1)
        places = torch.stack([at, torch.full_like(at, 0.5)], -1)
        return logits, boxes, places, torch.full_like(at, float(stride)), mask[:, 0] > 0

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `classes` and `boxes`: sums over the micro-batch, divided by its sum of target scores (at least 1).

        Targets: `segments`, a list of `(n, 2)` fp32 start and end in steps; `labels`, of `(n,)` int64 from 0.
        """
        steps, real = self._padded(features[STEPS], real_steps(features, batch))
        truth = [_as_boxes(own) for own in batch.targets["segments"]]
        logits, boxes, places, strides, valid = self(steps, real)
        return dense_losses(logits, boxes, places, strides, truth, batch.targets["labels"], valid)

    def _padded(self, steps: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Lengthen to a multiple of the unit; what is added is not real."""
        lacking = -steps.shape[2] % self.unit
        return F.pad(steps, (0, lacking)), F.pad(real, (0, lacking))

    def said(self, steps: Tensor) -> Said:
        """Say what a part `(1, C, T)` of a video holds."""
        padded, real = self._padded(steps, torch.ones_like(steps[:, 0], dtype=torch.bool))
        logits, boxes, places, strides, valid = self(padded, real)
        scores, at = logits[0].sigmoid(), valid[0]
        curve = scores[strides == 1][: steps.shape[2]]
        return Said(curve, scores[at], boxes[0, at][:, [0, 2]], places[at, 0], strides[at])

    def events(self, found: Said) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose events: of each level the best candidates, then by class those that no better one suppresses."""
        strides = [2**level for level in range(self.levels)]
        row, labels, scores = best_of_levels(found.scores, found.strides, strides, self.score, BEFORE)
        segments = found.segments[row].double().cpu().numpy().clip(0, len(found.curve))
        label, score = labels.cpu().numpy(), scores.cpu().numpy()
        long = segments[:, 1] - segments[:, 0] > 1e-2
        segments, label, score = segments[long], label[long], score[long]
        kept = suppressed(segments, label, score, self.nms, self.sigma, self.score, self.detections)
        return segments[kept], label[kept], score[kept]

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict an EventPrediction for each sample, bounds in steps."""
        return whole(self, features, batch)

    def condense(self, features: Features) -> Features:
        """Keep the features: nothing smaller would do."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return the tensors as they are: no other library has this head."""
        return tensors


def _as_boxes(segments: Tensor) -> Tensor:
    """Convert segments `(n, 2)` to boxes of height 1, `(n, 4)`."""
    zero = torch.zeros_like(segments[:, :1])
    return torch.cat([segments[:, :1], zero, segments[:, 1:], zero + 1], 1)
