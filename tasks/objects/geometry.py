"""Sizes and boxes when pictures are resized. Imports no torch."""

import numpy as np


def back(boxes: np.ndarray, seen: tuple[int, int], original: tuple[int, int]) -> np.ndarray:
    """Scale boxes `(n, 4)` x1, y1, x2, y2 from an image of (height, width) `seen` to the original one, fp32."""
    ratio = np.array([original[1] / seen[1], original[0] / seen[0]] * 2, np.float32)
    return boxes.astype(np.float32) * ratio
