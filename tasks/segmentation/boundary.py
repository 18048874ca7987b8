"""Boundary IoU: how well the edges of what was found follow the true ones.

Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", section 4.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...heads.contract import VOID

WIDTH = 0.02  # of the boundary, as a share of the picture's diagonal: the paper's


def boundary_counts(truth: np.ndarray, predicted: np.ndarray, classes: int, width: float = WIDTH) -> np.ndarray:
    """`(K, 2)` int64: the pixels that the boundaries of a class have in common, and those that either has.

    A boundary is what of a class lies within `width` times the diagonal (at least 1 pixel, a square's distance) of its
    own edge; the picture's border is an edge. `truth` and `predicted` are `(H, W)`; void pixels of the truth (255) are of
    no class on either side.
    """
    height, wide = truth.shape
    reach = max(1, round(width * float(np.hypot(height, wide))))
    known = truth != VOID
    counts = np.zeros((classes, 2), np.int64)
    for label in np.union1d(np.unique(truth[known]), np.unique(predicted[known])):
        one, other = ((labels == label) & known for labels in (truth, predicted))
        a, b = _boundary(torch.from_numpy(one), reach), _boundary(torch.from_numpy(other), reach)
        counts[int(label)] = int((a & b).sum()), int((a | b).sum())
    return counts


def _boundary(mask: Tensor, reach: int) -> Tensor:
    """The pixels of a mask that an erosion by `reach` takes away."""
    outside = (~mask).float()[None, None]
    near = F.pad(outside, (reach,) * 4, value=1.0)
    near = F.max_pool2d(F.max_pool2d(near, (2 * reach + 1, 1), 1), (1, 2 * reach + 1), 1)
    return mask & near[0, 0].bool()
