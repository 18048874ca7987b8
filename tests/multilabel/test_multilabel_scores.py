"""Scores of several labels against independent statements of them, in plain loops and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from trunkline.ground.errors import DataError
from trunkline.heads.contract import Batch
from trunkline.heads.multilabel import MultiLabelPrediction
from trunkline.tasks.intervals import wilson
from trunkline.tasks.multilabel.average_precision import Ranking
from trunkline.tasks.multilabel.evaluator import MISTAKES, MultiLabelEvaluator
from trunkline.tasks.scores import Examples, Table

CLASSES = ("ant", "bee", "cat", "dog")


def made(n: int = 60, k: int = 4, seed: int = 0, unknown: float = 0.1, steps: int = 12):
    """Truth and probabilities with many ties."""
    draw = np.random.default_rng(seed)
    truth = (draw.random((n, k)) < 0.3).astype(np.int8)
    p = np.clip(np.round((0.35 * truth + 0.65 * draw.random((n, k))) * steps) / steps, 0, 1).astype(np.float32)
    truth[draw.random((n, k)) < unknown] = -1
    return truth, p


def scored(truth, p, step: int = 7, **settings):
    evaluator = MultiLabelEvaluator(CLASSES[: p.shape[1]], **settings)
    for i in range(0, len(p), step):
        names = [f"{n:03d}.png" for n in range(i, min(i + step, len(p)))]
        batch = Batch("multilabel", names, targets={"labels": torch.from_numpy(truth[i : i + step])})
        rows = [MultiLabelPrediction(name, row) for name, row in zip(names, p[i : i + step], strict=True)]
        evaluator.add(evaluator.measure(batch, rows))
    return evaluator, evaluator.result()


def by_hand(truth: list[int], scores: list[float]) -> float | None:
    """The sum over thresholds from the highest of (recall - recall before) x precision, each counted anew."""
    known = [(s, y) for s, y in zip(scores, truth, strict=True) if y >= 0]
    objects = sum(y for _, y in known)
    if not objects:
        return None
    total, before = Fraction(0), Fraction(0)
    for threshold in sorted({s for s, _ in known}, reverse=True):
        taken = [y for s, y in known if s >= threshold]
        recall = Fraction(sum(taken), objects)
        total += (recall - before) * Fraction(sum(taken), len(taken))
        before = recall
    return float(total)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("steps", [3, 12, 10**6])
def test_average_precision_is_the_sum_over_thresholds(seed, steps):
    truth, p = made(seed=seed, steps=steps)
    found = [Ranking(p[:, n], truth[:, n]).average_precision(np.ones((1, len(p))))[0] for n in range(4)]
    wanted = [by_hand(truth[:, n].tolist(), p[:, n].tolist()) for n in range(4)]
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-12


def test_average_precision_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, p = made(unknown=0.0)
    for n in range(4):
        found = Ranking(p[:, n], truth[:, n]).average_precision(np.ones((1, len(p))))[0]
        assert abs(found - metrics.average_precision_score(truth[:, n], p[:, n])) < 1e-12


def test_weights_count_pictures_as_often_as_they_stand_there():
    truth, p = made()
    times = np.random.default_rng(1).integers(0, 3, len(p))
    again = np.repeat(np.arange(len(p)), times)
    one = Ranking(p[:, 0], truth[:, 0]).average_precision(times[None].astype(float))[0]
    assert abs(one - by_hand(truth[again, 0].tolist(), p[again, 0].tolist())) < 1e-12


def test_the_order_of_ties_does_not_matter():
    truth, p = made(steps=2)
    order = np.random.default_rng(3).permutation(len(p))
    a, b = (
        Ranking(q[:, 1], t[:, 1]).average_precision(np.ones((1, len(p))))[0]
        for q, t in ((p, truth), (p[order], truth[order]))
    )
    assert a == b


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_every_metric_in_plain_loops(threshold):
    truth, p = made()
    _, found = scored(truth, p, threshold=threshold)
    rows, counts = range(len(p)), []
    for n in range(4):
        known = [i for i in rows if truth[i, n] >= 0]
        tp = sum(truth[i, n] == 1 and p[i, n] >= threshold for i in known)
        fp = sum(truth[i, n] == 0 and p[i, n] >= threshold for i in known)
        fn = sum(truth[i, n] == 1 and p[i, n] < threshold for i in known)
        counts.append((int(tp), int(fp), int(fn)))
    tp, fp, fn = map(sum, zip(*counts, strict=True))
    assert found.metrics["micro_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    each = [2 * a / (2 * a + b + c) for a, b, c in counts]
    assert found.metrics["macro_f1"] == pytest.approx(sum(each) / 4, abs=1e-12)
    aps = [by_hand(truth[:, n].tolist(), p[:, n].tolist()) for n in range(4)]
    assert found.metrics["mAP"] == pytest.approx(sum(aps) / 4, abs=1e-12)
    some = [i for i in rows if any(truth[i, n] >= 0 for n in range(4))]
    right = [all(truth[i, n] < 0 or (p[i, n] >= threshold) == (truth[i, n] == 1) for n in range(4)) for i in some]
    assert found.metrics["exact_match"] == pytest.approx(sum(right) / len(some), abs=1e-12)
    for own, (a, b, c), f1, ap in zip(found.details["per_class"], counts, each, aps, strict=True):
        assert own["pictures"] == a + c and own["recall"] == a / (a + c) and own["precision"] == a / (a + b)
        assert own["F1"] == pytest.approx(f1) and own["AP"] == pytest.approx(ap)
    assert found.samples == 60 and found.headline == ("mAP", "micro_f1")
    assert all(low <= found.metrics[name] <= high for name, (low, high) in found.intervals.items())


def test_a_class_without_a_picture_is_left_out_and_said():
    truth, p = made(unknown=0.0)
    truth[:, 2] = 0
    _, found = scored(truth, p)
    aps = [by_hand(truth[:, n].tolist(), p[:, n].tolist()) for n in (0, 1, 3)]
    assert found.metrics["mAP"] == pytest.approx(sum(aps) / 3, abs=1e-12)
    assert found.notes == ("mAP and macro_f1: a mean over 3 of 4 classes; in no picture: cat",)
    assert found.details["per_class"][2]["AP"] is None and found.details["per_class"][2]["F1"] is None
    truth[:] = -1
    _, found = scored(truth, p)
    assert {*found.metrics.values()} == {None} and found.intervals == {}
    assert "240 of 240 labels are unknown and count in no score" in found.notes


def test_all_right_has_wilsons_interval():
    truth, _ = made(unknown=0.0)
    _, found = scored(truth, truth.astype(np.float32))
    low, high = wilson(np.array(60), np.array(60))
    assert found.metrics == {"mAP": 1.0, "micro_f1": 1.0, "macro_f1": 1.0, "exact_match": 1.0}
    assert found.intervals["exact_match"] == (float(low), float(high))


def test_whole_groups_are_drawn():
    truth, p = made()
    _, plain = scored(truth, p)
    _, grouped = scored(truth, p, groups=np.repeat(np.arange(6), 10))
    assert plain.metrics == grouped.metrics and plain.intervals != grouped.intervals
    assert "intervals are over 6 groups of pictures (whole groups are drawn)" in grouped.notes


def test_records_and_the_surest_mistakes():
    truth, p = np.array([[1, 0, -1], [0, 1, 0]], np.int8), np.array([[0.1, 0.6, 0.9], [0.2, 0.7, 0.4]], np.float32)
    evaluator, found = scored(truth, p)
    record = evaluator.measure(
        Batch("multilabel", ["x"], targets={"labels": torch.from_numpy(truth[:1])}), [MultiLabelPrediction("x", p[0])]
    )[0]
    assert record["present"] == ["ant"] and record["unknown"] == ["cat"] and record["predicted"] == ["bee", "cat"]
    assert record["probabilities"] == [float(v) for v in p[0]]
    (mistake,) = found.details["mistakes"]
    assert (mistake["id"], mistake["class"], mistake["there"]) == ("000.png", "ant", True)
    assert len(scored(*made(200))[1].details["mistakes"]) == MISTAKES
    table, examples = evaluator.blocks(found)
    assert isinstance(table, Table) and isinstance(examples, Examples) and table.rows[0][0] == "ant"


def test_what_cannot_be_scored_is_told():
    evaluator = MultiLabelEvaluator(CLASSES)
    with pytest.raises(DataError, match="has no labels, so that it can be predicted but not scored"):
        evaluator.measure(Batch("multilabel", ["a"]), [])
    labels = {"labels": torch.zeros(1, 4, dtype=torch.int8)}
    with pytest.raises(DataError, match="a: 2 probabilities for 4 classes"):
        evaluator.measure(
            Batch("multilabel", ["a"], targets=labels), [MultiLabelPrediction("a", np.zeros(2, np.float32))]
        )
    with pytest.raises(DataError, match="a: the predicted probabilities are not finite numbers"):
        evaluator.measure(
            Batch("multilabel", ["a"], targets=labels), [MultiLabelPrediction("a", np.full(4, np.nan, np.float32))]
        )
    with pytest.raises(DataError, match="there is no sample to score"):
        evaluator.result()
