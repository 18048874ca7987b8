"""What a run's `shown.json` says of its tasks: the word for a sample, what the metrics are, and the blocks of a report."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ...tasks.scores import NOT_THERE, Block, Metric, fields_of, metrics_in
from .figures import number

ALL = ""
"""The name in `shown.json` of what belongs to all tasks together, where there are several: blocks alone."""


@dataclass(frozen=True)
class Learns:
    """How a task learnt beside others: its samples by split, what an update takes of it on average, and what that counts.

    batches    how many of its batches, of `size` samples in micro-batches of `micro`; 0: it is only scored
    shares     the tasks that it shares batches with
    """

    train: int
    val: int
    batches: float
    size: int
    micro: int
    loss_weight: float
    shares: tuple[str, ...] = ()


@dataclass
class Shown:
    """What is said of one task. Where there are several, the names of its metrics begin with `prefix`."""

    task: str = ""
    unit: str = "samples"
    prefix: str = ""
    metrics: dict[str, Metric] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    learns: Learns | None = None

    def about(self, metric: str) -> Metric:
        """Describe a metric; where nothing is said of it, its name is its title."""
        name = metric.removeprefix(self.prefix)
        return self.metrics.get(name) or Metric(name)

    def own(self, scores: dict[str, Any]) -> list[str]:
        """List the names of the task's metrics in a document of scores."""
        return [name for name in metrics_in(scores) if name.startswith(self.prefix)]


def read_shown(document: Any, file: Path) -> tuple[list[Shown], list[Block]]:
    """Read what `shown.json` says of each task, and the blocks of all together.

    Without that file, return one task of which nothing is known. Raises RecipeError for a file that says something else.
    """
    if document is None:
        return [Shown()], []
    try:
        tasks = {task: said for task, said in document.items() if task != ALL}
        found = [
            Shown(
                task,
                said["unit"],
                f"{task}/" if len(tasks) > 1 else "",
                {name: Metric(**fields_of(Metric, about)) for name, about in said["metrics"].items()},
                [Block.from_json(block) for block in said["blocks"]],
                Learns(**fields_of(Learns, said["learns"])) if "learns" in said else None,
            )
            for task, said in tasks.items()
        ]
        return found, [Block.from_json(block) for block in document.get(ALL, {"blocks": []})["blocks"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{file}: does not say what a run shows ({error}); take it away to do without it") from None


def unit_of(shown: list[Shown]) -> str:
    """Return the word for a sample that all tasks share; else the one that fits all."""
    units = {one.unit for one in shown}
    return units.pop() if len(units) == 1 else Shown().unit


def tile(shown: Shown, metric: str, scores: dict[str, Any]) -> dict[str, str]:
    """Write a metric's title, its value and its interval, as people read them."""
    about, value, ends = shown.about(metric), scores[metric], scores.get("intervals", {}).get(metric)
    if value is None:
        return {"title": about.title, "value": NOT_THERE, "interval": ""}
    unit = {"": "", "percent": " %"}.get(about.unit, f" {about.unit}")
    between = "" if ends is None else f"{_value(ends[0], about).removesuffix(unit)} to {_value(ends[1], about)}"
    return {"title": about.title, "value": _value(value, about), "interval": between}


def _value(value: float, about: Metric) -> str:
    if about.signed:
        return f"{'+' if value > 0 else ''}{_value(value, replace(about, signed=False))}"
    if about.unit == "percent":
        return number(value, True)
    text = f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else number(value)
    return f"{text} {about.unit}".rstrip()
