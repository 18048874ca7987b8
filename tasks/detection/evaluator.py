"""Scores of boxes and masks by COCO's protocol, and VOC's where the data is VOC's; small records, in the data's order."""

import json
from typing import Any

import numpy as np

from ...heads.boxes import BoxPrediction
from ...heads.contract import Batch, Prediction
from ..contract import Record, Scores
from ..data.groups import group_numbers
from ..intervals import over_groups
from ..objects.coco_file import Objects, Truth
from ..objects.coco_scores import CocoScores, score
from ..objects.polygons import as_raw
from ..objects.voc_file import Detections, in_file_name
from ..objects.voc_scores import VocTruth, mean, score_class
from ..scores import Block, mean_over
from .draw import drawn
from .samples import BoxSamples
from .shown import COCO, MASKS, VOC, blocks
from .truth import truth_of

EXAMPLES = 12  # pictures that a report shows


class BoxEvaluator:
    """COCO's twelve numbers for boxes; with masks, theirs too as `mask_AP`, …; for VOC's data also `mAP` and `mAP07`.

    A record is one picture's objects, best first: `boxes` x, y, width, height in pixels of the picture's own size,
    `labels` by name, `scores`.
    """

    def __init__(self, samples: BoxSamples) -> None:
        self.samples = samples
        self.metrics = {**COCO, **(MASKS if samples.masks else {}), **(VOC if samples.options.format == "voc" else {})}
        self._rows: list[int] = []
        self._boxes: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._codes: list[Any] = []
        self._number = {name: i for i, name in enumerate(samples.classes)}

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Build one record a sample."""
        return [record(p, self.samples.classes) for p in predictions]  # type: ignore[arg-type]

    def add(self, records: list[Record]) -> None:
        """Add the records of the next samples, in the data's order."""
        for one in records:
            self._rows.append(len(one["scores"]))
            self._boxes.append(np.array(one["boxes"], np.float64).reshape(-1, 4))
            self._labels.append(np.array([self._number[name] for name in one["labels"]], np.int64))
            self._scores.append(np.array(one["scores"], np.float64))
            self._codes += one.get("masks", ())

    def result(self) -> Scores:
        """Compute the metrics, their intervals, and `details`.

        These are AP of each class, precision at IoU 0.5 over recall, the numbers of objects, detections and left out
        boxes, and the examples' ids.
        """
        truth, found = self._truth(), self._found()
        groups, over = over_groups(group_numbers(self.samples, self.samples.options.group), "pictures")
        boxes = score(truth, found, resampled=True, groups=groups)
        metrics, ends = dict(boxes.metrics), dict(boxes.intervals)
        details: dict[str, Any] = {"class_ap": boxes.categories}
        details["precision"] = _curves(boxes)
        if self.samples.masks:
            masks = score(truth, found, masks=True, resampled=True, groups=groups)
            ends |= {f"mask_{name}": pair for name, pair in masks.intervals.items()}
            metrics |= {f"mask_{name}": value for name, value in masks.metrics.items()}
            details["mask_class_ap"] = masks.categories
        if self.samples.options.format == "voc":
            metrics |= self._voc()
        details["counts"] = {
            "objects": len(truth.objects),
            "detections": len(found),
            "left out boxes": int(self.samples.left_out().sum()),
        }
        shown = np.linspace(0, len(self._rows) - 1, min(EXAMPLES, len(self._rows))).round().astype(int).tolist()
        details["examples"] = [self.samples.id(i) for i in dict.fromkeys(shown)]
        headline = [n for n in ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mAP", "mAP07") if n in metrics]
        notes = mean_over("AP", boxes.categories, "no object in the truth")
        return Scores(metrics, ends, details, samples=len(self._rows), headline=tuple(headline), notes=notes + over)

    def blocks(self, scores: Scores) -> list[Block]:
        """Build the blocks of a report: AP of the classes, precision over recall, and examples."""
        return blocks(scores.details, drawn(self.samples.options))

    def results(self, records: list[Record]) -> dict[str, str]:
        """Return the texts of COCO's `boxes.json` and, with masks, `masks.json`; for VOC, of `comp4_det_val_CLASS.txt`.

        Scores and boxes are unrounded.
        """
        s = self.samples
        if s.options.format == "voc":
            return self._comp4(records)
        number = dict(zip(s.classes, s.index.category_ids.tolist(), strict=True))
        files: dict[str, list[dict[str, Any]]] = {"boxes.json": [], **({"masks.json": []} if s.masks else {})}
        for row, one in zip(s.rows, records, strict=True):
            for i, label in enumerate(one["labels"]):
                head = {"image_id": int(s.index.image_ids[row]), "category_id": number[label]}
                files["boxes.json"].append({**head, "bbox": one["boxes"][i], "score": one["scores"][i]})
                if s.masks:  # without its box, whose area would be taken for the mask's
                    files["masks.json"].append({**head, "segmentation": one["masks"][i], "score": one["scores"][i]})
        return {name: json.dumps(rows) for name, rows in files.items()}

    def _comp4(self, records: list[Record]) -> dict[str, str]:
        lines: dict[str, list[str]] = {name: [] for name in self.samples.classes}
        for row, one in zip(self.samples.rows, records, strict=True):
            picture = self.samples.listed[row]
            for label, score_, (x, y, w, h) in zip(one["labels"], one["scores"], one["boxes"], strict=True):
                lines[label].append(f"{picture} {score_!r} {x + 1!r} {y + 1!r} {x + w!r} {y + h!r}\n")
        return {f"comp4_det_val_{in_file_name(name)}.txt": "".join(found) for name, found in lines.items()}

    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Find the objects that are scored, and the position of each one's picture in the split: two `(M,)` int64."""
        s = self.samples
        spans = [np.arange(own.start, own.stop) for own in map(s.index.objects, s.rows[: len(self._rows)])]
        at = np.concatenate([*spans, np.zeros(0, np.int64)]).astype(np.int64)
        of = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        crowd = s.index.flags[at].astype(bool) & (s.options.format != "voc")
        kept = crowd | ~s.bad[at]
        return at[kept], of[kept]

    def _truth(self) -> Truth:
        s = self.samples
        at, of = self._kept()
        return truth_of(s, at, of, s.rows[: len(self._rows)])

    def _found(self) -> Objects:
        index = self.samples.index
        ids = np.repeat(index.image_ids[self.samples.rows[: len(self._rows)]], self._rows)
        labels = np.concatenate([*self._labels, np.zeros(0, np.int64)])
        return Objects(
            ids, index.category_ids[labels], np.concatenate([*self._boxes, np.zeros((0, 4))]),
            [as_raw(code) for code in self._codes] if self.samples.masks else None,
            scores=np.concatenate([*self._scores, np.zeros(0)]), file="predictions",
        )  # fmt: skip

    def _voc(self) -> dict[str, float | None]:
        """Compute `mAP` and `mAP07`.

        VOC's boxes are counted from 1 and include their last pixel; difficult objects do not count.
        """
        index = self.samples.index
        at, of = self._kept()
        inclusive = np.concatenate([index.boxes[at, :2] + 1, index.boxes[at, :2] + index.boxes[at, 2:]], 1)
        image = np.repeat(np.arange(len(self._rows)), self._rows)
        boxes = np.concatenate([*self._boxes, np.zeros((0, 4))])
        boxes = np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], 1)
        labels, scores = (np.concatenate([*column, np.zeros(0)]) for column in (self._labels, self._scores))
        result = {}
        for name, area in (("mAP", True), ("mAP07", False)):
            classes = {}
            for n, label in enumerate(self.samples.classes):
                own, mine = index.labels[at] == n, labels == n
                truth = VocTruth(of[own], inclusive[own], index.flags[at][own].astype(bool))
                classes[label] = score_class(truth, Detections(image[mine], scores[mine], boxes[mine]), area=area)
            result[name] = mean(classes)
        return result


def record(prediction: BoxPrediction, classes: tuple[str, ...]) -> Record:
    """Convert a prediction to plain data: boxes as x, y, width, height; they and the scores are unrounded."""
    corners = prediction.boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    found: Record = {
        "id": prediction.id,
        "boxes": boxes.tolist(),
        "labels": [classes[n] for n in prediction.labels],
        "numbers": prediction.labels.tolist(),
        "scores": prediction.scores.astype(np.float64).tolist(),
    }
    return found if prediction.codes is None else found | {"masks": prediction.codes}


def _curves(scores: CocoScores) -> dict[str, list[float]]:
    """List the precision at IoU 0.5 at 21 recalls from 0 to 1, by class; classes without an AP are left out."""
    precision = scores.curves.precision[0, ::5, :, 0, -1]
    names = [name for name, value in scores.categories.items() if value is not None]
    place = {name: k for k, name in enumerate(scores.categories)}
    return {name: precision[:, place[name]].tolist() for name in names}
