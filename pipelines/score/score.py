"""Scoring anybody's result files by a protocol, as the official tools and tables do. No model is needed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.text import text_of
from ...tasks.scores import written

_COMP4 = "comp4_det_"
_MOST = 1_000_000  # detections of an image and category


@dataclass
class Scored:
    """`metrics` by name, the classes' AP or IoU, a plot's curves (recall and precision by class), and warnings.

    None stands where there is nothing to measure: no object of a size, none of a class. `intervals` (95 %, low and high) are
    of the metrics that have one.
    """

    metrics: dict[str, float | None]
    classes: dict[str, float | None]
    settings: dict[str, Any]
    counts: dict[str, int]
    curves: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def of_class(self) -> str:
        """The heading of `classes` in a table: AP or IoU."""
        return self.settings.get("score", "AP")

    def to_json(self) -> dict[str, Any]:
        """Put the metrics at the top level under their names, and AP or IoU by class under `classes`."""
        return {
            **self.metrics, "classes": self.classes, "settings": self.settings, "counts": self.counts,
            "warnings": self.warnings, **({"intervals": self.intervals} if self.intervals else {}),
        }  # fmt: skip


def lines_of(file: str | Path) -> list[str]:
    """Read the lines of a text file that are not empty. Raises DataError where it has none, or cannot be read."""
    words = [line.strip() for line in text_of(file).splitlines()]
    if not any(words):
        raise DataError(f"{file}: names nothing")
    return [w for w in words if w]


def draw(scored: Scored, file: Path, label: str) -> None:
    """Draw all classes' precision/recall curves as a PNG: thin lines, their mean thick, the best and worst named."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = {name: ap for name, ap in scored.classes.items() if ap is not None}
    ranked = sorted(values, key=lambda name: -values[name])
    named = ranked if len(ranked) <= 6 else ranked[:3] + ranked[-3:]
    grid, curves = np.linspace(0, 1, 101), []
    for name in ranked:
        recall, precision = (np.asarray(v, float) for v in scored.curves[name])
        reached = _envelope(recall, precision, grid)
        curves.append(reached)
        chosen = name in named
        axes.plot(
            grid, np.where(reached > 0, reached, np.nan), lw=1.4 if chosen else 0.6, color=None if chosen else "0.75",
            zorder=2 if chosen else 1, label=f"{name} {values[name]:.3f}" if chosen else None,
        )  # fmt: skip
    if curves:
        axes.plot(grid, np.mean(curves, 0), color="black", lw=2.4, zorder=3, label="mean of the classes")
        axes.legend(loc="lower left", fontsize=8, frameon=False)
    headline = ", ".join(f"{name} {written(value)}" for name, value in [*scored.metrics.items()][:2])
    axes.set(xlabel="recall", ylabel=label, xlim=(0, 1), ylim=(0, 1.02), title=headline)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=144)


def _envelope(recall: Any, precision: Any, grid: Any) -> Any:
    """Return the best precision at each recall of `grid` or beyond, `(len(grid),)` float; 0 where none reaches it."""
    import numpy as np

    if not len(recall):
        return np.zeros(len(grid))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, grid, "left")
    return np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0.0)


PROTOCOLS = {
    "coco": "trunkline.pipelines.score.score_coco:coco",
    "voc": "trunkline.pipelines.score.score_voc:voc",
    "masks": "trunkline.pipelines.score.score_masks:masks",
    "images": "trunkline.pipelines.score.score_images:images",
    "events": "trunkline.pipelines.score.score_events:events",
}


def protocol(name: str) -> Callable[..., Scored]:
    """Return the function that scores by a protocol. Raises RecipeError for an unknown one."""
    from trunkline.ground.names import load_named, nearest

    if name not in PROTOCOLS:
        raise RecipeError(f"{name!r}: no such protocol{nearest(name, PROTOCOLS)}; expected {', '.join(PROTOCOLS)}")
    return load_named(PROTOCOLS[name])
