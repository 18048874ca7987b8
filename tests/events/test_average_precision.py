"""Average precision of events equals plain statements of ActivityNet's and of THUMOS' definitions."""

import time

import numpy as np
import pytest

from trunkline.heads.video.segments import overlaps
from trunkline.tasks.events.average_precision import (
    RECALLS,
    Segments,
    average_precision,
    interval,
    match,
    matched,
    mean_of,
)

THRESHOLDS = (0.3, 0.5, 0.7, 0.95)


def iou(a, b):
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - both
    return both / union if union > 0 else 0.0


def activitynet(truth, found, threshold):
    """Evaluation/eval_detection.py in words: truth and found are lists of (video, start, end[, score])."""
    order = sorted(range(len(found)), key=lambda i: (found[i][3], i), reverse=True)
    taken, hits = set(), []
    for i in order:
        own = [(iou(found[i][1:3], t[1:3]), j) for j, t in enumerate(truth) if t[0] == found[i][0]]
        free = [(value, j) for value, j in sorted(own, reverse=True) if value >= threshold and j not in taken]
        hits.append(bool(free))
        taken |= {free[0][1]} if free else set()
    precision, recall, right = [], [], 0
    for n, hit in enumerate(hits, 1):
        right += hit
        precision.append(right / n)
        recall.append(right / len(truth))
    area, before = 0.0, 0.0
    for n, value in enumerate(recall):
        area += (value - before) * max(precision[n:])
        before = value
    return area


def thumos(truth, found, ambiguous, threshold):
    """TH14eventdetpr.m in words: the same lists; ambiguous are (video, start, end)."""
    right, false = [], []
    for video in sorted({f[0] for f in found}):
        mine = sorted((f for f in found if f[0] == video), key=lambda f: -f[3])  # a stable sort
        free = [True] * len(mine)
        for t in (t for t in truth if t[0] == video):
            values = [iou(t[1:3], f[1:3]) if free[n] else -1.0 for n, f in enumerate(mine)]
            best = max(range(len(mine)), key=lambda n: (values[n], -n))
            if values[best] > threshold:
                free[best] = False
        for n, f in enumerate(mine):
            if not free[n]:
                right.append(f[3])
            elif not any(iou(a[1:], f[1:3]) > 0 for a in ambiguous if a[0] == video):
                false.append(f[3])
    marked = sorted([(-s, 0) for s in right] + [(-s, 1) for s in false])  # hits first among equal scores
    precision, recall, hits = [], [], 0
    for n, (_, wrong) in enumerate(marked, 1):
        hits += not wrong
        precision.append(hits / n)
        recall.append(hits / len(truth))
    points = [max([p for p, r in zip(precision, recall, strict=True) if r >= t], default=0.0) for t in RECALLS]
    return sum(points) / 11


def made(seed, videos=6, events=25, results=120, whole=False):
    """Random events and results near them and elsewhere, with equal scores and, on whole seconds, equal overlaps."""
    draw = np.random.Generator(np.random.PCG64(seed))
    truth = []
    for _ in range(events):
        start = draw.uniform(0, 80)
        truth.append((int(draw.integers(videos)), start, start + draw.uniform(1, 20)))
    found = []
    for _ in range(results):
        near = truth[int(draw.integers(events))]
        start, end = sorted(np.array(near[1:]) + draw.normal(0, 3, 2))
        video = near[0] if draw.random() < 0.8 else int(draw.integers(videos))
        found.append((video, start, max(end, start + 0.1), float(draw.integers(1, 20)) / 20))
    ambiguous = [(int(draw.integers(videos)), a, a + 8) for a in draw.uniform(0, 90, 4)]
    if whole:
        truth = [(v, round(s), round(s) + max(1, round(e - s))) for v, s, e in truth]
        found = [(v, round(s), round(s) + max(1, round(e - s)), score) for v, s, e, score in found]
    return truth, found, ambiguous


