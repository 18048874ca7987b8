"""The mean relative change of a run's tasks against runs of each alone: one number that says whether sharing helped."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.storage import at_home

from ...tasks.contract import Evaluator
from ...tasks.scores import Metric, Scores, metrics_in, metrics_of
from ..recipe.fields import MEAN_CHANGE, Recipe
from ..runs.run import Run

CHANGE = MEAN_CHANGE
ABOUT_CHANGE = Metric("Mean change against single runs", "percent", signed=True)


def with_singles(recipe: Recipe) -> Recipe:
    """Replace each run that `evaluation.single` names by the metric and the value that it reached, as `AP50:0.71`.

    Raises RecipeError for a folder that holds no scores.
    """
    found, problems = {}, []
    for task, text in recipe.evaluation.single.items():
        try:
            found[task] = _read(task, str(text))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return replace(recipe, evaluation=replace(recipe.evaluation, single=found)) if found else recipe


def _read(task: str, text: str) -> str:
    given = f"evaluation.single.{task}={text}"
    number = _number(text.rpartition(":")[2])
    if number is not None:
        if not _divides(number):
            raise RecipeError(
                f"{given}: {_NO_CHANGE}; give a number that is finite and not 0, another metric (METRIC:NUMBER), or leave "
                f"{task} out of evaluation.single"
            )
        return text
    folder = run_in(text) or Path(at_home(text))
    metric = "" if str(folder) == str(Path(at_home(text))) else text.rpartition(":")[2]
    file = folder / "scores.json"
    try:
        own = metrics_in(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        raise RecipeError(
            f"{given}: expected a number, METRIC:NUMBER, or the folder of a run that has ended (FOLDER or FOLDER:METRIC)"
        ) from None
    tasks = [*Run(folder).recipe["resolved"].get("tasks", {})] if Run(folder).exists() else []
    if len(tasks) > 1 or any("/" in name for name in own):
        held = f"the tasks {', '.join(tasks)}" if tasks else "several tasks"
        raise RecipeError(
            f"{given}: that run has {held} on one trunk, so that it does not say what {task} reached alone: give a run of "
            f"this task only, or METRIC:NUMBER, or leave {task} out of evaluation.single"
        )
    name = metric or next(iter(own), "")
    if (value := own.get(name)) is None:
        raise RecipeError(f"{given}: that run has no {name or 'metric'}{nearest(name, own)}; it has {', '.join(own)}")
    if not _divides(value):
        others = ", ".join(n for n, v in own.items() if v is not None and _divides(v))
        raise RecipeError(
            f"{given}: {file} says {name}={value:g}, and {_NO_CHANGE}; "
            + (f"name another metric ({folder}:METRIC, one of {others}), or " if others else "")
            + f"leave {task} out of evaluation.single"
        )
    return f"{name}:{value!r}"


def run_in(text: str) -> Path | None:
    """Find the folder that a value of `evaluation.single` names, RUN or RUN:METRIC; None for a number."""
    path, _, last = text.rpartition(":")
    if _number(last) is not None:
        return None
    whole = Path(at_home(text))
    return Path(at_home(path)) if path and not whole.exists() else whole


_NO_CHANGE = "a change in proportion to it says nothing"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _divides(number: float) -> bool:
    """Say whether a change can be told in proportion to a number."""
    return number != 0 and math.isfinite(number)


def single_problems(recipe: Recipe, evaluators: Mapping[str, Evaluator]) -> list[str]:
    """List what is wrong with `evaluation.single`: metrics that a task does not have."""
    problems = []
    for task, text in recipe.evaluation.single.items():
        metric, own = text.rpartition(":")[0], metrics_of(evaluators[task])
        if metric and metric not in own:
            problems.append(
                f"evaluation.single.{task}={text}: the task has no {metric}{nearest(metric, own)}; it has {', '.join(own)}"
            )
    return problems


def with_change(scores: Scores, recipe: Recipe, evaluators: Mapping[str, Evaluator]) -> Scores:
    """Add the mean relative change to the scores of several tasks, where single runs are named.

    It is left out where one of these tasks was not scored this time, and None where its metric could not be measured.

    It is the mean over these tasks of (m - s) / s, for m the task's metric here and s in its single run; the sign is turned
    where smaller is better (Vandenhende et al. 2021, section 4).
    """
    if not recipe.evaluation.single:
        return scores
    changes = []
    for task, text in recipe.evaluation.single.items():
        own = metrics_of(evaluators[task])
        name, single = reached_alone(text, own)
        if f"{task}/{name}" not in scores.metrics:
            return scores
        changes.append(change_of(scores.metrics.get(f"{task}/{name}"), single, own[name]))
    whole = None if None in changes else sum(c for c in changes if c is not None) / len(changes)
    return replace(scores, metrics={CHANGE: whole, **scores.metrics}, headline=(CHANGE, *scores.headline))


def reached_alone(text: str, metrics: Mapping[str, Metric]) -> tuple[str, float]:
    """Read what a recipe says that a task reached alone: the metric (the task's first where none is named) and its value."""
    name, _, number = text.rpartition(":")
    return name or next(iter(metrics), ""), float(number)


def change_of(value: float | None, single: float, about: Metric) -> float | None:
    """Compute a metric's change in proportion to the single run's, above 0 where it is better; None where it is not there."""
    sign = -1 if about.better == "lower" else 1
    return None if value is None else sign * (value - single) / abs(single)


def change_said(scores: Scores) -> str:
    """Write the mean relative change as a line of its own; "" where there is none."""
    if CHANGE not in scores.metrics:
        return ""
    value, title = scores.metrics[CHANGE], ABOUT_CHANGE.title
    return f"\n  {title[0].lower()}{title[1:]}: {'none' if value is None else f'{value:+.1%}'}"
