"""Average precision of events in time, as ActivityNet's code and as THUMOS' kit define it, and its intervals over videos.

Numbers alone: videos and classes are positions, times are seconds. ActivityNet: Evaluation/eval_detection.py of its repository
(Caba Heilbron et al. 2015). THUMOS: TH14evaldet.m and TH14eventdetpr.m of the evaluation kit of Jiang et al. 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...heads.video.segments import overlaps
from ..intervals import bootstrap

Protocol = Literal["activitynet", "thumos"]
THRESHOLDS: dict[str, tuple[float, ...]] = {
    "activitynet": tuple(np.linspace(0.5, 0.95, 10).tolist()),
    "thumos": (0.1, 0.2, 0.3, 0.4, 0.5),
}
"""The overlaps over which each protocol's mean is, unless others are asked for."""
RECALLS = np.array([i * 0.1 for i in range(6)] + [1 - (10 - i) * 0.1 for i in range(6, 11)])
"""0, 0.1, … 1 as MATLAB's colon makes them, from both ends: the last bit decides whether a recall reaches a point."""
WORK = 2e8  # weighted detections that all resamples together may look at
MOST, FEWEST = 300, 40  # resamples
_BLOCK = 2_000_000  # numbers in memory at once


@dataclass(frozen=True)
class Segments:
    """Events by columns, one row each: `video` and `label` `(n,)` int64, `times` `(n, 2)` float64, `score` `(n,)` float64."""

    video: np.ndarray
    label: np.ndarray
    times: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def of(self, rows: np.ndarray) -> "Segments":
        """Select rows, in this order."""
        return Segments(self.video[rows], self.label[rows], self.times[rows], self.score[rows])

    @classmethod
    def gathered(cls, rows: Sequence[tuple[int, int, float, float, float]]) -> "Segments":
        """Make columns of rows (video, label, start, end, score)."""
        columns = np.array(rows, np.float64).reshape(-1, 5)
        video, label = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
        return cls(video, label, np.ascontiguousarray(columns[:, 2:4]), columns[:, 4].copy())


@dataclass(frozen=True)
class Matches:
    """What became of one class's detections, at each of T overlaps by falling score.

    `video` `(T, D)` is each one's video, `hit` `(T, D)` whether it found an event, `counted` `(T, D)` whether it counts;
    `events` `(V,)` are the true ones of each video.
    """

    video: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    events: np.ndarray


def match(
    truth: Segments, found: Segments, videos: int, thresholds: Sequence[float], protocol: Protocol,
    ambiguous: Segments | None = None,
) -> Matches:  # fmt: skip
    """Match one class's detections to its events; `truth` and `found` are of that class alone.

    activitynet  by falling score, each detection takes the event that it overlaps most, of those that are free and that it
                 overlaps by the threshold at least; of equal scores, and of equal overlaps, the later one is first
    thumos       within a video each event in turn takes the free detection that overlaps it most, if by more than the
                 threshold; detections that overlap an `ambiguous` segment and found nothing do not count; of equal scores
                 hits are first, then the earlier video (by position), then the earlier row
    """
    events = np.bincount(truth.video, minlength=videos).astype(np.float64)
    if protocol == "thumos":
        return _thumos(truth, found, thresholds, ambiguous, events)
    order = np.argsort(found.score, kind="stable")[::-1]
    found = found.of(order)
    limits, hit = np.asarray(thresholds, np.float64), np.zeros((len(thresholds), len(found)), bool)
    rows = np.arange(len(limits))
    for video in np.unique(found.video):
        own = truth.of(np.flatnonzero(truth.video == video))
        if not len(own):
            continue
        mine = np.flatnonzero(found.video == video)
        table = overlaps(found.times[mine], own.times)
        free = np.ones((len(limits), len(own)), bool)
        for row, one in zip(table, mine, strict=True):
            nearest = np.argsort(row, kind="stable")[::-1]
            fits = (row[nearest] >= limits[:, None]) & free[:, nearest]
            first = fits.argmax(1)
            hit[:, one] = fits[rows, first]
            free[rows[hit[:, one]], nearest[first[hit[:, one]]]] = False
    video = np.repeat(found.video[None], len(limits), 0)
    return Matches(video, hit, np.ones_like(hit), events)


