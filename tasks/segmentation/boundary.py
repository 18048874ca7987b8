"""Boundary IoU: how well the edges of what was found follow the true ones.

Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", section 4.
"""

import numpy as np

from ...heads.contract import VOID

WIDTH = 0.02  # of the boundary, as a share of the picture's diagonal; the paper's value


def boundary_counts(truth: np.ndarray, predicted: np.ndarray, classes: int, width: float = WIDTH) -> np.ndarray:
    """Count the pixels that the boundaries of a class share, and those that either has: `(K, 2)` int64.

    The boundary of a class is its pixels that lie near its edge: within `width` times the picture's diagonal, at least
    1 pixel, by a square's distance. The picture's border is an edge. `truth` and `predicted` are `(H, W)` integers;
    void pixels of the truth (255) belong to no class on either side.
    """
    height, wide = truth.shape
    reach = max(1, round(width * float(np.hypot(height, wide))))
    known = truth != VOID
    counts = np.zeros((classes, 2), np.int64)
    for label in np.union1d(np.unique(truth[known]), np.unique(predicted[known])):
        one, other = ((labels == label) & known for labels in (truth, predicted))
        rows, columns = (np.flatnonzero((one | other).any(axis)) for axis in (1, 0))
        cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        a, b = _boundary(one[cut], reach), _boundary(other[cut], reach)
        counts[int(label)] = int((a & b).sum()), int((a | b).sum())
    return counts


def boundary_iou(counts: np.ndarray, there: np.ndarray) -> float | None:
    """Average the IoU of summed `boundary_counts` `(K, 2)` over the classes in `there` `(K,)` bool; None if none is."""
    common, either = counts[there].T.astype(np.float64)
    return float(np.mean(common / np.maximum(either, 1))) if there.any() else None


def _boundary(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels of a mask that an erosion by a square of `reach` removes; all beyond the array is outside."""
    height, width = mask.shape
    side = 2 * reach + 1
    sums = np.zeros((height + side, width + side), np.int32)  # each sums the mask above it and to its left
    sums[reach + 1 : reach + 1 + height, reach + 1 : reach + 1 + width] = mask
    np.cumsum(sums, 0, out=sums)
    np.cumsum(sums, 1, out=sums)
    inside = sums[side:, side:] - sums[:height, side:] - sums[side:, :width] + sums[:height, :width]
    return mask & (inside < side * side)
