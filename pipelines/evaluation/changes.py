"""The mean relative change of a run's tasks against runs of each alone: one number that says whether sharing helped."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.storage import at_home

from ...tasks.contract import Evaluator
from ...tasks.scores import Scores, metrics_in, metrics_of
from ..recipe.fields import Recipe

CHANGE = "all/mean_change"
"""The metric's name. No task can be called `all`."""


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
    metric, _, number = text.rpartition(":")
    if _is_number(number):
        return text
    given, folder = f"evaluation.single.{task}={text}", Path(at_home(text))
    metric = ""
    if not folder.exists() and ":" in text:
        path, _, metric = text.rpartition(":")
        folder = Path(at_home(path))
    try:
        scores = metrics_in(json.loads((folder / "scores.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise RecipeError(
            f"{given}: expected a number, METRIC:NUMBER, or the folder of a run that has ended (FOLDER or FOLDER:METRIC)"
        ) from None
    own = {
        name.removeprefix(f"{task}/"): value
        for name, value in scores.items()
        if "/" not in name or name.startswith(f"{task}/")
    }
    name = metric or next(iter(own), "")
    if own.get(name) is None:
        raise RecipeError(f"{given}: that run has no {name or 'metric'}{nearest(name, own)}; it has {', '.join(own)}")
    return f"{name}:{own[name]!r}"


def _is_number(text: str) -> bool:
    try:
        return float(text) != 0
    except ValueError:
        return False


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
    """Add the mean relative change to the scores of several tasks, where single runs are named; None where a task was not scored.

    It is the mean over these tasks of (m - s) / s, for m the task's metric here and s in its single run; the sign is turned
    where smaller is better (Vandenhende et al. 2021, section 4).
    """
    if not recipe.evaluation.single:
        return scores
    changes = []
    for task, text in recipe.evaluation.single.items():
        name, _, number = text.rpartition(":")
        own, single = metrics_of(evaluators[task]), float(number)
        name = name or next(iter(own))
        value = scores.metrics.get(f"{task}/{name}")
        sign = -1 if own[name].better == "lower" else 1
        changes.append(None if value is None else sign * (value - single) / abs(single))
    whole = None if None in changes else sum(c for c in changes if c is not None) / len(changes)
    return replace(scores, metrics={CHANGE: whole, **scores.metrics}, headline=(CHANGE, *scores.headline))


def change_said(scores: Scores) -> str:
    """Write the mean relative change as a line of its own; "" where there is none."""
    if CHANGE not in scores.metrics:
        return ""
    value = scores.metrics[CHANGE]
    return "\n  mean change against single runs: " + ("none" if value is None else f"{value:+.1%}")
