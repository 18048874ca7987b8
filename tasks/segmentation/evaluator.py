"""Scores of a class for every pixel over a whole split; small records, in the data's order."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from trunkline.ground.errors import DataError

from ...heads.contract import VOID, Batch, Prediction
from ...heads.pixels.pixel_head import PixelPrediction
from ..contract import Record, Scores
from ..data.groups import group_numbers
from ..intervals import bootstrap, over_groups
from ..scores import Block, Examples, Picture, Table, mean_over, share
from .boundary import boundary_counts, boundary_iou
from .confusion import confusion, dense, scores, sparse
from .formats.encoding import Colour
from .formats.palette_png import palette_png
from .samples import PixelSamples

EXAMPLES = 12  # pictures that a report shows
METRICS = {
    "mIoU": share("Mean IoU"),
    "pixel_accuracy": share("Pixel accuracy"),
    "mean_accuracy": share("Mean accuracy per class"),
    "boundary_IoU": share("Mean boundary IoU"),
}


class PixelEvaluator:
    """Scores `mIoU`, `pixel_accuracy`, `mean_accuracy` and `boundary_IoU`, each over the pixels of the whole split.

    A record is one picture's confusion matrix and the counts of its boundaries, both without their zeros. With
    `written`, and always for a few examples, it also holds the mask, a PNG in base64.
    """

    metrics = METRICS

    def __init__(self, samples: PixelSamples) -> None:
        self.samples = samples
        self._cells: list[list[list[int]]] = []
        self._boundaries = np.zeros((len(samples.classes), 2), np.int64)
        shown = np.linspace(0, len(samples) - 1, min(EXAMPLES, len(samples))).round().astype(int).tolist()
        self._examples = list(dict.fromkeys(samples.id(i) for i in shown))

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Measure each prediction against its mask: one record a sample.

        Raises DataError where their sizes differ or a value is no class.
        """
        count, records = len(self.samples.classes), []
        for prediction, mask in zip(predictions, batch.targets["mask"], strict=True):
            assert isinstance(prediction, PixelPrediction)
            labels, truth = prediction.labels, mask.cpu().numpy()
            try:
                matrix = confusion(truth, labels, count)
            except DataError as error:
                raise DataError(f"{prediction.id}: {error}") from None
            edges = boundary_counts(truth, labels, count)
            record: Record = {"id": prediction.id, "cells": sparse(matrix), "boundary": sparse(edges)}
            if self.samples.options.written or prediction.id in self._examples:
                png = palette_png(labels, self.samples.encoding.palette)
                record |= {"classes": list(self.samples.classes), "mask": base64.b64encode(png).decode()}
            records.append(record)
        return records

    def add(self, records: list[Record]) -> None:
        """Add the records of the next samples, in the data's order."""
        for one in records:
            self._cells.append(one["cells"])
            places, counts = one["boundary"]
            self._boundaries.ravel()[places] += np.asarray(counts, np.int64)

    def result(self) -> Scores:
        """Compute the metrics, their intervals, and `details`: IoU and accuracy by class, and the examples' ids."""
        classes, absent = self.samples.classes, self.samples.options.absent
        matrix = sum((dense(cells, len(classes)) for cells in self._cells), np.zeros((len(classes),) * 2, np.int64))
        found = scores(matrix, absent)
        metrics = {"mIoU": found.miou, "pixel_accuracy": found.pixel_accuracy, "mean_accuracy": found.mean_accuracy}
        metrics["boundary_IoU"] = boundary_iou(self._boundaries, matrix.sum(1) > 0)
        details: dict[str, Any] = {
            "class_iou": {n: None if np.isnan(v) else float(v) for n, v in zip(classes, found.iou, strict=True)},
            "class_accuracy": {
                n: None if np.isnan(v) else float(v) for n, v in zip(classes, found.accuracy, strict=True)
            },
            "absent": absent,
        }
        details["examples"] = self._examples
        over = mean_over("mIoU and mean_accuracy", details["class_iou"], "no pixel in the truth")
        groups, drawn = over_groups(group_numbers(self.samples, self.samples.options.group), "pictures")
        ends = self._intervals(absent, groups)
        return Scores(metrics, ends, details, len(self._cells), ("mIoU", "pixel_accuracy"), over + drawn)

    def blocks(self, scores: Scores) -> list[Block]:
        """Build a table of each class's IoU and accuracy, and examples beside their truth."""
        iou, accuracy = scores.details["class_iou"], scores.details["class_accuracy"]
        rows = tuple((n, iou[n], accuracy[n]) for n in iou if iou[n] is not None or accuracy[n] is not None)
        table = [Table("Classes", ("class", "IoU", "accuracy"), rows)] if rows else []
        note = (
            "Pictures of the validation split, evenly taken; on the left what the model says, on the right the truth."
        )
        return [*table, Examples("Examples", tuple(map(Picture, scores.details["examples"])), note, "pair")]

    def results(self, records: list[Record]) -> dict[str, bytes]:
        """Write each record's mask as a palette PNG, `NAME.png`, with the data's own numbers.

        VOC's evaluation server takes such files. Records without a mask are left out.
        """
        encoding = self.samples.encoding
        palette: list[Colour] = [(0, 0, 0)] * VOID + [(224, 224, 192)]
        for number, colour in zip(encoding.stored, encoding.palette, strict=True):
            palette[number] = colour

        def written(mask: str) -> bytes:
            png = base64.b64decode(mask)
            if encoding.stored == tuple(range(len(encoding.classes))):
                return png
            with Image.open(io.BytesIO(png)) as image:
                return palette_png(np.array(encoding.stored, np.uint8)[np.asarray(image)], palette)

        return {f"{one['id']}.png": written(one["mask"]) for one in records if "mask" in one}

    def _intervals(self, absent: str, groups: np.ndarray | None) -> dict[str, tuple[float, float]]:
        """Compute the 95 % intervals by the bootstrap over pictures, or groups of them; empty for fewer than two."""
        count, samples = len(self.samples.classes), len(self._cells)
        if samples < 2:
            return {}
        parts = np.zeros((samples, 3, count))  # hits, truth, predicted of each picture
        for part, cells in zip(parts, self._cells, strict=True):
            own = dense(cells, count)
            part[:] = np.diag(own), own.sum(1), own.sum(0)

        def statistics(weights: np.ndarray) -> np.ndarray:
            hit, there, said = np.moveaxis((weights @ parts.reshape(samples, -1)).reshape(-1, 3, count), 1, 0)
            counted = there > 0 if absent == "truth" else there + said > 0
            with np.errstate(invalid="ignore", divide="ignore"):  # NaN where a resample has no pixel of any class
                iou = np.where(counted, hit / (there + said - hit), 0.0)
                return np.stack([iou.sum(1) / counted.sum(1), hit.sum(1) / there.sum(1)], 1)

        low, high = bootstrap(statistics, samples, groups=groups)
        names = ("mIoU", "pixel_accuracy")
        return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True) if not np.isnan(a)}
