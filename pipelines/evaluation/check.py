"""A look at a data folder, or at the data of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.storage import is_remote

from ...cluster import checkpoint
from ...tasks.check import check as check_folder
from ...tasks.checked import Check
from ...tasks.table import rows
from ..recipe import plugin as plugins
from ..recipe.plain import from_plain
from ..runs.run import Run


def check(
    folder: str | Path,
    *,
    task: str = "",
    format: str = "auto",
    masks: bool = False,
    classes: Sequence[str] | None = None,
    loaders: int | None = None,
    progress: bool = True,
    plugin: str | Path | None = None,
    strict: bool = False,
) -> Check:
    """Decode and validate a whole data set, in parallel: a folder of data, or what a run trains on.

    task      which task, for a run of several, or where several read a format (VOC's objects, or its masks)
    format    how the data is laid out (folders, coco, voc, …); auto: told from the folders' names, for a run by its recipe
    masks     for VOC's format, look at the masks
    classes   the names to expect; for a run by default those that it learnt
    loaders   processes that decode (none: one a core; 0: this one, which a crashing decoder ends)
    strict    what would be mended in the data is a problem
    plugin    the recipe file that defines the run's task, if the task is your own

    Raises DataError where the folder is missing or its layout is unknown. Raises RecipeError where a run lacks the task, has
    several and `task` names none, or has one that checks no folders. Everything else is in the result.
    """
    if plugin:
        plugins.load(plugin)
    settings: dict[str, Any] = {"classes": classes, "loaders": loaders, "progress": progress, "strict": strict}
    if is_remote(folder) or not Run(folder).exists():
        return check_folder(folder, format=format, masks=masks, task=task, **settings)
    run = Run(folder)
    recipe = from_plain(run.recipe["resolved"])
    known = ", ".join(recipe.tasks)
    if task and task not in recipe.tasks:
        raise RecipeError(f"task={task}: {folder} has no such task{nearest(task, recipe.tasks)}; give one of {known}")
    if not task and len(recipe.tasks) > 1:
        raise RecipeError(f"{folder}: has several tasks: say which with task=, one of {known}")
    name = task or next(iter(recipe.tasks))
    options, row = recipe.tasks[name], rows()[name]
    if not row.check:
        raise RecipeError(
            f"{folder}: the task {name} has no look of its own at whole folders; its reader tells what it finds"
        )
    settings["classes"] = classes or _learnt(run, name)
    own = getattr(options, "format", row.formats[0] if row.formats else "")
    return check_folder(options.data, format=own if format == "auto" else format, task=name, **settings)


def _learnt(run: Run, task: str) -> Sequence[str] | None:
    """Read the class names that a run's newest checkpoint has for a task; None without a checkpoint or names."""
    name = checkpoint.find(run.checkpoints)
    state = checkpoint.read_state(run.checkpoints / name, "facts") if name else {"facts": {"tasks": {}}}
    return state["facts"]["tasks"].get(task, {}).get("classes")