def segments(rows, label=0):
    return Segments.gathered([(r[0], label, r[1], r[2], r[3] if len(r) > 3 else 0.0) for r in rows])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_activitynets_definition(seed, whole):
    truth, found, _ = made(seed, whole=whole)
    got = average_precision(match(segments(truth), segments(found), 6, THRESHOLDS, "activitynet"), "activitynet")[0]
    assert got == pytest.approx([activitynet(truth, found, t) for t in THRESHOLDS], abs=1e-9)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_thumos_kits_definition(seed, whole):
    truth, found, ambiguous = made(seed, whole=whole)
    got = match(segments(truth), segments(found), 6, THRESHOLDS, "thumos", segments(ambiguous))
    expected = [thumos(truth, found, ambiguous, t) for t in THRESHOLDS]
    assert average_precision(got, "thumos")[0] == pytest.approx(expected, abs=1e-9)


def test_the_protocols_differ_where_they_say_so():
    half = segments([(0, 0.0, 10.0)]), segments([(0, 0.0, 5.0, 0.9)])  # an overlap of exactly the threshold
    assert average_precision(match(*half, 1, (0.5,), "activitynet"), "activitynet")[0, 0] == 1.0
    assert average_precision(match(*half, 1, (0.5,), "thumos"), "thumos")[0, 0] == 0.0
    wrong = segments([(0, 0.0, 10.0, 0.8), (0, 50.0, 60.0, 0.9)])
    truth, nobody_knows = segments([(0, 0.0, 10.0)]), segments([(0, 55.0, 70.0)])
    assert average_precision(match(truth, wrong, 1, (0.5,), "thumos"), "thumos")[0, 0] == 0.5
    assert average_precision(match(truth, wrong, 1, (0.5,), "thumos", nobody_knows), "thumos")[0, 0] == 1.0


def test_classes_without_events_are_no_part_of_the_mean():
    truth, found, _ = made(3)
    nothing = segments([], 1)
    every = matched(segments(truth), segments(found), 6, 2, THRESHOLDS, "activitynet")
    assert np.isnan(average_precision(every[1], "activitynet")).all() and not len(nothing)
    assert mean_of(every, "activitynet")[0] == pytest.approx(average_precision(every[0], "activitynet")[0])
    only = matched(segments([]), segments(found), 6, 1, THRESHOLDS, "thumos")
    assert np.isnan(mean_of(only, "thumos")).all() and interval(only, "thumos", 6) is None
    none = matched(segments(truth), segments([]), 6, 1, THRESHOLDS, "thumos")
    assert (mean_of(none, "thumos") == 0).all()


@pytest.mark.parametrize("protocol", ["activitynet", "thumos"])
def test_a_video_that_is_drawn_twice_counts_as_two(protocol):
    truth, found, ambiguous = made(5)
    found = [(*row[:3], row[3] + n / 1e4) for n, row in enumerate(found)]  # none are equal
    weights = np.array([[1.0, 2, 0, 1, 1, 3]])
    got = average_precision(
        match(segments(truth), segments(found), 6, THRESHOLDS, protocol, segments(ambiguous)), protocol, weights
    )
    copies = [(v, n) for v in range(6) for n in range(int(weights[0, v]))]
    number = {pair: i for i, pair in enumerate(copies)}

    def copied(rows):
        return segments([(number[pair], *row[1:]) for pair in copies for row in rows if row[0] == pair[0]])

    again = match(copied(truth), copied(found), len(copies), THRESHOLDS, protocol, copied(ambiguous))
    assert got[0] == pytest.approx(average_precision(again, protocol)[0])


def test_overlaps_are_those_of_a_plain_loop():
    draw = np.random.Generator(np.random.PCG64(0))
    a, b = (np.sort(draw.uniform(0, 10, (n, 2)), 1) for n in (7, 5))
    assert overlaps(a, b) == pytest.approx(np.array([[iou(x, y) for y in b] for x in a]))
    assert overlaps(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0]]))[0, 0] == 0.0


def test_ten_thousand_events_are_scored_in_seconds():
    truth, found, ambiguous = made(0, videos=200, events=2000, results=10_000)
    label = np.random.Generator(np.random.PCG64(1)).integers(0, 20, 10_000)
    true, every = segments(truth), segments(found)
    true = Segments(true.video, label[:2000], true.times, true.score)
    every = Segments(every.video, label, every.times, every.score)
    for protocol in ("activitynet", "thumos"):
        start = time.process_time()
        scored = matched(true, every, 200, 20, np.linspace(0.5, 0.95, 10), protocol, segments(ambiguous))
        mean_of(scored, protocol)
        interval(scored, protocol, 200)
        assert time.process_time() - start < 5
