"""The curves of a run: what it logged over its updates."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

from .figures import Line, line_chart, number, smooth, stretches
from .shown import Shown

WEIGHTS = {"ema": "averaged", "raw": "raw"}
CHANGED = "changed"  # the kind of a line that says which tasks came or went at an update, of `recipe.json`
_DOTS = 40  # a line of more points has no dots


def training_curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw loss and learning rate by update; nothing where fewer than two updates are logged."""
    train = [
        line for line in lines if line["kind"] == "train" and "loss" in line
    ]  # without updates that were waited out
    xs, starts = [line["update"] for line in train], _starts(lines)
    if len(xs) < 2:
        return []
    charts = [_smoothed("Training loss", xs, [float(line["loss"]) for line in train], starts)]
    rates = [float(line.get("lr", math.nan)) for line in train]
    if any(map(math.isfinite, rates)):
        rate = [Line("learning rate", xs, rates)]
        charts.append(_chart("Learning rate", rate, line_chart(rate, "learning rate", marks=starts)))
    return charts


def loss_curves(lines: list[dict[str, Any]], shown: Shown) -> list[dict[str, Any]]:
    """Draw what one of several tasks lost: its sum, each of its losses where there are several, its gradient's norm."""
    own = [(line["update"], _of_task(line, shown.prefix)) for line in lines if line["kind"] == "train"]
    own, starts = [(update, losses) for update, losses in own if losses], _starts(lines)
    breaks = _breaks(lines, shown.task)
    if len(own) < 2:
        return []
    whole = [sum(losses.values()) for _, losses in own]
    charts = [_smoothed("Training loss", [u for u, _ in own], whole, starts, breaks)]
    names = list(dict.fromkeys(name for _, losses in own for name in losses))
    for name in names if len(names) > 1 else ():
        points = [(u, losses[name]) for u, losses in own if name in losses]
        charts.append(_smoothed(f"Loss: {name}", [u for u, _ in points], [y for _, y in points], starts, breaks))
    if gradient := _measured(lines, f"gradient/{shown.task}", "norm", breaks=breaks):
        charts.append(_lines("Gradient on the trunk, norm", [gradient], starts))
    return charts


def _of_task(line: dict[str, Any], prefix: str) -> dict[str, float]:
    return {n.removeprefix(prefix): float(v) for n, v in line.get("losses", {}).items() if n.startswith(prefix)}


COLOURS = 8  # of the page: s1 to s8
FEW_PAIRS = 6  # with more, the cosines of a task with all others share a chart


def colour(place: int) -> str:
    """Return the class of a task's colour."""
    return f"s{place % COLOURS + 1}"


