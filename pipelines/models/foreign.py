"""A network of spandrel as a model of the super-resolution task: for prediction and scoring."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trunkline.ground.errors import RecipeError

from ...backbones.super_resolution.spandrel_door import load_spandrel
from ...backbones.table import SPANDREL
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe

TASK = "super_resolution"
"""The task that such a network is for."""


def is_foreign(source: Any) -> bool:
    """Say whether a source names a file that spandrel opens."""
    return str(source).startswith(SPANDREL)


def from_spandrel(
    source: str, choose: Callable[[str, dict[str, Any]], Any], make: Callable[..., Task]
) -> tuple[Recipe, Task, Model, dict[str, Any]]:
    """Build the model of `spandrel:FILE`, and what `Facts` are made of, by name.

    `choose` makes the task's options from what the file says (its scale), and `make` the task. Raises RecipeError where a
    scale was asked for that the network does not have, WeightsError where the file cannot be used.
    """
    if TASK not in known_tasks():
        raise RecipeError(f"{source}: networks of spandrel are for the task {TASK}, which is not here")
    trunk = load_spandrel(source)
    options = choose(TASK, {"scale": trunk.scale})
    if options.scale != trunk.scale:
        raise RecipeError(f"scale={options.scale}: {source} enlarges {trunk.scale} times; leave scale= out")
    task = make(TASK, options, trunk.preprocessing, {})
    model = Model(trunk, {TASK: task.head(trunk)}, trunk.preprocessing)  # type: ignore[dict-item]
    facts = {"arch": trunk.arch, "stride_in": trunk.stride_in, "preprocessing": asdict(trunk.preprocessing),
             "tasks": {TASK: task.facts}, "loaded": "; ".join([str(trunk.report), *trunk.remarks])}  # fmt: skip
    return Recipe({TASK: options}, Network(backbone=source)), task, model, facts
