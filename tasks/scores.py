"""The result of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Scores:
    """The result of an evaluation: `metrics` by name, `intervals` (95 %, low and high) and `details` for reports.

    `headline` names the metrics that one line for people shows; where it is empty, all of them. Of `details` a report
    shows `class_ap`, `mask_class_ap`, `class_iou`, `class_accuracy`, `precision`, and draws the samples of `examples`.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    headline: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Metrics at the top level under their names; the rest under `intervals`, `details` and `samples`."""
        rest = asdict(self)
        rest.pop("headline")
        return {**rest.pop("metrics"), **rest}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{value:.4f}</td><td>{_interval(self.intervals.get(name))}</td></tr>"
            for name, value in self.metrics.items()
        )
        return f"<table><tr><th>metric</th><th>value</th><th>95 % interval</th></tr>{rows}</table>"


def joined(scores: Mapping[str, Scores]) -> Scores:
    """Several tasks' scores as one: metrics as `task/metric`, details by task. One task's stay as they are."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return Scores(
        {f"{task}/{name}": value for task, own in scores.items() for name, value in own.metrics.items()},
        {f"{task}/{name}": ends for task, own in scores.items() for name, ends in own.intervals.items()},
        {task: own.details for task, own in scores.items()},
        sum(own.samples for own in scores.values()),
        tuple(f"{task}/{name}" for task, own in scores.items() for name in (own.headline or own.metrics)),
    )


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.4f} to {pair[1]:.4f}"
