"""VOC's average precision: the rules of 2007 (11 points) and of 2010 and later (area), as its ports or its kit have them.

Protocol: the VOC development kit's `VOCevaldet.m`, and the Python port of it that most published numbers come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .voc_file import NONE, Detections, VocAnnotation

Threshold = Literal["port", "devkit"]
Grid = Literal["port", "exact"]


@dataclass
class ClassScore:
    """`ap`, and what it comes from: the number of objects (difficult ones left out), of detections, of hits and misses.

    `recall` and `precision` are a point a counted detection, by falling score.
    """

    ap: float
    objects: int
    detections: int
    hits: int
    misses: int
    recall: np.ndarray
    precision: np.ndarray


@dataclass
class VocTruth:
    """The objects of one class, a row each: index of the image, box, whether it is difficult."""

    image: np.ndarray
    boxes: np.ndarray
    difficult: np.ndarray


def truth_by_class(annotations: Sequence[VocAnnotation]) -> dict[str, VocTruth]:
    """Group the objects of a list's images by class, in the list's order."""
    rows: dict[str, list[tuple[int, tuple[float, float, float, float], bool]]] = {}
    for i, annotation in enumerate(annotations):
        for one in annotation.objects:
            rows.setdefault(one.name, []).append((i, one.box, one.difficult))
    return {
        name: VocTruth(
            np.array([r[0] for r in found], np.int64),
            np.array([r[1] for r in found], np.float64),
            np.array([r[2] for r in found], bool),
        )
        for name, found in sorted(rows.items())
    }


def score_class(
    truth: VocTruth,
    found: Detections = NONE,
    iou: float = 0.5,
    area: bool = False,
    threshold: Threshold = "port",
    grid: Grid = "port",
) -> ClassScore:
    """Compute the AP of one class.

    Boxes hold their last pixel. A detection belongs to the object of its image that it overlaps most (the first of
    equals). It is a hit if they overlap by more than `iou` (`threshold="devkit"`: by `iou` or more) and no detection
    with a higher score took the object; else it is a miss. A detection that matches a difficult object is not counted.
    Ties keep the file's order. `area` is the rule since 2010; else AP is the mean over 11 recalls, on the port's
    `arange(0, 1.1, 0.1)` (three of which are a hair above 0.3, 0.6 and 0.7) or on exact tenths. A class without objects
    has NaN.
    """
    order = np.argsort(-found.scores, kind="stable")
    image, boxes = found.image[order], found.boxes[order]
    overlap, best = _best(truth, image, boxes, candidates=threshold == "devkit")
    met = overlap >= iou if threshold == "devkit" else overlap > iou
    easy = np.ones(len(order), bool)
    easy[met] = ~truth.difficult[best[met]]
    hit = np.zeros(len(order), bool)
    candidates = np.flatnonzero(met & easy)
    _, first = np.unique(best[candidates], return_index=True)
    hit[candidates[first]] = True
    counted = easy | ~met
    hits, misses = np.cumsum(hit[counted]), np.cumsum(~hit[counted])
    objects = int((~truth.difficult).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / float(objects)
    precision = hits / np.maximum(hits + misses, np.finfo(np.float64).eps)
    ap = float("nan") if not objects else _area(recall, precision) if area else _eleven(recall, precision, grid)
    return ClassScore(
        ap,
        objects,
        len(order),
        int(hits[-1]) if len(hits) else 0,
        int(misses[-1]) if len(misses) else 0,
        recall,
        precision,
    )


def _best(truth: VocTruth, image: np.ndarray, boxes: np.ndarray, candidates: bool) -> tuple[np.ndarray, np.ndarray]:
    """Find for each detection the largest overlap with an object of its image, and its row; -inf without one."""
    by_image = np.argsort(truth.image, kind="stable")
    start = np.searchsorted(truth.image[by_image], image, "left")
    count = np.searchsorted(truth.image[by_image], image, "right") - start
    overlap, best = np.full(len(image), -np.inf), np.zeros(len(image), np.int64)
    some = np.flatnonzero(count)
    if not some.size:
        return overlap, best
    begin = np.cumsum(count[some]) - count[some]
    own = np.repeat(some, count[some])
    row = by_image[np.arange(len(own)) - np.repeat(begin, count[some]) + start[own]]
    values = _iou(truth.boxes[row], boxes[own], candidates)
    overlap[some] = np.maximum.reduceat(values, begin)
    ties = np.where(values == overlap[own], np.arange(len(own)), len(own))
    best[some] = row[np.minimum.reduceat(ties, begin)]
    return overlap, best


def _iou(a: np.ndarray, b: np.ndarray, candidates: bool) -> np.ndarray:
    """Compute the IoU of inclusive boxes `(n, 4)`, in the port's order of operations.

    With `candidates` it is -inf where two boxes do not overlap, as in the kit.
    """
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1.0
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1.0
    inside = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = inside / (
            (b[:, 2] - b[:, 0] + 1.0) * (b[:, 3] - b[:, 1] + 1.0)
            + (a[:, 2] - a[:, 0] + 1.0) * (a[:, 3] - a[:, 1] + 1.0)
            - inside
        )
    values = np.where(inside > 0, values, 0.0)  # also where a box that ends before it begins makes it 0 / 0
    return np.where((width > 0) & (height > 0), values, -np.inf) if candidates else values


def _eleven(recall: np.ndarray, precision: np.ndarray, grid: Grid) -> float:
    points = np.arange(0.0, 1.1, 0.1) if grid == "port" else np.array([i / 10 for i in range(11)])
    ap = 0.0
    for point in points:
        there = precision[recall >= point]
        ap += (there.max() if there.size else 0.0) / 11.0
    return float(ap)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    r = np.concatenate(([0.0], recall, [1.0]))
    p = np.concatenate(([0.0], precision, [0.0]))
    p = np.maximum.accumulate(p[::-1])[::-1]
    at = np.flatnonzero(r[1:] != r[:-1])
    return float(np.sum((r[at + 1] - r[at]) * p[at + 1]))


def mean(scores: Mapping[str, ClassScore]) -> float | None:
    """Average AP over the classes that have objects; None where none has."""
    values = [s.ap for s in scores.values() if s.objects]
    return float(np.mean(values)) if values else None
