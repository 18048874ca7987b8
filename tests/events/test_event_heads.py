"""Heads of events: what they learn from, that padding and parts change nothing, and how events are chosen."""

import numpy as np
import pytest
import torch

from trunkline.heads.contract import Batch
from trunkline.heads.events.events import REAL, STEPS, joined, parts_of
from trunkline.heads.events.pyramid import EventPyramid
from trunkline.heads.events.windows import EventWindows
from trunkline.heads.video.segments import grouped, suppressed

HEADS = {
    "pyramid": lambda: EventPyramid(6, 3, width=8, levels=4, score=0.0),
    "windows": lambda: EventWindows(6, 3, window=5, thresholds=(0.3, 0.4)),
    "clips": lambda: EventWindows(6, 3, window=5, background=False),
}


def made(name):
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head


def steps(count, seed=0):
    return torch.randn(1, 6, count, generator=torch.Generator().manual_seed(seed))


def batch_of(videos, segments, labels):
    count = max(v.shape[2] for v in videos)
    features = torch.cat([torch.nn.functional.pad(v, (0, count - v.shape[2])) for v in videos])
    targets = {REAL: torch.tensor([v.shape[2] for v in videos]), "segments": segments, "labels": labels}
    return {STEPS: features}, Batch("events", [str(i) for i in range(len(videos))], targets=targets)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [8, 24, 64])
def test_parts_of_a_video_say_what_the_whole_says(name, size):
    head, x = made(name), steps(149)
    with torch.inference_mode():
        whole = head.said(x)
        parts = list(parts_of(149, size, head))
        said = [head.said(x[:, :, first:end]) for first, end, _, _ in parts]
        found = joined(said, [p[0] for p in parts], [(p[2], p[3]) for p in parts])
    assert len(parts) == -(-149 // size)
    assert torch.allclose(found.curve, whole.curve, atol=1e-5)
    assert len(found.scores) == len(whole.scores)
    order, expected = (torch.argsort(s.places * 100 + s.strides) for s in (found, whole))
    assert torch.allclose(found.segments[order], whole.segments[expected], atol=1e-3)
    assert torch.allclose(found.scores[order], whole.scores[expected], atol=1e-5)
    (a, b, c), (x_, y, z) = head.events(found), head.events(whole)
    assert a == pytest.approx(x_, abs=1e-3) and b.tolist() == y.tolist() and c == pytest.approx(z, abs=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_neither_predictions_nor_losses(name):
    head, short, long = made(name), steps(37), steps(80, 1)
    segments, labels = (
        [torch.tensor([[4.0, 16.0]]), torch.tensor([[30.0, 61.0], [3, 9]])],
        [torch.tensor([1]), torch.tensor([2, 0])],
    )
    features, batch = batch_of([short, long], segments, labels)
    with torch.inference_mode():
        alone = head.predict(*batch_of([short], segments[:1], labels[:1]))[0]
        together = head.predict(features, batch)[0]
    assert together.segments == pytest.approx(alone.segments, abs=1e-4)
    assert together.scores == pytest.approx(alone.scores, abs=1e-5) and len(alone.curve) == 37
    more = {STEPS: torch.nn.functional.pad(features[STEPS], (0, 24))}
    for key, value in head.losses(features, batch).items():
        assert head.losses(more, batch)[key].item() == pytest.approx(value.item(), rel=1e-4)


def test_windows_are_means_and_their_loss_a_plain_cross_entropy():
    head, x = made("windows"), steps(20)
    features, batch = batch_of([x], [torch.tensor([[2.0, 9.0], [4.0, 6.0]])], [torch.tensor([0, 2])])
    logits = head(x, torch.ones(1, 20, dtype=torch.bool))[0]
    near = torch.stack([x[0, :, max(0, t - 2) : t + 3].mean(1) for t in range(20)])
    assert torch.allclose(logits, near @ head.classes.weight.T + head.classes.bias, atol=1e-5)
    wanted = torch.tensor([3] * 2 + [0, 0, 2, 2, 0, 0, 0] + [3] * 11)  # the shorter event lies on the longer one
    expected = -torch.log_softmax(logits, 1)[range(20), wanted].mean()
    assert head.losses(features, batch)["classes"].item() == pytest.approx(expected.item(), rel=1e-5)
    clips = made("clips")
    cut = torch.stack([x[0, :, 2:9].mean(1), x[0, :, 4:6].mean(1)])
    own = torch.log_softmax(cut @ clips.classes.weight.T + clips.classes.bias, 1)
    expected = -(own[0, 0] + own[1, 2]) / 2
    assert clips.losses(features, batch)["classes"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_runs_above_thresholds_are_events():
    curve = np.zeros((12, 2), np.float32)
    curve[2:6, 0], curve[3:5, 0], curve[8:, 1] = 0.4, 0.9, 0.7
    segments, labels, scores = grouped(curve, (0.3, 0.5), 0.6, 10)
    found = {(*s, int(n)): float(v) for s, n, v in zip(segments.tolist(), labels, scores, strict=True)}
    assert found == pytest.approx({(3.0, 5.0, 0): 0.9, (8.0, 12.0, 1): 0.7, (2.0, 6.0, 0): 0.65})
    assert len(grouped(curve, (0.3, 0.5), 0.4, 10)[0]) == 2  # the longer run overlaps the better one by a half


def test_what_suppresses_and_what_weakens():
    segments = np.array([[0.0, 10], [1, 11], [20, 30], [0, 10]])
    labels, scores = np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.3, 0.5], np.float32)
    assert suppressed(segments, labels, scores.copy(), 0.6, 0.0, 0.0, 9).tolist() == [0, 3, 2]
    assert suppressed(segments, labels, scores.copy(), 0.9, 0.0, 0.0, 9).tolist() == [0, 1, 3, 2]
    soft = scores.copy()
    assert suppressed(segments, labels, soft, 0.6, 0.5, 0.25, 9).tolist() == [0, 3, 2]
    soft = scores.copy()
    assert suppressed(segments, labels, soft, 0.6, 0.5, 0.01, 9).tolist() == [0, 3, 2, 1]
    assert soft[1] == pytest.approx(0.8 * np.exp(-((9 / 11) ** 2) / 0.5), rel=1e-5)
    assert suppressed(segments, labels, scores.copy(), 0.9, 0.0, 0.0, 2).tolist() == [0, 1]
    assert suppressed(segments[:0], labels[:0], scores[:0], 0.6, 0.5, 0.0, 9).tolist() == []


def test_the_pyramid_learns_one_video_by_heart():
    torch.manual_seed(0)
    head, x = EventPyramid(6, 2, width=16, levels=3), steps(48)
    x[:, :2, 8:20] += 3
    x[:, 2:4, 30:34] += 3
    features, batch = batch_of([x], [torch.tensor([[8.0, 20.0], [30.0, 34.0]])], [torch.tensor([0, 1])])
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(head.losses(features, batch).values()).backward()
        optimizer.step()
    with torch.inference_mode():
        (found,) = head.eval().predict(features, batch)
    assert sorted(found.labels[:2].tolist()) == [0, 1]
    best = {int(n): s for n, s in zip(found.labels[:2], found.segments[:2], strict=True)}
    assert best[0] == pytest.approx([8, 20], abs=1) and best[1] == pytest.approx([30, 34], abs=1)


def test_without_events_all_places_learn_that_there_is_nothing():
    head = made("pyramid")
    features, batch = batch_of([steps(16)], [torch.zeros(0, 2)], [torch.zeros(0, dtype=torch.int64)])
    found = head.losses(features, batch)
    assert found["boxes"].item() == 0.0 and found["classes"].item() > 0
