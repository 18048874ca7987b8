"""How good several labels a picture are: average precision by class, F1 at a threshold, pictures with every label right."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ...heads.contract import Batch, Prediction
from ...heads.multilabel import MultiLabelPrediction
from ..classification.evaluator import checked
from ..contract import Record, Scores
from ..intervals import bootstrap, over_groups, wilson
from ..objects.intervals import FEWEST, MOST, WORK
from ..scores import Block, mean_over
from .average_precision import Ranking
from .shown import METRICS, blocks

MISTAKES = 24
_ABSENT = "in no picture"


class MultiLabelEvaluator:
    """Streams records into a probability and a label a pair of picture and class, and the surest mistakes.

    Metrics, over the pairs that are known. A class is taken as there from `threshold` on:

    mAP          mean over the classes that are in some picture of their average precision (`average_precision.Ranking`)
    micro_f1     2 TP / (2 TP + FP + FN) of the pairs of all classes together
    macro_f1     mean over the classes that are in some picture of the same of each
    exact_match  share of pictures whose known labels are all right; pictures of which nothing is known are left out

    Intervals are 95 % percentile bootstraps over pictures with a fixed seed, of 300 resamples, or fewer (at least 40) where
    there are many pairs; an `exact_match` of 0 or 1 has Wilson's. With `groups` `(N,)`, a number from 0 for each sample of the
    split, whole groups are drawn; records must come in the split's order.
    """

    metrics = METRICS

    def __init__(self, classes: Sequence[str], threshold: float = 0.5, groups: np.ndarray | None = None):
        self.classes, self.threshold, self.groups = tuple(classes), threshold, groups
        self._scores, self._truth = array("f"), array("b")
        self._mistakes: list[Record] = []

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Build one record a sample: `id`, the names of the classes that are `present`, `unknown` and `predicted`, and all
        `probabilities`.

        Raises DataError naming a sample without labels, or with probabilities that are not finite or not one a class.
        """
        if "labels" not in batch.targets:
            raise DataError(f"{batch.ids[0]}: has no labels, so that it can be predicted but not scored")
        truth = batch.targets["labels"].cpu().numpy()
        records: list[Record] = []
        for one, labels in zip(predictions, truth, strict=True):
            assert isinstance(one, MultiLabelPrediction)
            p = checked(one.id, one.probabilities, len(self.classes))
            records.append({
                "id": one.id,
                "present": self._named(labels == 1),
                "unknown": self._named(labels < 0),
                "predicted": self._named(p >= self.threshold),
                "probabilities": [float(value) for value in p],
            })  # fmt: skip
        return records

    def _named(self, which: np.ndarray) -> list[str]:
        return [self.classes[n] for n in np.flatnonzero(which)]

    def add(self, records: list[Record]) -> None:
        """Add the records of the next samples, in the data's order."""
        number = {name: n for n, name in enumerate(self.classes)}
        for record in records:
            labels = np.zeros(len(self.classes), np.int8)
            labels[[number[name] for name in record["present"]]] = 1
            labels[[number[name] for name in record["unknown"]]] = -1
            p = np.array(record["probabilities"], np.float32)
            self._scores.frombytes(p.tobytes())
            self._truth.frombytes(labels.tobytes())
            wrong = np.where((labels >= 0) & ((p >= self.threshold) != (labels == 1)), np.abs(labels - p), -1.0)
            if len(wrong) and wrong[worst := int(wrong.argmax())] >= 0:
                mistake = {"id": record["id"], "class": self.classes[worst], "there": bool(labels[worst] == 1)}
                self._mistakes.append(mistake | {"probability": float(p[worst]), "by": float(wrong[worst])})
        self._mistakes = sorted(self._mistakes, key=lambda m: (-m["by"], m["id"]))[:MISTAKES]

    def result(self) -> Scores:
        """Compute the scores of the records added. Raises DataError where there are none."""
        shape = (-1, max(1, len(self.classes)))
        p = np.frombuffer(self._scores, np.float32).reshape(shape)
        truth = np.frombuffer(self._truth, np.int8).reshape(shape)
        if not len(p):
            raise DataError("there is no sample to score: the split is empty")
        names, statistics = _statistics(p, truth, self.threshold)
        groups, drawn = over_groups(None if self.groups is None else self.groups[: len(p)], "pictures")
        point = dict(zip(names, statistics(np.ones((1, len(p))))[0].tolist(), strict=True))
        metrics = {name: None if np.isnan(value) else value for name, value in point.items()}
        details = self._details(p, truth)
        aps = {own["name"]: own["AP"] for own in details["per_class"]}
        notes = mean_over("mAP and macro_f1", aps, _ABSENT) + _unknown(truth) + drawn
        ends = self._intervals(names, statistics, metrics, truth, groups)
        return Scores(metrics, ends, details, len(p), ("mAP", "micro_f1"), notes)

    def blocks(self, scores: Scores) -> list[Block]:
        """Build the blocks of a report: a table of the classes, and the surest mistakes."""
        return blocks(scores.details)

    def _intervals(
        self, names: Sequence[str], statistics: Callable[[np.ndarray], np.ndarray], metrics: dict[str, float | None],
        truth: np.ndarray, groups: np.ndarray | None,
    ) -> dict[str, tuple[float, float]]:  # fmt: skip
        """Compute the intervals of the metrics that are there; none of fewer than two pictures."""
        if len(truth) < 2:
            return {}
        count = int(np.clip(WORK / (10 * truth.size), FEWEST, MOST))
        low, high = bootstrap(statistics, len(truth), count, groups=groups)
        found = {
            name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)
            if metrics[name] is not None and not np.isnan(a)
        }  # fmt: skip
        if (exact := metrics["exact_match"]) in (0.0, 1.0):
            known = (truth >= 0).any(1)
            drawn = int(known.sum()) if groups is None else len(np.unique(groups[known]))
            ends = wilson(np.array(exact * drawn), np.array(drawn))
            found["exact_match"] = (float(ends[0]), float(ends[1]))
        return found

    def _details(self, p: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        one = np.ones((1, len(p)))
        per_class = []
        for n, name in enumerate(self.classes):
            there, known, said = truth[:, n] == 1, truth[:, n] >= 0, p[:, n] >= self.threshold
            hits, found, objects = int((said & there).sum()), int((said & known).sum()), int(there.sum())
            ap = float(Ranking(p[:, n], truth[:, n]).average_precision(one)[0])
            per_class.append({
                "name": name,
                "pictures": objects,
                "unknown": int((~known).sum()),
                "AP": ap if objects else None,
                "precision": hits / found if found else None,
                "recall": hits / objects if objects else None,
                "F1": 2 * hits / (found + objects) if objects else None,
            })  # fmt: skip
        return {"per_class": per_class, "threshold": self.threshold, "mistakes": self._mistakes}


def _unknown(truth: np.ndarray) -> tuple[str, ...]:
    """Say how many labels are unknown, in a line; none where all are known."""
    count = int((truth < 0).sum())
    return (f"{count:,} of {truth.size:,} labels are unknown and count in no score",) if count else ()


def _statistics(
    p: np.ndarray, truth: np.ndarray, threshold: float
) -> tuple[list[str], Callable[[np.ndarray], np.ndarray]]:
    """Return the metrics' names, and a function from the pictures' weights `(R, N)` to the metrics' values `(R, 4)`."""
    known, there, said = truth >= 0, truth == 1, p >= threshold
    hits, found = (there & said).astype(np.float64), (said & known).astype(np.float64)
    objects, any_known = there.astype(np.float64), known.any(1).astype(np.float64)
    right = ((said == there) | ~known).all(1) * any_known
    rankings = [Ranking(p[:, n], truth[:, n]) for n in range(p.shape[1])]

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    def mean(each: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return share(np.where(counts, each, 0.0).sum(1), counts.sum(1).astype(np.float64))

    def statistics(weights: np.ndarray) -> np.ndarray:
        tp, positive, wanted = weights @ hits, weights @ found, weights @ objects
        aps = np.stack([ranking.average_precision(weights) for ranking in rankings], 1)
        return np.stack([
            mean(aps, wanted > 0),
            share(2 * tp.sum(1), (positive + wanted).sum(1)),
            mean(share(2 * tp, positive + wanted), wanted > 0),
            share(weights @ right, weights @ any_known),
        ], 1)  # fmt: skip

    return ["mAP", "micro_f1", "macro_f1", "exact_match"], statistics
