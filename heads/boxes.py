"""What detection heads share: the prediction of boxes, and the sizes that images have without their padding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .contract import Batch, Prediction

if TYPE_CHECKING:
    import numpy as np


@dataclass
class BoxPrediction(Prediction):
    """Objects of one image, best score first.

    `boxes` are `(n, 4)` fp32 x1, y1, x2, y2 in pixels of the image that the model saw, `labels` `(n,)` int64 from 0,
    `scores` `(n,)` fp32; `masks` `(n, 28, 28)` fp32, each the probability within its box, or None. What a task gives out is
    in pixels of the picture's own size, with the masks as run-length `codes`.
    """

    boxes: "np.ndarray"
    labels: "np.ndarray"
    scores: "np.ndarray"
    masks: "np.ndarray | None" = None
    codes: list[dict[str, Any]] | None = None


def sizes_of(batch: Batch) -> list[tuple[int, int]]:
    """List the height and width of each image before padding."""
    assert batch.images is not None
    if batch.sizes is None:
        return [(batch.images.shape[-2], batch.images.shape[-1])] * len(batch)
    return [(int(h), int(w)) for h, w in batch.sizes.tolist()]


def predictions(batch: Batch, found: list[dict[str, Any]]) -> list[Prediction]:
    """Convert each image's `boxes`, `labels`, `scores` and any `masks` `(n, 1, h, w)` to a BoxPrediction on the CPU."""
    result: list[Prediction] = []
    for name, one in zip(batch.ids, found, strict=True):
        masks = one.get("masks")
        result.append(
            BoxPrediction(
                name, _array(one["boxes"]), one["labels"].cpu().numpy(), _array(one["scores"]),
                None if masks is None else _array(masks[:, 0]),
            )
        )  # fmt: skip
    return result


def _array(tensor: Tensor) -> "np.ndarray":
    return tensor.detach().float().cpu().numpy()


def at_least_fp32(x: Tensor) -> Tensor:
    """Convert the tensor to fp32 where it has fewer bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
