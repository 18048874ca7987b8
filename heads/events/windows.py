"""Events from windows: a classifier slid over time, and the runs of steps that it is sure of.

What people try first. Runs above several thresholds, of which better ones suppress others: the grouping of Zhao et al. 2017,
"Temporal Action Detection with Structured Segment Networks", section 4 (without its learnt scores of completeness).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.contract import Features
from ..boxes import at_least_fp32
from ..contract import Batch, Prediction
from ..video.segments import grouped
from .events import STEPS, Said, real_steps, whole


class EventWindows(nn.Module):
    """The mean of the features in a window around each step, a linear classifier of K classes, and runs of steps.

    channels    of the features
    classes     how many there are, K
    window      steps of a window, an odd number
    background  whether nothing is a class too, and each step teaches; else it is a classifier of clips, as one that was trained
                on events cut out: it learns from the mean of each event's features, and knows nothing of what lies between
    thresholds  probabilities: a run of steps above one of them is an event, whose score is their mean
    nms, detections  the overlap that suppresses, and how many of a video at most
    """

    needs = (STEPS,)
    unit = 1

    def __init__(
        self, channels: int, classes: int, *, window: int = 9, background: bool = True, thresholds: Sequence[float] = (0.3, 0.5),
        dropout: float = 0.0, nms: float = 0.6, detections: int = 200,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.thresholds, self.nms, self.detections = window, tuple(thresholds), nms, detections
        self.reach = window // 2
        self.background = background
        self.drop, self.classes = nn.Dropout(dropout), nn.Linear(channels, classes + background)

    def forward(self, steps: Tensor, real: Tensor) -> Tensor:
        """Compute logits `(N, T, K)` of each step, or K + 1, the last of nothing. `steps` are `(N, C, T)`, `real` `(N, T)`."""
        mask = real[:, None].to(steps.dtype)
        near = partial_sums(steps * mask, self.window) / partial_sums(mask, self.window).clamp(min=1)
        return at_least_fp32(self.classes(self.drop(near.transpose(1, 2))))

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `classes`: the mean over the micro-batch's steps of the cross-entropy with what happens at the step's middle.

        Targets are those of the pyramid. Where two events are at once, the shorter one counts. Without a background it is the
        mean over the micro-batch's events.
        """
        real = real_steps(features, batch)
        if not self.background:
            return {"classes": self._of_clips(features[STEPS], batch)}
        logits = self(features[STEPS], real)
        wanted = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
        middle = torch.arange(logits.shape[1], device=logits.device) + 0.5
        for row, own, labels in zip(wanted, batch.targets["segments"], batch.targets["labels"], strict=True):
            for i in (own[:, 0] - own[:, 1]).argsort(stable=True).tolist():
                row[(middle > own[i, 0]) & (middle < own[i, 1])] = labels[i]
        each = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        return {"classes": (each * real).sum() / real.sum().clamp(min=1)}

    def _of_clips(self, steps: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy over events, each seen as the mean of the steps whose middle lies in it."""
        middle = torch.arange(steps.shape[2], device=steps.device) + 0.5
        means, wanted = [], []
        for x, own, labels in zip(steps, batch.targets["segments"], batch.targets["labels"], strict=True):
            inside = ((middle > own[:, :1]) & (middle < own[:, 1:])).to(x.dtype)  # (n, T)
            seen = inside.sum(1) > 0
            means.append((inside @ x.T / inside.sum(1, keepdim=True).clamp(min=1))[seen])
            wanted.append(labels[seen])
        logits = at_least_fp32(self.classes(self.drop(torch.cat(means))))
        each = F.cross_entropy(logits, torch.cat(wanted), reduction="sum")
        return each / max(1, len(logits))

    def said(self, steps: Tensor) -> Said:
        """Say what a part `(1, C, T)` of a video holds: a curve, and no candidates."""
        curve = self(steps, torch.ones_like(steps[:, 0], dtype=torch.bool))[0].softmax(1)
        curve = curve[:, :-1] if self.background else curve
        none = curve.new_zeros(0)
        return Said(curve, curve[:0], none.reshape(0, 2), none, none)

    def events(self, found: Said) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose events: for each class and threshold the runs of steps above it, of which better ones suppress others."""
        return grouped(found.curve.cpu().numpy(), self.thresholds, self.nms, self.detections)

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict an EventPrediction for each sample, bounds in steps."""
        return whole(self, features, batch)

    def condense(self, features: Features) -> Features:
        """Keep the features: nothing smaller would do."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return the tensors as they are: no other library has this head."""
        return tensors


def partial_sums(x: Tensor, window: int) -> Tensor:
    """Sum `(N, C, T)` over a window of an odd number of steps around each step; what lies outside is zero."""
    return F.avg_pool1d(x, window, 1, window // 2) * window
