"""How the scores of a classifier are shown."""

from collections.abc import Sequence
from typing import Any

from ..scores import Bar, Block, Curve, Examples, Line, Matrix, Metric, Picture, Table, share

METRICS = {
    "top1": share("Top-1 accuracy"),
    "top5": share("Top-5 accuracy"),
    "mean_per_class": share("Mean accuracy per class"),
    "ece": share("Calibration error", "lower"),
    "nll": Metric("Negative log-likelihood", better="lower"),
    "auroc": Metric("AUROC"),
}
_MATRIX = 30  # with more classes, the most confused pairs are shown in place of the whole matrix
_WORST = 20


def blocks(details: dict[str, Any]) -> list[Block]:
    """Build the blocks of a report: confusion, calibration, the classes, and the surest mistakes."""
    found = (_confusion(details), _calibration(details["calibration"]), _classes(details["per_class"]))
    return [*(block for block in found if block), _mistakes(details["mistakes"])]


def _confusion(details: dict[str, Any]) -> Block | None:
    matrix, classes = details["confusion"], details["classes"]
    if len(classes) <= _MATRIX:
        note = "A row is a true class, a column what was predicted. Shades are shares of the row."
        return Matrix("Confusion", tuple(classes), tuple(map(tuple, matrix)), "truth", "predicted", note)
    cells = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    most = sorted(cells, key=lambda cell: (-cell[0], cell[1], cell[2]))[:_WORST]
    rows = tuple((classes[i], classes[j], n, n / sum(matrix[i])) for n, i, j in most)
    note = "The pairs of classes with the most mistakes; the share is of the true class's samples."
    headings, units = ("truth", "predicted", "samples", "share"), ("", "", "", "percent")
    return Table("Most confused", headings, rows, note, units) if rows else None


def _calibration(bins: Sequence[dict[str, Any]]) -> Block | None:
    there = [b for b in bins if b["samples"]]
    if not there:
        return None
    gap = sum(b["samples"] * (b["confidence"] - b["accuracy"]) for b in there) / sum(b["samples"] for b in there)
    sure = "about as sure as" if abs(gap) < 0.01 else "surer than" if gap > 0 else "less sure than"
    points = f"{100 * gap:+.1f}".replace("-", "−")
    note = (
        f"The model is {sure} it is right: confidence minus accuracy is {points} points on average. Bars are accuracies "
        "by confidence, orange ticks the mean confidence, grey bars the number of samples."
    )
    bars = tuple(Bar(b["low"], b["high"], b["samples"], b["confidence"], b["accuracy"]) for b in bins)
    equal = Line("as sure as right", (0.0, 1.0), (0.0, 1.0), "dashed")
    ends = (0.0, 1.0)
    return Curve("Calibration", (equal,), "confidence", "accuracy", ends, ends, note, "percent", bars)


def _classes(classes: Sequence[dict[str, Any]]) -> Block | None:
    known = [c for c in classes if c["samples"]]
    if not known:
        return None
    headings, units = ("class", "samples", "accuracy", "95 % interval"), ("", "", "percent", "range")
    every = tuple(map(_row, classes))
    if len(classes) <= _MATRIX:
        note = "Share of each class's samples that is right, with Wilson's interval."
        return Table("Classes", headings, every, note, units)
    worst = sorted(known, key=lambda c: (c["accuracy"], c["high"]))[:_WORST]
    note = f"The {len(worst)} classes with the lowest accuracy; the interval is Wilson's."
    return Table("Classes", headings, tuple(map(_row, worst)), note, units, every, f"All {len(classes)} classes")


def _row(one: dict[str, Any]) -> tuple[str, int, float | None, tuple[float, float, float] | None]:
    there = one["accuracy"] is not None
    return one["name"], one["samples"], one["accuracy"], (one["low"], one["accuracy"], one["high"]) if there else None


def _mistakes(mistakes: Sequence[dict[str, Any]]) -> Examples:
    pictures = tuple(
        Picture(
            m["id"],
            (
                ((m["predicted"], "bad"), (f" {100 * m['confidence']:.1f} %", "")),
                (("is ", ""), (m["truth"], "good"), (f" {100 * m['label_probability']:.1f} %", "")),
                ((m["id"], "soft"),),
            ),
            source=m.get("source") or "",
            depth=m.get("depth") or "",
        )
        for m in mistakes
    )
    note = "Wrong with the highest confidence first: worth a look for wrong labels and hard cases."
    return Examples("Surest mistakes", pictures, note)
