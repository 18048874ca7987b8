"""How far a run has come, as a checkpoint keeps it; and the metric that says which weights are the best."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest

from ...tasks.contract import Evaluator
from ...tasks.scores import metrics_of
from ..evaluation.changes import CHANGE


@dataclass
class Progress:
    """The phase that goes on, the lengths of those that are over, scores so far, and the best of them.

    `over` has the length of each phase that is over, and the updates that it did; `stale` counts the evaluations without
    a better metric; `total` is the number of updates up to the end of the phase. `begun` and `ended` have, by task, the update
    of this phase from which on, and before which, it takes part, where that is not all of it. `named` says whether the order
    of a task's samples is drawn with its name, as of several, which stays so while others come and go.
    """

    phase: int = 0
    over: list[list[int]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    stale: int = 0
    total: int = 0
    begun: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    named: dict[str, bool] = field(default_factory=dict)
    patient: dict[str, list[float]] = field(
        default_factory=dict
    )  # by task: its best value, and evaluations without a better

    @classmethod
    def of(cls, state: Mapping[str, Any] | None) -> "Progress":
        """Read the progress from a checkpoint's state; begin anew where there is none."""
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state}) if state else cls()

    def tire(self, task: str, value: float | None, lower: bool, patience: int, update: int) -> bool:
        """Count a task's evaluation, and say whether it learns no more from here on, `update` of the phase."""
        best, stale = self.patient.get(task, [None, 0])
        better = value is not None and (best is None or (value < best if lower else value > best))
        self.patient[task] = [value if better else best, 0 if better else stale + 1]  # type: ignore[list-item]
        if self.patient[task][1] < patience or task in self.ended:
            return False
        self.ended[task] = update
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the progress as plain data."""
        return asdict(self)

    def take(self, update: int, metrics: Mapping[str, float | None], metric: str, lower: bool) -> bool:
        """Keep an evaluation's metrics, and say whether its `metric` is the best so far; a missing one never is."""
        value, best = metrics.get(metric), self.best
        best = None if best and best["metric"] != metric else best  # the task that it was of is gone
        better = value is not None and (best is None or (value < best["value"] if lower else value > best["value"]))
        if better:
            self.best = {"update": update, "value": value, "metric": metric}
        if metric in metrics:  # else its task is not scored each time
            self.stale = 0 if better else self.stale + 1
        self.scores.append({"update": update, "metrics": dict(metrics)})
        return better


def choose_metric(
    asked: str, evaluators: Mapping[str, Evaluator], classes: int = 0, also: Sequence[str] = ()
) -> tuple[str, bool]:
    """Choose the metric that names the best checkpoint, and say whether smaller is better.

    `asked` is a metric's name; with several tasks `task/metric`, or a name that only one of them has; empty: the first
    metric of the first task. `also` are further metrics, of which larger is better. Raises RecipeError where there is no
    such metric, or several tasks have it.
    """
    several = len(evaluators) > 1
    names = {
        f"{task}/{name}" if several else name: metric.better == "lower"
        for task, evaluator in evaluators.items()
        for name, metric in metrics_of(evaluator).items()
    }
    if not asked:
        return next(iter(names.items()))
    names |= dict.fromkeys(also, False)
    found = [asked] if asked in names else [name for name in names if several and name.partition("/")[2] == asked]
    if len(found) == 1:
        return found[0], names[found[0]]
    if found:
        raise RecipeError(f"evaluation.metric={asked}: several tasks have it; give one of {', '.join(found)}")
    if asked in (CHANGE, CHANGE.partition("/")[2]):
        needs = (
            "evaluation.single.NAME=RUN, what a run of a task alone reached, for one task or more"
            if several
            else "several tasks"
        )
        raise RecipeError(f"evaluation.metric={asked}: needs {needs}; without it there are {', '.join(names)}")
    tasks = "no task has" if several else "the task has no"
    where = f" for these {classes} classes" if classes else ""
    raise RecipeError(
        f"evaluation.metric={asked}: {tasks} such metric{where}; there are {', '.join(names)}{nearest(asked, names)}"
    )
