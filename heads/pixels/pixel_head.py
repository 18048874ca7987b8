"""What all heads for pixels share: losses, predictions without padding, and what may be cached."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.contract import Features
from ..boxes import at_least_fp32, sizes_of
from ..contract import VOID, Batch, Prediction
from .pixel_losses import Weighted, pixel_losses

if TYPE_CHECKING:
    import numpy as np

CROSS_ENTROPY = Weighted()


@dataclass
class PixelPrediction(Prediction):
    """`labels` is `(H, W)` uint8 (int32 from 256 classes on): the class of every pixel, from 0."""

    labels: "np.ndarray"


class PixelHead(nn.Module):
    """Logits of every class for every pixel; each kind writes `forward`.

    kind      its name in the options
    classes   how many there are, K, the background among them
    needs     the maps that it reads
    weighted  the losses and their weights
    """

    under = ""
    """What the names of its tensors begin with in a published file."""

    def __init__(self, kind: str, classes: int, needs: tuple[str, ...], weighted: Weighted) -> None:
        super().__init__()
        self.kind, self.classes, self.needs, self.weighted = kind, classes, needs, weighted

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Compute logits `(N, K, H, W)` in fp32 at least for images of `size` H, W."""
        raise NotImplementedError

    def logits(self, features: Features, batch: Batch) -> list[Tensor]:
        """Compute the logits `(K, h, w)` of each image without its padding."""
        assert batch.images is not None
        height, width = batch.images.shape[-2:]
        found = self(features, (height, width))
        return [one[:, :h, :w] for one, (h, w) in zip(found, sizes_of(batch), strict=True)]

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of `weighted`, each times its weight: means over the pixels that are not void.

        The means are over the whole micro-batch. Target: `mask` `(N, H, W)` uint8 or int64, the class of every pixel
        from 0, 255 where there is none.
        """
        assert batch.images is not None
        height, width = batch.images.shape[-2:]
        return pixel_losses(self(features, (height, width)), batch.targets["mask"].long(), self.weighted)

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a PixelPrediction for each sample, in the size that the model saw."""
        found = self.logits(features, batch)
        return [PixelPrediction(name, labels_of(one)) for name, one in zip(batch.ids, found, strict=True)]

    def condense(self, features: Features) -> Features:
        """Keep the maps that are read; nothing smaller would do."""
        return {name: features[name] for name in self.needs}

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under `under`: the names behind it are those of other libraries already."""
        return {f"{self.under}{name}": tensor for name, tensor in tensors.items()}


def labels_of(logits: Tensor) -> "np.ndarray":
    """Find the best class `(H, W)` of logits or probabilities `(K, H, W)`: uint8, or int32 from 256 classes on."""
    best = logits.argmax(0)
    return best.to(torch.uint8 if len(logits) <= VOID else torch.int32).cpu().numpy()


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits `(N, K, h, w)` to `(N, K, H, W)`, bilinear, in fp32 at least."""
    return F.interpolate(at_least_fp32(logits), size=size, mode="bilinear", align_corners=False)
