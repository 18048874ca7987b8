"""A look at a data folder, or at the data of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named, nearest
from trunkline.ground.storage import at_home, is_remote

from ...cluster import checkpoint
from ...tasks.check import check as check_folder
from ...tasks.check import task_of
from ...tasks.checked import Check
from ...tasks.table import kind_of, rows
from ...tasks.table import options as known_options
from ..recipe import plugin as plugins
from ..recipe.convert import attempt, convert
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
    options: dict[str, Any] | None = None,
) -> Check:
    """Decode and validate a whole data set, in parallel: a folder of data, or what a run trains on.

    Any option of the task that decides how its data is read can be given too (depth=, exif=, categories=, void=); of a run
    they are by default as it has them.

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
    folder = at_home(folder)
    if plugin:
        plugins.load(plugin)
    settings: dict[str, Any] = {"classes": classes, "loaders": loaders, "progress": progress, "strict": strict}
    if is_remote(folder) or not Run(folder).exists():
        name, _ = task_of(folder, format, masks, task)
        own = _typed(name, options or {})
        return check_folder(folder, format=format, masks=masks, task=task, **settings, **own)
    run = Run(folder)
    recipe = from_plain(run.recipe["resolved"])
    known = ", ".join(recipe.tasks)
    if task and task not in recipe.tasks:
        raise RecipeError(f"task={task}: {folder} has no such task{nearest(task, recipe.tasks)}; give one of {known}")
    if not task and len(recipe.tasks) > 1:
        raise RecipeError(f"{folder}: has several tasks: say which with task=, one of {known}")
    name = task or next(iter(recipe.tasks))
    own = recipe.tasks[name]
    kind = kind_of(name, own)
    row = rows()[kind]
    if not row.check:
        raise RecipeError(
            f"{folder}: the task {name} has no look of its own at whole folders; its reader tells what it finds"
        )
    settings["classes"] = classes or _learnt(run, name)
    form = getattr(own, "format", row.formats[0] if row.formats else "") if format == "auto" else format
    plain = type(own)()
    given = {key: value for key in row.looks_by if (value := getattr(own, key)) != getattr(plain, key)}
    return check_folder(own.data, format=form, task=kind, **settings, **given | _typed(kind, options or {}))


def _typed(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """Convert options that are given as text. Raises RecipeError with each that is of another type."""
    hints, problems, found = get_type_hints(load_named(known_options()[task])), [], {}
    for key, value in given.items():
        attempt(
            problems,
            found,
            key,
            lambda key=key, value=value: convert(hints[key], value, key) if key in hints else value,
        )
    if problems:
        raise RecipeError(problems)
    return found


def _learnt(run: Run, task: str) -> Sequence[str] | None:
    """Read the class names that a run's newest checkpoint has for a task; None without a checkpoint or names."""
    name = checkpoint.find(run.checkpoints)
    state = checkpoint.read_state(run.checkpoints / name, "facts") if name else {"facts": {"tasks": {}}}
    return state["facts"]["tasks"].get(task, {}).get("classes")
