"""Charts as small inline SVG; colours are CSS classes of the page, so that they follow light and dark."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from ...tasks.scores import Bar

_WIDTH, _HEIGHT = 380, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 30
_POINTS = 300  # a line has at most twice as many
_STRIPS = 50  # places of a chart that show their numbers on hover
Ends = tuple[float, float] | None


@dataclass
class Line:
    """A line of a chart. `kind` is a CSS class (`s1`, `s2`; `faint` behind another, `dashed`); `band` are (lows, highs).

    It is broken behind each of `breaks`, places on the axis.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: str = "s1"
    dots: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None
    breaks: Sequence[float] = ()


def line_chart(
    lines: list[Line], label: str, percent: bool = False, marks: Sequence[float] = (), most: float = math.inf,
    axis: str = "update", ends: tuple[Ends, Ends] = (None, None),
) -> Markup:  # fmt: skip
    """Draw lines over updates, or another `axis`, with titles on hover.

    `marks` are vertical lines (where a phase begins). `most` ends the upright axis at a number that cannot be passed.
    `ends` are the ends of both axes where they do not follow the lines.
    """
    xs = [x for line in lines for x in line.xs]
    values = [y for line in lines for y in line.ys]
    values += [y for line in lines for ends_ in line.band or () for y in ends_]
    x_low, x_high = ends[0] or (min(xs), max(xs))
    y_ticks, (y_low, y_high) = _heights([y for y in values if math.isfinite(y)], most, ends[1])

    def at_x(x: float) -> float:
        return round(_LEFT + _share(x, x_low, x_high) * (_WIDTH - _LEFT - _RIGHT), 1)

    def at_y(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - _share(y, y_low, y_high) * (_HEIGHT - _TOP - _BOTTOM), 1)

    x_ticks = [x for x in ticks(x_low, x_high, 6) if x_low <= x <= x_high] or [x_low]  # others have no place
    parts = [_frame(x_ticks, y_ticks, at_x, at_y, percent, axis)]
    parts += [
        _tag("line", "mark", x1=at_x(x), x2=at_x(x), y1=_TOP, y2=_HEIGHT - _BOTTOM)
        for x in marks
        if x_low <= x <= x_high
    ]
    for line in lines:
        if line.band:
            low, high = line.band
            around = [(x, y) for x, y in zip(line.xs, high, strict=True)]
            around += [(x, y) for x, y in zip(reversed(line.xs), reversed(low), strict=True)]
            parts.append(_tag("polygon", f"{line.kind} band", points=_points(around, at_x, at_y)))
    for line in lines:
        parts += _line(line, at_x, at_y)
        if line.dots:
            around = zip(line.xs, line.ys, strict=True)
            parts += [_tag("circle", f"{line.kind} dot", cx=at_x(x), cy=at_y(y), r=2.2) for x, y in around]
    parts += _strips(lines, at_x, percent, axis)
    return _svg(parts, label)


