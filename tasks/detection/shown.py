"""How the scores of a detector are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..objects.coco_scores import AREAS, MAX_DETECTIONS
from ..scores import Block, Curve, Examples, Line, Metric, Picture, Table, share

COCO = {
    **{name: Metric(name) for name in ("AP", "AP50", "AP75")},
    **{f"AP{area}": Metric(f"AP{area}", chart=False) for area in AREAS if area},
    **{f"AR{limit}": Metric(f"AR{limit}", chart=False) for limit in MAX_DETECTIONS},
    **{f"AR{area}": Metric(f"AR{area}", chart=False) for area in AREAS if area},
}
MASKS = {f"mask_{name}": Metric(f"mask_{name}", chart=metric.chart) for name, metric in COCO.items()}
VOC = {"mAP": share("mAP (VOC, area)"), "mAP07": share("mAP (VOC 2007, 11 points)")}
_COLUMNS = {"class_ap": "AP", "mask_class_ap": "mask AP"}
_FAINT = 100  # most lines of classes in a curve


def blocks(details: dict[str, Any], least: float) -> list[Block]:
    """Build the blocks of a report: AP of the classes, precision over recall, and examples.

    Examples show the objects whose score is `least` or more.
    """
    columns = {title: details[key] for key, title in _COLUMNS.items() if key in details}
    names = [name for name in details["class_ap"] if any(own.get(name) is not None for own in columns.values())]
    rows = tuple((name, *(own.get(name) for own in columns.values())) for name in names)
    found: list[Block] = [Table("Classes", ("class", *columns), rows)] if rows else []
    found += [_curve(details["precision"])] if details["precision"] else []
    note = f"Pictures of the validation split, evenly taken; objects with a score of at least {least:g}."
    return [*found, Examples("Examples", tuple(map(Picture, details["examples"])), note, "wide")]


def _curve(precision: Mapping[str, Sequence[float]]) -> Curve:
    recalls = tuple(i / 20 for i in range(21))
    every = list(precision.items())
    lines = [Line(name, recalls, tuple(values), "faint", "a class") for name, values in every[:_FAINT]]
    mean = tuple(sum(column) / len(every) for column in zip(*precision.values(), strict=True))
    return Curve(
        "Precision over recall", (*lines, Line("mean", recalls, mean, legend="their mean")), "recall", "precision",
        (0.0, 1.0), (0.0, 1.0), "Of boxes at an overlap of 0.5.",
    )  # fmt: skip
