"""The curves of a run: what it logged over its updates."""

import math
from itertools import pairwise
from typing import Any

from .figures import Line, line_chart, smooth
from .shown import Shown

WEIGHTS = {"ema": "averaged", "raw": "raw"}
_DOTS = 40  # a line of more points has no dots


def training_curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw loss and learning rate by update; nothing where fewer than two updates are logged."""
    train = [
        line for line in lines if line["kind"] == "train" and "loss" in line
    ]  # without updates that were waited out
    xs, starts = [line["update"] for line in train], _starts(lines)
    if len(xs) < 2:
        return []
    losses = [float(line["loss"]) for line in train]
    width = len(xs) / 30
    shown = [Line("smoothed", xs, smooth(losses, width))] if width > 1 else []
    shown.insert(0, Line("each update", xs, losses, "faint" if shown else "s1"))
    charts = [_chart("Training loss", shown, line_chart(shown, "training loss", marks=starts))]
    rates = [float(line.get("lr", math.nan)) for line in train]
    if any(map(math.isfinite, rates)):
        rate = [Line("learning rate", xs, rates)]
        charts.append(_chart("Learning rate", rate, line_chart(rate, "learning rate", marks=starts)))
    return charts


def metric_curves(lines: list[dict[str, Any]], shown: Shown) -> list[dict[str, Any]]:
    """Draw a task's metrics by update, those that have a chart and were measured at two updates or more."""
    evals, charts = [line for line in lines if line["kind"] == "eval"], []
    names = dict.fromkeys(name for line in evals for name in line.get("metrics", {}) if name.startswith(shown.prefix))
    for name in names:
        about = shown.about(name)
        drawn = [line for line in (_line(evals, name, weights) for weights in ("raw", "ema")) if line]
        if about.chart and len({x for line in drawn for x in line.xs}) > 1:
            most = math.inf if about.most is None else about.most
            svg = line_chart(drawn, about.title, about.unit == "percent", _starts(lines), most)
            unit = "" if about.unit in ("", "percent") else f", {about.unit}"
            charts.append(_chart(about.title + unit, drawn, svg))
    return charts


def _chart(title: str, lines: list[Line], svg: Any) -> dict[str, Any]:
    legend = [(line.kind, line.name) for line in lines] if len(lines) > 1 else []
    return {"title": title, "svg": svg, "legend": legend}


def _starts(lines: list[dict[str, Any]]) -> list[float]:
    """List the updates at which a phase begins, without the first phase."""
    train = [line for line in lines if line["kind"] == "train"]
    return [b["update"] for a, b in pairwise(train) if a.get("phase") != b.get("phase")]


def _line(evals: list[dict[str, Any]], metric: str, weights: str) -> Line | None:
    mine = [line for line in evals if line.get("weights", "raw") == weights]
    mine = [line for line in mine if line.get("metrics", {}).get(metric) is not None]
    if not mine:
        return None
    xs, ys = [line["update"] for line in mine], [float(line["metrics"][metric]) for line in mine]
    ends = [line.get("intervals", {}).get(metric) for line in mine]
    band = ([e[0] for e in ends], [e[1] for e in ends]) if all(ends) else None
    return Line(WEIGHTS[weights], xs, ys, "s2" if weights == "ema" else "s1", len(xs) <= _DOTS, band)
