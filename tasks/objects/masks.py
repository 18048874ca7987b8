"""Predicted masks to run-length codes, without an image-sized mask for any of them; and codes and polygons to bitmaps."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.5


def to_rle(probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
    """Encode masks `(n, M, M)` fp32 in boxes `(n, 4)` x1, y1, x2, y2 as codes (`size`, `counts` as text).

    `height` and `width` are the image's. The pixels are those of torchvision's `paste_masks_in_image` above one half:
    the mask padded by one, its box grown to match and cut to whole pixels, resized bilinearly. The cost depends on the
    size of a mask's box, not of the image.
    """
    side = probabilities.shape[-1]
    padded = F.pad(torch.from_numpy(np.ascontiguousarray(probabilities, np.float32)), (1, 1, 1, 1))
    grown = _grown(torch.from_numpy(np.ascontiguousarray(boxes, np.float32)), (side + 2) / side).to(torch.int64)
    return [
        _code(_runs(mask, box, height, width), height, width) for mask, box in zip(padded, grown.tolist(), strict=True)
    ]


def _grown(boxes: Tensor, scale: float) -> Tensor:
    half = torch.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], 1) * 0.5
    centre = torch.stack([boxes[:, 2] + boxes[:, 0], boxes[:, 3] + boxes[:, 1]], 1) * 0.5
    half = half * scale
    return torch.cat([centre - half, centre + half], 1)


def _runs(mask: Tensor, box: list[int], height: int, width: int) -> np.ndarray:
    """List where runs of ones begin and end, by turns, counted down the columns of the image."""
    left, top, right, bottom = box
    size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right + 1, width), min(bottom + 1, height)
    if x1 <= x0 or y1 <= y0:
        return np.zeros(0, np.int64)
    resized = F.interpolate(mask[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    inside = (resized[y0 - top : y1 - top, x0 - left : x1 - left] > THRESHOLD).T.numpy()
    edged = np.zeros((inside.shape[0], inside.shape[1] + 2), np.int8)
    edged[:, 1:-1] = inside
    column, row = np.nonzero(np.diff(edged, axis=1))
    found = (column + x0) * height + row + y0
    joined = np.flatnonzero(found[1:-1:2] == found[2::2])  # a run to the last row, then one from the first row
    return np.delete(found, np.concatenate([2 * joined + 1, 2 * joined + 2])) if joined.size else found


def _code(runs: np.ndarray, height: int, width: int) -> dict[str, Any]:
    from pycocotools import mask

    counts = np.diff(np.concatenate([[0], runs, [height * width]])).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    found: Any = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": found["counts"].decode()}


def to_bitmap(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draw polygons or a run-length code as `(H, W)` uint8, as pycocotools rasterises them."""
    from pycocotools import mask

    return mask.decode(to_code(segmentation, height, width))


def to_code(segmentation: Any, height: int, width: int) -> Any:
    """Convert polygons or any run-length code to a compressed code, as pycocotools rasterises them."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, height, width))
    return mask.frPyObjects(segmentation, height, width) if isinstance(segmentation["counts"], list) else segmentation
