"""Pooling, dropout and a linear classifier."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.contract import Features
from .boxes import at_least_fp32
from .contract import Batch, Prediction

if TYPE_CHECKING:
    import numpy as np


@dataclass
class ClassPrediction(Prediction):
    """`probabilities` is `(K,)` fp32, one a class in the classifier's order; they sum to 1."""

    probabilities: "np.ndarray"


class ClassificationHead(nn.Module):
    """Global average pooling of the deepest map, dropout and a linear layer `fc` (torchvision's name).

    With `kept`, that classifier stands as `fc` and does not learn; `extra`, a linear layer from its logits to the
    classes, does, and dropout moves in front of it. There is no activation between the two: training `extra` alone
    stays a convex problem, and negative logits keep what they say.

    channels         of the map that it reads
    classes          how many there are, K
    dropout          share of the inputs of the layer that learns which is set to zero in training, 0 to below 1
    label_smoothing  share of the target spread evenly over all classes, 0 to 1 (Szegedy et al. 2016, section 7)
    reads            the map's name: the trunk's deepest
    """

    trunk = ""  # where the trunk's tensors stand in a published file: at its top, as torchvision has them

    def __init__(
        self,
        channels: int,
        classes: int,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        kept: nn.Linear | None = None,
        reads: str = "c5",
    ):
        super().__init__()
        if kept is not None and kept.in_features != channels:
            raise ValueError(f"the kept classifier reads {kept.in_features} channels, the trunk gives {channels}")
        self.reads, self.needs = reads, (reads,)
        self.dropout, self.label_smoothing = nn.Dropout(dropout), label_smoothing
        self.fc = nn.Linear(channels, classes) if kept is None else kept.requires_grad_(False)
        self.extra = None if kept is None else nn.Linear(kept.out_features, classes)

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the head's tensors as others read them: one `fc`; two linear layers in a row are merged into one."""
        if self.extra is None:
            return tensors
        kept, extra = tensors["fc.weight"].double(), tensors["extra.weight"].double()
        bias = extra @ tensors["fc.bias"].double() + tensors["extra.bias"].double()
        return {"fc.weight": (extra @ kept).float(), "fc.bias": bias.float()}

    def condense(self, features: Features) -> Features:
        """Pool the map to `(N, C, 1, 1)`; pooling it again changes nothing."""
        return {self.reads: features[self.reads].mean((2, 3), keepdim=True)}

    def forward(self, features: Features) -> Tensor:
        """Compute the logits `(N, K)` from the map `(N, C, H, W)` that it reads."""
        pooled = self.condense(features)[self.reads].flatten(1)
        if self.extra is None:
            return self.fc(self.dropout(pooled))
        return self.extra(self.dropout(self.fc(pooled)))

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `cross_entropy`, the mean over the micro-batch's samples, in fp32 or better; `label` is `(N,)` int64."""
        return class_losses(self(features), batch, self.label_smoothing)

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a ClassPrediction for each sample; the softmax is taken in fp32 or better whatever autocast says."""
        return class_predictions(self(features), batch)


def class_losses(logits: Tensor, batch: Batch, label_smoothing: float) -> dict[str, Tensor]:
    """Compute `cross_entropy` of logits `(N, K)`, the mean over samples, in fp32 or better; `label` is `(N,)` int64."""
    loss = F.cross_entropy(at_least_fp32(logits), batch.targets["label"], label_smoothing=label_smoothing)
    return {"cross_entropy": loss}


def class_predictions(logits: Tensor, batch: Batch) -> list[Prediction]:
    """Make a ClassPrediction of each row of logits `(N, K)`, by a softmax in fp32 or better."""
    probabilities = at_least_fp32(logits).softmax(1).detach().float().cpu().numpy()
    return [ClassPrediction(name, row) for name, row in zip(batch.ids, probabilities, strict=True)]