def balance_curves(lines: list[dict[str, Any]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Draw the factors by which a balance multiplies the tasks' losses, in one chart; nothing where they are fixed."""
    found = [_measured(lines, f"balance/{task}", task, colour(n), _breaks(lines, task)) for n, task in enumerate(tasks)]
    drawn = [line for line in found if line and len(line.xs) > 1]
    return [_lines("Loss balance", drawn, _starts(lines))] if drawn else []


def cosine_curves(lines: list[dict[str, Any]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Draw the cosines between the tasks' gradients: a chart for each two, or of many tasks one for each with all others."""
    of = {
        (a, b): line
        for (a, one), (b, other) in combinations(enumerate(tasks), 2)
        if (line := _measured(lines, f"cosine/{one}/{other}", other, breaks=_breaks(lines, one, other)))
    }
    groups = [(f"Cosine: {tasks[a]}, {tasks[b]}", [line]) for (a, b), line in of.items()]
    if len(of) > FEW_PAIRS:
        groups = []
        for n, task in enumerate(tasks):
            pairs = [(b if a == n else a, line) for (a, b), line in of.items() if n in (a, b)]
            own = [replace(line, name=tasks[m], kind=colour(m)) for m, line in pairs]
            groups += [(f"Cosine: {task} and", own)] if own else []
    charts = []
    for title, own in groups:
        xs = [x for line in own for x in line.xs]
        none = Line("0", [min(xs), max(xs)], [0.0, 0.0], "dashed")
        chart = _lines(title, [none, *own], _starts(lines))
        charts.append({**chart, "legend": [(line.kind, line.name) for line in own] if len(own) > 1 else []})
    return charts


def _measured(
    lines: list[dict[str, Any]], name: str, shown: str, kind: str = "s1", breaks: Sequence[float] = ()
) -> Line | None:
    """Make the line of a number that was measured in some updates, called as it is shown; None where it never was."""
    train = [(line["update"], line["measured"][name]) for line in lines if name in line.get("measured", {})]
    xs, ys = [x for x, _ in train], [float(y) for _, y in train]
    return Line(shown, xs, ys, kind, len(train) <= _DOTS, breaks=breaks) if train else None


def _lines(title: str, drawn: list[Line], starts: Sequence[float]) -> dict[str, Any]:
    return _chart(title, drawn, line_chart(drawn, title, marks=starts))


def _smoothed(
    title: str, xs: list[float], ys: list[float], starts: Sequence[float], breaks: Sequence[float] = ()
) -> dict[str, Any]:
    """Draw numbers that jump from update to update, with a smooth line over them where there are many."""
    width = len(xs) / 30
    even = [y for own in stretches(xs, breaks) for y in smooth(ys[own], width)]
    shown = [Line("smoothed", xs, even, breaks=breaks)] if width > 1 else []
    shown.insert(0, Line("each update", xs, ys, "faint" if shown else "s1", breaks=breaks))
    return _chart(title, shown, line_chart(shown, title.lower(), marks=starts))


def metric_curves(
    lines: list[dict[str, Any]], shown: Shown, single: tuple[str, float] | None = None
) -> list[dict[str, Any]]:
    """Draw a task's metrics by update, those that have a chart and were measured at two updates or more.

    `single` is a metric and what a run of the task alone reached, which becomes a level line.
    """
    evals, charts = [line for line in lines if line["kind"] == "eval"], []
    breaks = _breaks(lines, shown.task)
    names = dict.fromkeys(name for line in evals for name in line.get("metrics", {}) if name.startswith(shown.prefix))
    for name in names:
        about = shown.about(name)
        drawn = [line for line in (_line(evals, name, weights, breaks) for weights in ("raw", "ema")) if line]
        if about.chart and len({x for line in drawn for x in line.xs}) > 1:
            if single and single[0] == name:
                xs = [x for line in drawn for x in line.xs]
                said = f"alone {number(single[1], about.unit == 'percent')}"
                drawn.insert(0, Line(said, [min(xs), max(xs)], [single[1], single[1]], "dashed"))
            most = math.inf if about.most is None else about.most
            svg = line_chart(drawn, about.title, about.unit == "percent", _starts(lines), most)
            unit = "" if about.unit in ("", "percent") else f", {about.unit}"
            charts.append(_chart(about.title + unit, drawn, svg))
    return charts


def _chart(title: str, lines: list[Line], svg: Any) -> dict[str, Any]:
    legend = [(line.kind, line.name) for line in lines] if len(lines) > 1 else []
    return {"title": title, "svg": svg, "legend": legend}


def _starts(lines: list[dict[str, Any]]) -> list[float]:
    """List the updates at which a phase begins, without the first phase, and those at which tasks came or went."""
    train = [line for line in lines if line["kind"] == "train"]
    phases = [b["update"] for a, b in pairwise(train) if a.get("phase") != b.get("phase")]
    return [*phases, *(line["update"] for line in lines if line["kind"] == CHANGED)]


def _breaks(lines: list[dict[str, Any]], *tasks: str) -> list[float]:
    """List the updates behind which one of the tasks began with a new head, so that what was before is no part of its curve."""
    changed = [line for line in lines if line["kind"] == CHANGED]
    return [line["update"] for line in changed if any(task in line["added"] for task in tasks)]


def _line(evals: list[dict[str, Any]], metric: str, weights: str, breaks: Sequence[float]) -> Line | None:
    mine = [line for line in evals if line.get("weights", "raw") == weights]
    mine = [line for line in mine if line.get("metrics", {}).get(metric) is not None]
    if not mine:
        return None
    xs, ys = [line["update"] for line in mine], [float(line["metrics"][metric]) for line in mine]
    ends = [line.get("intervals", {}).get(metric) for line in mine]
    band = ([e[0] for e in ends], [e[1] for e in ends]) if all(ends) else None
    return Line(WEIGHTS[weights], xs, ys, "s2" if weights == "ema" else "s1", len(xs) <= _DOTS, band, breaks)
