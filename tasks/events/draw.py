"""A video's time as a picture: scores of classes over it, what was found, and what is true."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..images.drawing import INK, PAPER, font_of, shorten
from .annotations import Event

COLOURS = ((58, 110, 190), (214, 126, 44), (30, 132, 73), (150, 80, 170), (196, 48, 43))
OTHER = (120, 124, 130)
FOUND, MISSED, FALSE = (30, 132, 73), (150, 154, 160), (196, 48, 43)
_GREY = (200, 204, 210)
_LEFT, _ROW, _HIGH = 60, 18, 110
SHOWN = 0.5  # of the best score: weaker events are not drawn
MATCHED = 0.5  # the overlap from which an event counts as found

Curve = tuple[str, list[tuple[float, float]]]


def time_line(
    events: Sequence[Event],
    curves: Sequence[Curve],
    length: float,
    truth: Sequence[Event] | None = None,
    width: int = 960,
) -> Image.Image:
    """Draw the curves, the events that are strong enough, one bar each in its class's colour, and the true ones below.

    With `truth`, a bar's edge says whether it found one (green) or not (red), and true ones that were missed are grey.
    """
    strongest = max((e.score for e in events), default=0.0)
    strong = [e for e in events if e.score >= SHOWN * strongest]
    names = [name for name, _ in curves] or list(dict.fromkeys(e.label for e in strong))[: len(COLOURS)]
    colour = {name: COLOURS[n] for n, name in enumerate(names[: len(COLOURS)])}
    found, true = _lanes(strong), _lanes(truth or [])
    high = _HIGH * bool(curves) + _ROW * (len(found) + len(true) + 2 * bool(truth is not None)) + 48 + 18 * len(names)
    page = Image.new("RGB", (width, high), PAPER)
    pen, font = ImageDraw.Draw(page), font_of(12)
    length, right = length or max((e.end for e in [*events, *(truth or [])]), default=1.0), width - 10

    def x(t: float) -> float:
        return _LEFT + min(1.0, max(0.0, t / length)) * (right - _LEFT)

    y = 8
    if curves:
        for share in (0.0, 0.5, 1.0):
            at = y + (1 - share) * (_HIGH - 16)
            pen.line((_LEFT, at, right, at), fill=_GREY)
            pen.text((_LEFT - 6, at), f"{share:.0%}", fill=INK, font=font, anchor="rm")
        for name, points in reversed(curves):
            pen.line([(x(t), y + (1 - s) * (_HIGH - 16)) for t, s in points], fill=colour.get(name, OTHER), width=2)
        y += _HIGH
    edges = _edges(strong, truth) if truth is not None else {}
    y = _rows(pen, "found", found, y, x, colour, edges)
    if truth is not None:
        y = _rows(pen, "true", true, y + 6, x, colour, edges)
    pen.text((_LEFT, y + 2), "0 s", fill=INK, font=font)
    pen.text((right, y + 2), f"{length:.1f} s", fill=INK, font=font, anchor="ra")
    for row, name in enumerate(names[: len(COLOURS)]):
        at = y + 22 + 18 * row
        pen.rectangle((_LEFT, at + 3, _LEFT + 12, at + 11), fill=colour[name])
        pen.text((_LEFT + 18, at), shorten(name, font, right - _LEFT - 18), fill=INK, font=font)
    return page


def _rows(pen, word, lanes, y, x, colour, edges) -> int:
    """Draw the lanes of bars below each other; return where the next thing may stand."""
    font = font_of(11)
    if lanes:
        pen.text((_LEFT - 6, y + _ROW / 2), word, fill=INK, font=font, anchor="rm")
    for lane in lanes:
        for event in lane:
            left, right = x(event.start), max(x(event.start) + 2, x(event.end))
            edge = edges.get(id(event))
            pen.rectangle(
                (left, y + 2, right, y + _ROW - 3),
                fill=colour.get(event.label, OTHER),
                outline=edge,
                width=2 if edge else 0,
            )
            if right - left > 24:
                pen.text((left + 4, y + 2), shorten(event.label, font, right - left - 6), fill=PAPER, font=font)
        y += _ROW
    return y


def _lanes(events: Sequence[Event], most: int = 6) -> list[list[Event]]:
    """Put events into lanes in which none lies on another, the first ones first; what needs more lanes is left out."""
    lanes: list[list[Event]] = []
    for event in events:
        free = next((lane for lane in lanes if all(event.end <= e.start or event.start >= e.end for e in lane)), None)
        if free is not None:
            free.append(event)
        elif len(lanes) < most:
            lanes.append([event])
    return lanes


def _same(a: Event, b: Event) -> bool:
    both = min(a.end, b.end) - max(a.start, b.start)
    return a.label == b.label and both >= MATCHED * (max(a.end, b.end) - min(a.start, b.start))


def _edges(events: Sequence[Event], truth: Sequence[Event]) -> dict[int, tuple[int, int, int]]:
    """Give the edge of each event, by its identity: found one or not, each true one once, best first; and of those missed."""
    edges: dict[int, tuple[int, int, int]] = {}
    free = list(truth)
    for event in events:
        own = next((one for one in free if _same(event, one)), None)
        edges[id(event)] = FALSE if own is None else FOUND
        free = [one for one in free if one is not own]
    return edges | {id(one): MISSED for one in free}