def bar_chart(
    bars: Sequence[Bar], lines: list[Line], x_axis: str, y_axis: str, percent: bool, ends: tuple[Ends, Ends]
) -> Markup:
    """Draw bars: the mean of y by stretches of x, with a tick at the mean of x; lines; and each stretch's samples below.

    Without `ends` the axes go from 0 to 1.
    """
    plot, below = 180, 46
    height, base = _TOP + plot + 10 + below + 32, _TOP + plot + 10 + below
    most = max((bar.samples for bar in bars), default=0) or 1
    (x_low, x_high), (y_low, y_high) = ends[0] or (0, 1), ends[1] or (0, 1)

    def at_x(x: float) -> float:
        return round(_LEFT + _share(x, x_low, x_high) * (_WIDTH - _LEFT - _RIGHT), 1)

    def at_y(y: float) -> float:
        return round(_TOP + plot - _share(y, y_low, y_high) * plot, 1)

    grid = [i / 4 for i in range(5)]
    xs, ys = [x_low + i * (x_high - x_low) for i in grid], [y_low + i * (y_high - y_low) for i in grid]
    parts = [_tag("line", "grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at_y(y), y2=at_y(y)) for y in ys]
    parts += [_text(_LEFT - 6, at_y(y) + 4, _rounded(y, percent), "end") for y in ys]
    for bar in (b for b in bars if b.samples and b.x is not None and b.y is not None):
        x, width = at_x(bar.low) + 1, at_x(bar.high) - at_x(bar.low) - 2
        low, high = _rounded(bar.low, percent).removesuffix(" %"), _rounded(bar.high, percent)
        words = f"{x_axis} {low} to {high}: {bar.samples} samples, mean {x_axis} {number(bar.x or 0, percent)}"
        words += f", {y_axis} {number(bar.y or 0, percent)}"
        y, tall = at_y(bar.y or 0), max(1.0, bar.samples / most * below)
        shapes = _tag("rect", "s1 bar", x=x, y=y, width=width, height=at_y(y_low) - y)
        shapes += _tag("rect", "count", x=x, y=round(base - tall, 1), width=width, height=round(tall, 1))
        shapes += _tag("line", "s2 tick", x1=x, x2=x + width, y1=at_y(bar.x or 0), y2=at_y(bar.x or 0))
        hover = _tag("rect", "hover", x=x, y=_TOP, width=width, height=base - _TOP)
        parts.append(Markup("<g><title>{}</title>{}{}</g>").format(words, shapes, hover))
    parts += [part for line in lines for part in _line(line, at_x, at_y)]
    parts.append(_tag("line", "grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base))
    parts += [_text(at_x(x), base + 15, _rounded(x, percent), "end" if x == x_high else "middle") for x in xs]
    parts.append(_text(_LEFT - 6, base - below + 16, str(most), "end"))
    parts.append(_text(at_x((x_low + x_high) / 2), base + 29, x_axis))
    return _svg(parts, f"{y_axis} against {x_axis}", height)


def _share(value: float, low: float, high: float) -> float:
    """Place a number between two others, from 0 to 1; in the middle where these are the same."""
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _heights(values: list[float], most: float, ends: Ends) -> tuple[list[float], tuple[float, float]]:
    """Choose the ticks of the upright axis, and its ends."""
    if ends:
        return [y for y in ticks(*ends, 5) if ends[0] <= y <= ends[1]], ends
    found = ticks(min(values, default=0), max(values, default=1), 5)
    if found[0] < 0 <= min(values, default=0):  # values that are never negative get no negative ticks
        found = [y for y in found if y >= 0]
    found = [y for y in found if y <= most] or found
    return found, (min([found[0], *values]), max([found[-1], *values]))


def _line(line: Line, at_x: Any, at_y: Any) -> list[Markup]:
    runs = [run for own in stretches(line.xs, line.breaks) for run in _finite_runs(thin(line.xs[own], line.ys[own]))]
    return [_tag("polyline", f"{line.kind} line", points=_points(run, at_x, at_y)) for run in runs]


def _rounded(value: float, percent: bool) -> str:
    return f"{100 * value:.0f} %" if percent else f"{value:g}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Choose round numbers (1, 2 or 5 times a power of ten apart) that span `low` to `high`: at most `count` + 2 of them."""
    if not high > low:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float, percent: bool = False) -> str:
    """Write a number as people read it: in percent with one decimal, or with four significant digits.

    From 10,000 it is a whole number with commas; below 0.001 and from a million it has an exponent and three digits.
    """
    if percent:
        return f"{100 * value:.1f} %"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 9999.5 else f"{value:,.0f}"


def stretches(xs: Sequence[float], breaks: Sequence[float]) -> list[slice]:
    """Divide places that grow into those up to each of `breaks`, and those behind the last; none is empty."""
    ends = [0, *sorted({bisect_right(xs, x) for x in breaks} - {0, len(xs)}), len(xs)]
    return [slice(a, b) for a, b in pairwise(ends)]


def smooth(ys: Sequence[float], width: float) -> list[float]:
    """Smooth by an exponential moving mean over about `width` points, without a bias at the beginning; skip NaN."""
    keep, mean, weight, result = 1 - 1 / max(1.0, width), 0.0, 0.0, []
    for y in ys:
        if math.isfinite(y):
            mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        result.append(mean / weight if weight else math.nan)
    return result


def thin(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Thin a line to `2 * _POINTS` points at most: the lowest and highest of each stretch, so that no peak is lost."""
    pairs = list(zip(xs, ys, strict=True))
    if len(pairs) <= 2 * _POINTS:
        return pairs
    kept = []
    for i in range(_POINTS):
        stretch = pairs[i * len(pairs) // _POINTS : (i + 1) * len(pairs) // _POINTS]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _frame(x_ticks: list[float], y_ticks: list[float], at_x: Any, at_y: Any, percent: bool, axis: str) -> Markup:
    parts = []
    decimals = 0 if y_ticks[1] - y_ticks[0] >= 0.01 - 1e-9 else 1
    for y in y_ticks:
        parts.append(_tag("line", "grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at_y(y), y2=at_y(y)))
        shown = f"{100 * y:.{decimals}f} %" if percent else _short(y)
        parts.append(_text(_LEFT - 6, at_y(y) + 4, shown, "end"))
    inside = [x for x in x_ticks if _LEFT - 1 <= at_x(x) <= _WIDTH - _RIGHT + 1 and (x == int(x) or axis != "update")]
    for x in inside:
        parts.append(_text(min(at_x(x), _WIDTH - 16), _HEIGHT - _BOTTOM + 15, _at(x, axis)))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 2, axis))
    return Markup("").join(parts)


def _short(y: float) -> str:
    """Write a number in the six letters that stand beside a chart: 0.00012 as 1.2e-4."""
    text = f"{y:g}"
    return text if len(text) <= 6 else f"{y:.2g}" if abs(y) >= 0.001 else f"{y:.1e}".replace("e-0", "e-")


def _at(x: float, axis: str) -> str:
    return f"{x:,.0f}" if axis == "update" else f"{x:g}"


def _strips(lines: list[Line], at_x: Any, percent: bool, axis: str) -> list[Markup]:
    """Draw invisible strips over the chart whose titles say the numbers there."""
    named = [line for line in lines if line.kind not in ("faint", "dashed")]
    if not named:
        return []
    longest = max(named, key=lambda line: len(line.xs))
    every = max(1, math.ceil(len(longest.xs) / _STRIPS))
    xs = list(longest.xs)[::-1][::every][::-1]
    tables = [(line, dict(zip(line.xs, line.ys, strict=True))) for line in named]
    middles = [at_x(x) for x in xs]
    edges = [_LEFT, *((a + b) / 2 for a, b in pairwise(middles)), _WIDTH - _RIGHT]
    strips = []
    for i, x in enumerate(xs):
        said = [f"{line.name} {number(table[x], percent)}" for line, table in tables if x in table]
        box = _tag("rect", "hover", x=round(edges[i], 1), y=_TOP, width=round(edges[i + 1] - edges[i], 1),
                   height=_HEIGHT - _TOP - _BOTTOM)  # fmt: skip
        strips.append(Markup("<g><title>{}</title>{}</g>").format(f"{axis} {_at(x, axis)}: {', '.join(said)}", box))
    return strips


def _finite_runs(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _points(points: Sequence[tuple[float, float]], at_x: Any, at_y: Any) -> str:
    return " ".join(f"{at_x(x):g},{at_y(y):g}" for x, y in points)


def _tag(name: str, kind: str, **attributes: Any) -> Markup:
    inside = Markup(" ").join(Markup('{}="{}"').format(k, _plain(v)) for k, v in attributes.items())
    return Markup('<{} class="{}" {}/>').format(Markup(name), kind, inside)


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_plain(x), _plain(y), anchor, text)


def _svg(parts: list[Markup], label: str, height: int = _HEIGHT) -> Markup:
    head = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(head) + Markup("").join(parts) + Markup("</svg>")