def _thumos(
    truth: Segments, found: Segments, thresholds: Sequence[float], ambiguous: Segments | None, events: np.ndarray
) -> Matches:
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for video in np.unique(found.video):
        mine = found.of(np.flatnonzero(found.video == video))
        mine = mine.of(np.argsort(-mine.score, kind="stable"))
        own = truth.of(np.flatnonzero(truth.video == video))
        free = np.ones((len(thresholds), len(mine)), bool)
        for row in overlaps(own.times, mine.times):
            for t, limit in enumerate(thresholds):
                best = np.where(free[t], row, -1.0).argmax()
                if free[t, best] and row[best] > limit:
                    free[t, best] = False
        idle = np.zeros(len(mine), bool)
        if ambiguous is not None and len(other := np.flatnonzero(ambiguous.video == video)):
            idle = overlaps(ambiguous.times[other], mine.times).sum(0) > 0
        parts.append((mine.video, mine.score, ~free, ~free | ~idle))
    if not parts:
        nothing = np.zeros((len(thresholds), 0))
        return Matches(nothing.astype(np.int64), nothing > 0, nothing > 0, events)
    video, score = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    hit, counted = (np.concatenate([part[i] for part in parts], 1) for i in (2, 3))
    order = np.stack([np.lexsort((~row, -score)) for row in hit])
    take = np.take_along_axis
    return Matches(video[order], take(hit, order, 1), take(counted, order, 1), events)


def average_precision(matches: Matches, protocol: Protocol, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute AP `(R, T)` if video i counts `weights[r, i]` times (by default each once); NaN where no event counts.

    activitynet: the area below the precision that is reached at each recall or beyond. thumos: its mean at the 11 RECALLS.
    """
    weights = np.ones((1, len(matches.events))) if weights is None else weights
    events, (count, found) = weights @ matches.events, matches.hit.shape
    result = np.full((len(weights), count), np.nan)
    result[events > 0] = 0.0
    if not found:
        return result
    known, rows = np.flatnonzero(events > 0), max(1, _BLOCK // (count * found * (11 if protocol == "thumos" else 1)))
    for first in range(0, len(known), rows):
        own = known[first : first + rows]
        result[own] = _weighted(matches, protocol, weights[own], events[own])
    return result


def _weighted(matches: Matches, protocol: Protocol, weights: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Compute AP `(R, T)` where each row of weights counts some events."""
    own = weights[:, matches.video] * matches.counted  # (R, T, D)
    right = own * matches.hit
    hits, every = np.cumsum(right, 2), np.cumsum(own, 2)
    precision = np.divide(hits, every, out=np.zeros_like(hits), where=every > 0)
    precision = np.maximum.accumulate(precision[..., ::-1], 2)[..., ::-1]
    if protocol == "activitynet":
        return (right * precision).sum(2) / events[:, None]
    recall = hits / events[:, None, None]
    at = (recall[..., None] < RECALLS).sum(2)  # (R, T, 11): the first that reaches each point
    return np.take_along_axis(np.pad(precision, ((0, 0), (0, 0), (0, 1))), at, 2).mean(2)


def matched(
    truth: Segments, found: Segments, videos: int, classes: int, thresholds: Sequence[float], protocol: Protocol,
    ambiguous: Segments | None = None,
) -> list[Matches]:  # fmt: skip
    """Match the detections of each class, by its position."""
    return [
        match(
            truth.of(np.flatnonzero(truth.label == label)), found.of(np.flatnonzero(found.label == label)), videos,
            thresholds, protocol, ambiguous,
        )
        for label in range(classes)
    ]  # fmt: skip


def mean_of(classes: Sequence[Matches], protocol: Protocol, weights: np.ndarray | None = None) -> np.ndarray:
    """Compute mAP `(R, T)`: the mean over the classes that have events; NaN where none has."""
    each = np.stack([average_precision(one, protocol, weights) for one in classes])
    known = ~np.isnan(each)
    total = np.where(known, each, 0.0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(total.shape, np.nan), where=known.any(0))


def interval(
    classes: Sequence[Matches], protocol: Protocol, videos: int, groups: np.ndarray | None = None
) -> np.ndarray | None:
    """Compute 95 % intervals `(2, 1 + T)` of the mean over all overlaps and of mAP at each, over videos or groups of them.

    As wide as the bootstrap's, about the value itself: resamples lose false detections of rare classes more often than their
    events, so that their mean is too high. None where there is nothing to draw from.
    """
    there = [one for one in classes if one.events.sum()]
    if not there or videos < 2:
        return None

    def statistics(weights: np.ndarray) -> np.ndarray:
        each = mean_of(there, protocol, weights)
        return np.concatenate([each.mean(1, keepdims=True), each], 1)

    looked_at = sum(one.hit.size for one in there) * (12 if protocol == "thumos" else 1)
    ends = bootstrap(statistics, videos, int(np.clip(WORK / max(1, looked_at), FEWEST, MOST)), groups=groups)
    value, half = statistics(np.ones((1, videos)))[0], (ends[1] - ends[0]) / 2
    return np.stack([(value - half).clip(0), (value + half).clip(None, 1)])
