"""What heads find in a video's features over time: events with a class, bounds in steps and a score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.contract import Features
from ..contract import Batch, Prediction

STEPS = "steps"
"""The map of features over time, `(N, C, T)`: column i is about the time from i to i + 1, in steps."""
REAL = "real"
"""The target `(N,)` int64 that counts the steps of each sample; those behind are padding."""


@dataclass
class EventPrediction(Prediction):
    """What was found, best score first: `segments` `(n, 2)` float64 start and end, `labels` `(n,)` int64, `scores` `(n,)` fp32.

    Bounds are in steps until the task makes seconds of them. `curve` `(T, K)` fp32 has each class's score at each step.
    """

    segments: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    curve: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass
class Said:
    """What a head says of a part of a video, steps counted from the part's first one.

    `curve` `(T, K)`; candidates by level: `scores` `(A, K)`, `segments` `(A, 2)`, `places` `(A,)` and `strides` `(A,)` in steps.
    """

    curve: Tensor
    scores: Tensor
    segments: Tensor
    places: Tensor
    strides: Tensor


class EventHead(Protocol):
    """What the task asks of a head besides `Head`.

    unit   steps that parts of a video are a multiple of
    reach  steps on either side that decide what is said of a step
    """

    unit: int
    reach: int

    def said(self, steps: Tensor) -> Said:
        """Say what a part `(1, C, T)` of a video holds; T is any number of steps."""
        ...

    def events(self, found: Said) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose events: segments `(n, 2)` in steps, labels `(n,)` and scores `(n,)`, best first."""
        ...


def whole(head: Any, features: Features, batch: Batch) -> list[Prediction]:
    """Predict each sample of a batch by itself, without its padding: an EventPrediction each."""
    found: list[Prediction] = []
    for i, name in enumerate(batch.ids):
        count = int(batch.targets[REAL][i]) if REAL in batch.targets else features[STEPS].shape[2]
        said = head.said(features[STEPS][i : i + 1, :, :count])
        segments, labels, scores = head.events(said)
        found.append(EventPrediction(name, segments, labels, scores, said.curve.cpu().numpy()))
    return found


def real_steps(features: Features, batch: Batch) -> Tensor:
    """Return which steps are no padding, `(N, T)` bool."""
    x = features[STEPS]
    if REAL not in batch.targets:
        return torch.ones((len(x), x.shape[2]), dtype=torch.bool, device=x.device)
    return torch.arange(x.shape[2], device=x.device) < batch.targets[REAL][:, None]


def joined(parts: Sequence[Said], firsts: Sequence[int], own: Sequence[tuple[int, int]]) -> Said:
    """Put parts of a video together: of each, that begins at step `firsts`, what is said of the steps `own`, counted in all."""
    curves, rows = [], []
    for part, first, (start, end) in zip(parts, firsts, own, strict=True):
        curves.append(part.curve[start - first : end - first])
        last = end == own[-1][1]  # coarse places may lie behind the video's last step
        kept = (part.places + first >= start) & ((part.places + first < end) | last)
        rows.append((part.scores[kept], part.segments[kept] + first, part.places[kept] + first, part.strides[kept]))
    scores, segments, places, strides = (torch.cat(column) for column in zip(*rows, strict=True))
    return Said(torch.cat(curves), scores, segments, places, strides)


def parts_of(count: int, size: int, head: EventHead) -> Iterator[tuple[int, int, int, int]]:
    """Divide steps into parts: of each the first step and the end that are read, and the first and the end that it decides.

    What is said of a part's own steps is what is said of the whole at once: it begins at a multiple of the head's unit, and
    reads as far on either side as the head reaches.
    """
    size = max(head.unit, size // head.unit * head.unit)
    reach = -(-head.reach // head.unit) * head.unit
    for start in range(0, count, size):
        end = min(count, start + size)
        yield max(0, start - reach), min(count, end + reach), start, end


class OverTime(nn.Module):
    """A convolution over time, a norm of each step by itself, and a ReLU; padding stays zero.

    The norm is over a step's channels, so that what is said of a step does not depend on how long the video is.
    """

    def __init__(self, before: int, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(before, channels, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Compute `(N, channels, T)` of `(N, before, T)`; `real` is `(N, 1, T)`, 1 or 0."""
        x = self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        return F.relu(x) * real
