"""Segments of time, `(n, 2)` start and end: how they overlap, which suppress which, and runs of scores. Imports no torch."""

from collections.abc import Sequence

import numpy as np


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute intersection over union of segments `(n, 2)` and `(m, 2)`: `(n, m)` float64; 0 where both are empty."""
    both = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    both = both.clip(0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def suppressed(
    segments: np.ndarray, labels: np.ndarray, scores: np.ndarray, overlap: float, sigma: float, least: float, most: int
) -> np.ndarray:
    """Choose among segments `(n, 2)` of each class: their rows, best first, at most `most`; scores change in place with `sigma`.

    With `sigma` 0 those that overlap a better one by more than `overlap` are left out; else their scores are multiplied by
    exp(-overlap^2 / sigma), and left out below `least` (Bodla et al. 2017, "Soft-NMS", section 3).
    """
    kept: list[int] = []
    for label in np.unique(labels):
        rest = np.flatnonzero(labels == label)
        rest = rest[np.argsort(-scores[rest], kind="stable")]
        taken = 0
        while len(rest) and taken < most:
            best = int(scores[rest].argmax()) if sigma else 0
            one = rest[best]
            rest = np.delete(rest, best)
            kept.append(int(one))
            taken += 1
            shared = overlaps(segments[one][None], segments[rest])[0]
            if sigma:
                scores[rest] *= np.exp(-(shared**2) / sigma)
                rest = rest[scores[rest] >= least]
            else:
                rest = rest[shared <= overlap]
    chosen = np.array(kept, np.int64)
    return chosen[np.argsort(-scores[chosen], kind="stable")][:most]


def grouped(
    curve: np.ndarray, thresholds: Sequence[float], nms: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group scores over time `(T, K)` into events: segments `(n, 2)` in steps, labels and scores `(n,)`, best first."""
    rows: list[tuple[float, float, int, float]] = []
    for label in range(curve.shape[1]):
        own, seen = curve[:, label], set[tuple[int, int]]()
        for threshold in thresholds:
            ends = np.flatnonzero(np.diff(np.concatenate([[0], own > threshold, [0]])))
            for start, end in ends.reshape(-1, 2).tolist():
                if (start, end) not in seen:
                    rows.append((start, end, label, float(own[start:end].mean())))
                    seen.add((start, end))
    table = np.array(rows, np.float64).reshape(-1, 4)
    segments, labels, scores = table[:, :2], table[:, 2].astype(np.int64), table[:, 3].astype(np.float32)
    kept = suppressed(segments, labels, scores, nms, 0.0, 0.0, most)
    return segments[kept], labels[kept], scores[kept]
