"""Intervals of average precision: the bootstrap over images, from matches that are found once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..intervals import bootstrap

RECALLS = np.linspace(0.0, 1.0, 101)
WORK = 4e8  # weighted detections that all resamples together may look at
MOST, FEWEST = 300, 40  # resamples


@dataclass
class Matches:
    """One category: detections by falling score, in COCO's order of ties.

    `image` `(D,)` is each detection's position in the split; `hit` and `ignored` `(10, D)` say at each threshold
    whether it matched, and whether it is not counted; `objects` `(N,)` is the number of counted objects in each image.
    """

    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def gathered(cells: Iterable[Any], image_ids: np.ndarray) -> list[Matches]:
    """Gather COCO's cells (an image and category each, all areas, None if empty) into matches, by category id."""
    place = {int(i): n for n, i in enumerate(image_ids)}
    found: dict[int, list[Any]] = {}
    for cell in cells:
        if cell is not None:
            found.setdefault(int(cell["category_id"]), []).append(cell)
    result = []
    for category in sorted(found):
        own = sorted(found[category], key=lambda cell: int(cell["image_id"]))
        counts = [len(cell["dtScores"]) for cell in own]
        scores = np.concatenate([np.asarray(cell["dtScores"], np.float64) for cell in own])
        order = np.argsort(-scores, kind="mergesort")
        objects = np.zeros(len(image_ids))
        for cell in own:
            objects[place[int(cell["image_id"])]] = np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
        hit = np.concatenate([_table(cell["dtMatches"], n) for cell, n in zip(own, counts, strict=True)], 1) > 0
        ignored = np.concatenate([_table(cell["dtIgnore"], n) for cell, n in zip(own, counts, strict=True)], 1) > 0
        image = np.repeat([place[int(cell["image_id"])] for cell in own], counts)
        result.append(Matches(image[order], hit[:, order], ignored[:, order], objects))
    return result


def _table(rows: Any, columns: int) -> np.ndarray:
    return np.asarray(rows, np.float64).reshape(10, columns)


def average_precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Compute AP `(R, 10)` at each threshold if image i counts `weights[r, i]` times; NaN where no object counts."""
    objects = weights @ matches.objects
    found = np.full((len(weights), 10), np.nan)
    own = weights[:, matches.image]
    for t in range(10):
        counted = ~matches.ignored[t]
        w = own[:, counted]
        hit = matches.hit[t][counted]
        hits, all_ = np.cumsum(w * hit, 1), np.cumsum(w, 1)
        precision = hits / np.maximum(all_, np.finfo(np.float64).eps)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        for r in np.flatnonzero(objects > 0):
            at = np.searchsorted(hits[r] / objects[r], RECALLS, side="left")
            reached = at < hits.shape[1]
            found[r, t] = precision[r, at[reached]].sum() / len(RECALLS) if reached.any() else 0.0
    return found


def intervals(matches: list[Matches], images: int, groups: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
    """Compute 95 % intervals of `AP` and `AP50`, over images or `groups` of them; empty where there is nothing to resample."""
    matches = [m for m in matches if m.objects.sum()]
    detections = sum(len(m.image) for m in matches)
    if not matches or images < 2:
        return {}

    def statistics(weights: np.ndarray) -> np.ndarray:
        each = np.stack([average_precision(m, weights) for m in matches])
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(each)
            mean = np.where(known, each, 0).sum(0) / np.maximum(known.sum(0), 1)
        mean = np.where(known.any(0), mean, np.nan)
        return np.stack([mean.mean(1), mean[:, 0]], 1)

    count = int(np.clip(WORK / max(1, 10 * detections), FEWEST, MOST))
    low, high = bootstrap(statistics, images, count, groups=groups)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(("AP", "AP50")) if not np.isnan(low[i])}
