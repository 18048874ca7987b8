"""The scores of events found in videos, by a protocol: of a run's evaluator, and of anybody's results file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..scores import Metric, share
from .annotations import Video
from .average_precision import (
    THRESHOLDS,
    Matches,
    Protocol,
    Segments,
    average_precision,
    interval,
    matched,
    mean_of,
)

MAP = "mAP"


@dataclass(frozen=True)
class Scoring:
    """`metrics` and their `intervals` by name; of each class AP over the overlaps (None: no event), events, and its matches."""

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    class_ap: dict[str, float | None]
    class_events: dict[str, int]
    matches: list[Matches]


def overlaps_of(protocol: Protocol, overlaps: Sequence[float]) -> tuple[float, ...]:
    """Return the overlaps over which the mean is: those that are asked for, else the protocol's own."""
    return tuple(overlaps) or THRESHOLDS[protocol]


def middle_of(overlaps: Sequence[float]) -> float:
    """Return the overlap that is shown where one is: 0.5, or the first."""
    return 0.5 if 0.5 in overlaps else overlaps[0]


def at(overlap: float) -> str:
    """Name the metric at one overlap."""
    return f"{MAP}@{overlap:g}"


def metrics_of(overlaps: Sequence[float]) -> dict[str, Metric]:
    """Say what people are told of each metric."""
    each = {
        at(overlap): replace(share(f"mAP at overlap {overlap:g}"), chart=overlap == middle_of(overlaps))
        for overlap in overlaps
    }
    return {MAP: share(f"mAP over overlaps {overlaps[0]:g} to {overlaps[-1]:g}"), **each}


def truth_of(videos: Sequence[Video], classes: Sequence[str]) -> tuple[Segments, Segments]:
    """Number the true events of videos by their positions, and their ambiguous parts."""
    number, events, parts = {name: n for n, name in enumerate(classes)}, [], []
    for n, video in enumerate(videos):
        events += [(n, number[e.label], e.start, e.end, 0.0) for e in video.events]
        parts += [(n, 0, start, end, 0.0) for start, end in video.ambiguous]
    return Segments.gathered(events), Segments.gathered(parts)


def score(
    truth: Segments,
    found: Segments,
    ambiguous: Segments,
    videos: int,
    classes: Sequence[str],
    overlaps: Sequence[float],
    protocol: Protocol,
    groups: np.ndarray | None = None,
) -> Scoring:
    """Compute mAP over all overlaps and at each, with intervals over videos, or over `groups` of them."""
    every = matched(truth, found, videos, len(classes), overlaps, protocol, ambiguous)
    each = mean_of(every, protocol)[0]
    known = not np.isnan(each).any()
    metrics: dict[str, float | None] = {MAP: float(each.mean()) if known else None}
    metrics |= {at(o): float(value) if known else None for o, value in zip(overlaps, each, strict=True)}
    ends = interval(every, protocol, videos, groups)
    intervals = {} if ends is None else dict(zip(metrics, map(tuple, ends.T.tolist()), strict=True))
    tables = [average_precision(one, protocol)[0] for one in every]
    by_class = {
        name: None if np.isnan(row).any() else float(row.mean()) for name, row in zip(classes, tables, strict=True)
    }
    counts = {name: int(one.events.sum()) for name, one in zip(classes, every, strict=True)}
    return Scoring(metrics, intervals, by_class, counts, every)


def said(protocol: Protocol, overlaps: Sequence[float]) -> str:
    """Say by which protocol something was scored."""
    return f"{protocol}'s protocol, overlaps {', '.join(f'{o:g}' for o in overlaps)}"
