"""Scores of a class for every pixel from one confusion matrix over the whole set; numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ...heads.contract import VOID

ABSENT = ("truth", "either")
"""Which classes a mean is over: those that the truth has, or those that the truth or the prediction has."""


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of the row's class that were taken for the column's: `(K, K)` int64, without void pixels (255).

    Both are integer arrays of one shape with values from 0 to below K; only the truth may be void. Raises DataError for
    another shape or value.
    """
    if truth.shape != predicted.shape:
        raise DataError(f"the prediction is {_size(predicted)} pixels, the truth {_size(truth)}")
    known = truth != VOID
    rows, columns = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        wrong = (values < 0) | (values >= classes)
        if wrong.any():
            first = int(values[wrong][0])
            raise DataError(
                f"the {name} has the value {first} in {int((values == first).sum())} pixels; expected 0 to {classes - 1}"
            )
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class PixelScores:
    """`iou` and `accuracy` `(K,)` float64 by class, NaN where a class is not among those of the mean; None: no mean."""

    miou: float | None
    mean_accuracy: float | None
    pixel_accuracy: float | None
    iou: np.ndarray
    accuracy: np.ndarray


def scores(matrix: np.ndarray, absent: str = "truth") -> PixelScores:
    """Compute the scores of a confusion matrix `(K, K)`.

    The IoU of a class is TP / (truth + predicted - TP), its accuracy TP / truth. mIoU is the mean over the classes that
    the truth has (`absent="truth"`: false pixels of other classes lower the IoU of the classes that they belong to), or
    that the truth or the prediction has (`"either"`: a class that is only predicted has an IoU of 0, as in
    mmsegmentation). The mean accuracy is always over the classes that the truth has. A mean over no class is None.
    """
    hit = np.diag(matrix).astype(np.float64)
    there, said = matrix.sum(1), matrix.sum(0)
    counted = there > 0 if absent == "truth" else (there + said) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(counted, hit / (there + said - hit), np.nan)
        accuracy = np.where(there > 0, hit / there, np.nan)
        share = float(hit.sum() / there.sum()) if there.sum() else None
    return PixelScores(_mean(iou), _mean(accuracy), share, iou, accuracy)


def sparse(matrix: np.ndarray) -> list[list[int]]:
    """List the places and the counts of the cells that are not 0, for a record."""
    flat = matrix.ravel()
    places = np.flatnonzero(flat)
    return [places.tolist(), flat[places].tolist()]


def dense(cells: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """Rebuild the matrix `(K, K)` int64 from the cells of `sparse`."""
    found = np.zeros(classes * classes, np.int64)
    found[np.asarray(cells[0], np.int64)] = np.asarray(cells[1], np.int64)
    return found.reshape(classes, classes)


def _mean(values: np.ndarray) -> float | None:
    known: Any = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[::-1]))
