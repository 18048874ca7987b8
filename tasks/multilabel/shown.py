"""How the scores of several labels a picture are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..scores import Block, Examples, Picture, Table, share

METRICS = {
    "mAP": share("Mean average precision"),
    "micro_f1": share("F1 over all labels"),
    "macro_f1": share("Mean F1 per class"),
    "exact_match": share("Pictures with every label right"),
}
_MOST = 30  # with more classes, those with the lowest average precision are shown
_HEADINGS = ("class", "pictures", "AP", "precision", "recall", "F1")
_UNITS = ("", "", "percent", "percent", "percent", "percent")


def blocks(details: Mapping[str, Any]) -> list[Block]:
    """Build the blocks of a report: the classes, and the surest mistakes."""
    return [_classes(details["per_class"], details["threshold"]), _mistakes(details["mistakes"])]


def _classes(classes: Sequence[Mapping[str, Any]], threshold: float) -> Table:
    every = tuple(map(_row, classes))
    note = f"AP needs no threshold; precision, recall and F1 take a class as there from {threshold:g} on."
    if len(classes) <= _MOST:
        return Table("Classes", _HEADINGS, every, note, _UNITS)
    worst = sorted((c for c in classes if c["AP"] is not None), key=lambda c: c["AP"])[:_MOST]
    note = f"The {len(worst)} classes with the lowest AP. {note}"
    return Table("Classes", _HEADINGS, tuple(map(_row, worst)), note, _UNITS, every, f"All {len(classes)} classes")


def _row(one: Mapping[str, Any]) -> tuple[str | int | float | None, ...]:
    return one["name"], one["pictures"], one["AP"], one["precision"], one["recall"], one["F1"]


def _mistakes(mistakes: Sequence[Mapping[str, Any]]) -> Examples:
    pictures = tuple(
        Picture(
            m["id"],
            (
                ((m["class"], "bad"), (f" {100 * m['probability']:.1f} %", "")),
                ((("is there" if m["there"] else "is not there"), ""),),
                ((m["id"], "soft"),),
            ),
            source=m.get("source") or "",
            depth=m.get("depth") or "",
        )
        for m in mistakes
    )
    note = "Of each picture the label that is farthest from the truth, and of these the worst: wrong labels and hard cases."
    return Examples("Surest mistakes", pictures, note)
