"""What the report of several tasks says of them side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.changes import ABOUT_CHANGE, CHANGE, change_of, reached_alone
from .curves import colour
from .shown import Learns, Shown, tile

OF_ALL = Shown(prefix=CHANGE.partition("/")[0] + "/", metrics={CHANGE.partition("/")[2]: ABOUT_CHANGE})
"""What is said of all tasks together."""


def side_by_side(
    shown: list[Shown], main: str | None, scores: Mapping[str, Any], resolved: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Build a row for each task: its main metric, its data, and how it learns beside the others.

    `main` is the metric that chose the best checkpoint; of the other tasks it is each one's first.
    """
    rows = []
    for place, one in enumerate(shown):
        names = one.own(dict(scores))
        metric = main if main in names else next(iter(names), None)
        data = str(resolved.get("tasks", {}).get(one.task, {}).get("data") or "")
        rows.append({
            "name": one.task,
            "mark": f"task-{place}",
            "colour": colour(place),
            "metric": tile(one, metric, dict(scores)) if metric else None,
            "alone": _alone(one, metric, scores, resolved),
            "data": _short(data),
            "whole": data,
            **_learns(one.learns, one.unit),
        })  # fmt: skip
    return rows


def _alone(
    shown: Shown, main: str | None, scores: Mapping[str, Any], resolved: Mapping[str, Any]
) -> dict[str, str] | None:
    """Write what a run of the task alone reached and the change here; None where the recipe names none.

    The metric has its title where it is another than the main one beside it.
    """
    single = single_of(shown, resolved)
    if single is None:
        return None
    metric, reached = single
    found = tile(shown, metric, {metric: reached})
    change = change_of(scores.get(metric), reached, shown.about(metric))
    said = "" if change is None else tile(OF_ALL, CHANGE, {CHANGE: change})["value"] + " here"
    return {"title": "" if metric == main else found["title"], "value": found["value"], "change": said}


def single_of(shown: Shown, resolved: Mapping[str, Any]) -> tuple[str, float] | None:
    """Read which metric a run of the task alone was measured by, and what it reached; None where the recipe names none."""
    text = resolved.get("evaluation", {}).get("single", {}).get(shown.task)
    if text is None:
        return None
    name, reached = reached_alone(str(text), shown.metrics)
    return shown.prefix + name, reached


def changes_said(changes: Sequence[Mapping[str, Any]]) -> str:
    """Say which tasks came and went in a run, and when, as `recipe.json` keeps it; "" where none did."""
    return "; ".join(
        f"{' and '.join(change[which])} {word} at update {change['update']:,}"
        for change in changes
        for which, word in (("removed", "left"), ("added", "joined"))
        if change[which]
    )


def _short(data: str) -> str:
    """Shorten an address to its last two parts."""
    *before, above, last = ["", *data.rstrip("/").split("/")]
    return f"…/{above}/{last}" if any(before) else data


def _learns(learns: Learns | None, unit: str) -> dict[str, str]:
    """Say how a task learns, in words; of a run that does not tell, nothing."""
    if learns is None:
        return dict.fromkeys(("samples", "takes", "micro", "weight", "shares"), "")
    return {
        "samples": f"{learns.train:,} train, {learns.val:,} val",
        "takes": f"{learns.batches:.3g} × {learns.size} {unit}" if learns.batches else "nothing",
        "micro": f"micro-batches of {learns.micro}" if learns.batches else "it is only scored",
        "weight": f"{learns.loss_weight:g}",
        "shares": ", ".join(learns.shares) or ("no other" if learns.batches else ""),
    }
