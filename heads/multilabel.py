"""Several labels a picture: pooling over the picture without its padding, dropout and one linear output a class."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.contract import Features
from .boxes import at_least_fp32
from .contract import Batch, Prediction

if TYPE_CHECKING:
    import numpy as np


@dataclass
class MultiLabelPrediction(Prediction):
    """`probabilities` is `(K,)` fp32, one a class in the classifier's order; each says by itself whether the class is there."""

    probabilities: "np.ndarray"


class MultiLabelHead(nn.Module):
    """Global average pooling of the deepest map, without the padding of a batch, dropout and a linear layer `fc`.

    channels  of the map that it reads
    classes   how many there are, K
    dropout   share of the inputs of `fc` that is set to zero in training, 0 to below 1
    reads     the map's name: the trunk's deepest
    stride    pixels of the picture that one step of this map is
    """

    trunk = ""  # where the trunk's tensors stand in a published file: at its top, as torchvision has them

    def __init__(self, channels: int, classes: int, dropout: float = 0.0, reads: str = "c5", stride: int = 32):
        super().__init__()
        self.reads, self.needs, self.stride = reads, (reads,), stride
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(channels, classes)

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the head's tensors: `fc.weight` and `fc.bias`."""
        return tensors

    def condense(self, features: Features) -> Features:
        """Pool the map to `(N, C, 1, 1)`; pooling it again changes nothing. It is for batches without padding."""
        return {self.reads: features[self.reads].mean((2, 3), keepdim=True)}

    def forward(self, features: Features, batch: Batch) -> Tensor:
        """Compute the logits `(N, K)` from the map `(N, C, H, W)` that it reads and the batch's `sizes`, if it has them."""
        if batch.sizes is None:
            pooled = self.condense(features)[self.reads].flatten(1)
        else:
            pooled = pooled_inside(features[self.reads], batch.sizes, self.stride)
        return self.fc(self.dropout(pooled))

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `binary_cross_entropy`, in fp32 or better: the mean over the micro-batch's known pairs of picture and class.

        The target `labels` is `(N, K)`: 1 (there), 0 (not there), -1 (unknown, which counts for nothing). Where nothing is
        known the loss is 0, with a gradient of zeros.
        """
        logits, labels = at_least_fp32(self(features, batch)), batch.targets["labels"]
        known = labels >= 0
        each = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
        return {"binary_cross_entropy": torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)}

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a MultiLabelPrediction for each sample; the sigmoid is taken in fp32 or better whatever autocast says."""
        probabilities = at_least_fp32(self(features, batch)).sigmoid().detach().float().cpu().numpy()
        return [MultiLabelPrediction(name, row) for name, row in zip(batch.ids, probabilities, strict=True)]


def pooled_inside(maps: Tensor, sizes: Tensor, stride: int) -> Tensor:
    """Average a map `(N, C, H, W)` over each picture without its padding: `(N, C)` in fp32 or better.

    `sizes` `(N, 2)` are heights and widths in pixels. A cell counts where its upper left pixel is inside: the first
    ceil(size / stride) of each side, so that what a batch pads to changes nothing.
    """
    cells = (sizes + stride - 1) // stride
    rows = torch.arange(maps.shape[2], device=maps.device) < cells[:, :1]
    columns = torch.arange(maps.shape[3], device=maps.device) < cells[:, 1:]
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, at_least_fp32(maps), 0.0).sum((2, 3)) / inside.sum((2, 3))
