"""How good an action recogniser is: by videos, whose views are averaged, and by the single views."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trunkline.ground.errors import DataError

from ...heads.contract import Batch, Prediction
from ..classification.evaluator import ClassificationEvaluator
from ..contract import Record, Scores
from ..data.remarks import Remarks
from ..intervals import bootstrap, over_groups
from ..scores import Block, Examples, Metric, share
from .views import VideoPrediction

_NAMES = {"top1": "video_top1", "top5": "video_top5"}
_TITLES = {
    "video_top1": share("Top-1 accuracy, videos"),
    "video_top5": share("Top-5 accuracy, videos"),
    "clip_top1": share("Top-1 accuracy, single views"),
    "clip_top5": share("Top-5 accuracy, single views"),
}


class ActionEvaluator:
    """Streams records of videos into a few numbers each. What people should know of their files joins the notes.

    video_top1, video_top5  share of videos whose true class is the likeliest, or among the five likeliest, by the mean of the
                            probabilities of its views
    clip_top1, clip_top5    the same share of single views; equal to the above where a video has one
    the others              as a classifier's (`ClassificationEvaluator`), by videos

    A video counts once: a record of an id that is there already is dropped and counted. Intervals are over videos, or over
    groups of them where there are groups. top5 is left out with five classes or fewer.

    classes    their names
    views      how many each video must have
    groups     the group of each video, numbers from 0, in the data set's order
    """

    def __init__(self, classes: Sequence[str], views: int = 1, groups: np.ndarray | None = None):
        self.videos = ClassificationEvaluator(classes, groups=groups)
        self.classes, self.views = tuple(classes), views
        self._seen: set[str] = set()
        self._hits: list[tuple[int, int, int]] = []
        self._repeated = 0
        self._remarks = Remarks("clip")

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics for these classes."""
        found = dict(self.videos.metrics)
        named = {_NAMES.get(name, name): _TITLES.get(_NAMES.get(name, name), metric) for name, metric in found.items()}
        return named | {name: _TITLES[name] for name in self._of_views()}

    def _of_views(self) -> list[str]:
        return ["clip_top1", "clip_top5"] if len(self.classes) > 5 else ["clip_top1"]

    def measure(self, batch: Batch, predictions: list[Prediction]) -> list[Record]:
        """Build one record a video: a classifier's, with `views`, and of these `clip_hits` and `clip_hits5`, the right ones."""
        records = self.videos.measure(batch, predictions)
        for record, prediction in zip(records, predictions, strict=True):
            assert isinstance(prediction, VideoPrediction)
            best = np.argsort(-prediction.views, axis=1, kind="stable")[:, :5]
            right = best == record["label"]
            record["views"] = len(best)
            if said := batch.remarks.get(record["id"]):
                record["remarks"] = list(said)
            record["clip_hits"], record["clip_hits5"] = int(right[:, 0].sum()), int(right.any(1).sum())
        return records

    def add(self, records: list[Record]) -> None:
        """Add videos, each once. Raises DataError for one with other than the number of views that all must have."""
        fresh = []
        for record in records:
            if record["id"] in self._seen:
                self._repeated += 1
                continue
            if record["views"] != self.views:
                raise DataError(
                    f"{record['id']}: {record['views']} views, and each video has {self.views}: some are missing"
                )
            self._seen.add(record["id"])
            self._remarks.add(record["id"], record.get("remarks", ()))
            self._hits.append((record["views"], record["clip_hits"], record["clip_hits5"]))
            fresh.append(record)
        self.videos.add(fresh)

    def results(self, records: list[Record]) -> dict[str, str]:
        """Return the text of `results.csv`: the id and the likeliest class of each video."""
        return self.videos.results(records)

    def result(self) -> Scores:
        """Compute the scores of the videos added. Raises DataError where there are none."""
        scores = self.videos.result()
        table = np.array(self._hits, np.float64)
        views, names = table[:, 0], self._of_views()

        def shares(weights: np.ndarray) -> np.ndarray:
            total = weights @ views
            return np.stack([weights @ table[:, column] / total for column in range(1, 1 + len(names))], 1)

        own = shares(np.ones((1, len(table))))[0]
        own_groups = self.videos.groups
        known = None if own_groups is None else np.unique(own_groups[: len(table)], return_inverse=True)[1]
        groups, _ = over_groups(known)
        low, high = bootstrap(shares, len(table), groups=groups)
        metrics = {_NAMES.get(name, name): value for name, value in scores.metrics.items()}
        ends = {_NAMES.get(name, name): value for name, value in scores.intervals.items()}
        for i, name in enumerate(names):
            metrics[name], ends[name] = float(own[i]), (float(low[i]), float(high[i]))
            if self.views == 1:  # the same number, so the same interval (Wilson's at 0 and 1)
                ends[name] = ends[name.replace("clip", "video")]
        said = f"{self.views} view{'s' if self.views > 1 else ''} a video; clip_top1 is over single views"
        notes = (*scores.notes, said) if self.views > 1 else scores.notes
        notes = (*notes, *self._remarks.lines())
        if self._repeated:
            notes = (*notes, f"{self._repeated} records of videos that were there already are not counted again")
        return Scores(metrics, ends, scores.details, scores.samples, ("video_top1", "clip_top1"), notes)

    def blocks(self, scores: Scores) -> list[Block]:
        """Build the blocks of a report: confusion, calibration, the classes, and the surest mistakes as strips of frames."""
        return [_as_strips(block) if isinstance(block, Examples) else block for block in self.videos.blocks(scores)]


def _as_strips(block: Examples) -> Examples:
    """Leave the pictures to the task, which draws strips of frames: a clip's file is no picture that a page can show."""
    return replace(block, pictures=tuple(replace(picture, source="") for picture in block.pictures), size="pair")
