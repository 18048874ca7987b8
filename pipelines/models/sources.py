"""What `evaluate` and `predict` start from: a run's folder or a weights file, made ready to compute."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest
from trunkline.ground.storage import is_remote

from ...cluster import checkpoint
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.options import belonging, followed, reset
from ...tasks.table import options as known_options
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Machine, Network, Recipe
from ..recipe.knobs import convert, from_plain, load_named
from ..recipe.limits import check_options
from ..runs.machine import check_device, resolve_machine
from ..runs.run import STATE, Run
from .build import Facts, build, from_weights, weights_of


@dataclass
class Ready:
    """A model with its task, in evaluation mode on its device, and where it came from."""

    model: Model
    task: Task
    recipe: Recipe
    facts: Facts
    origin: dict[str, Any]  # source, checkpoint, update, weights (raw or ema)


def ready(
    source: str | Path,
    *,
    checkpoint_name: str = "last",
    averaged: bool | None = None,
    device: str = "auto",
    threads: int | None = None,
    options: dict[str, Any] | None = None,
    backbone: str | None = None,
    stride_in: Any = None,
    files: bool = False,
) -> Ready:
    """A run's checkpoint (`last`, `best` or a number; averaged weights where there are any), or a weights file.

    `options` replace fields of the task's options, as text or as values; of other `data`, what says how the run's own data
    is laid out does not hold. With `files` there is no data set, and options of one are refused, as are those of training
    always. Raises RecipeError where the source is neither a run nor a file, WeightsError where the file cannot be used.
    """
    path = fetched(source)
    machine, _ = resolve_machine(Machine(device=device, threads="auto" if threads is None else threads))
    check_device(machine.device)
    if path.is_dir():
        found = _from_run(Run(path), checkpoint_name, averaged, options or {}, files)
    else:
        if checkpoint_name != "last" or averaged is not None:
            raise RecipeError(f"{source}: is a file; checkpoint= and ema= are for runs")

        def choose(name: str, said: dict[str, Any]) -> Any:
            own = load_named(known_options()[name])()
            return with_options(name, replace(own, **said), options or {}, files)

        recipe, task, model, facts = from_weights(source, Network(backbone, stride_in=stride_in), choose)
        found = Ready(model, task, recipe, facts, {"source": str(source)})
    import torch

    from ...cluster.engines.memory_format import place

    if isinstance(machine.threads, int) and machine.device == "cpu":
        torch.set_num_threads(machine.threads)
    place(found.model, machine.device, machine.channels_last is True).eval()
    found.recipe = replace(found.recipe, machine=machine)
    return found


def with_options(name: str, own: Any, given: dict[str, Any], files: bool = False) -> Any:
    """The task's options with those that were given. Raises RecipeError for each that there is not, or out of its range."""
    hints = get_type_hints(type(own))
    idle, data = belonging(own, "training"), {"data", *belonging(own, "data")} if files else set()
    problems = [
        f"{key}={value}: there is no such setting{nearest(key, hints)}; this task has {', '.join(hints)}"
        for key, value in given.items()
        if key not in hints
    ]
    problems += [f"{key}={given[key]}: only training reads it; leave it out" for key in given if key in idle]
    problems += [
        f"{key}={given[key]}: is of a data set, and here are files; leave it out" for key in given if key in data
    ]
    values = reset(own) if given.get("data") else {}
    for key, value in given.items():
        if key in hints:
            try:
                values[key] = convert(hints[key], value, key)
            except RecipeError as error:
                problems += error.problems
    if problems:
        raise RecipeError(problems)
    changed = replace(own, **values, **followed(own, values))
    check_options(name, changed)
    return changed


def task_kind(source: str | Path) -> Any:
    """The class of the task that a source holds, before anything of it is built: the task that a run's recipe names first."""
    path = fetched(source)
    if path.is_dir():
        return load_named(known_tasks()[next(iter(from_plain(Run(path).recipe["resolved"]).tasks))])
    weights = weights_of(source)
    found = [kind for kind in map(load_named, known_tasks().values()) if weights and kind.reads(weights) is not None]
    if not found:
        raise RecipeError(
            f"{source}: holds no head with class names; give a run's folder, or the file of a classifier, detector or segmenter"
        )
    return found[0]


def fetched(source: str | Path) -> Path:
    """A run's folder or a file here; of a run at an address, what this process fetched of it."""
    if not is_remote(source):
        return Path(source)
    run = Run(source)
    run.pull()
    if not run.exists():
        raise RecipeError(f"{source}: there is no run")
    return run.path


def _from_run(run: Run, name: str, averaged: bool | None, options: dict[str, Any], files: bool) -> Ready:
    recipe = from_plain(run.recipe["resolved"])
    root = run.checkpoints
    known = checkpoint.find(root) if name == "last" else checkpoint.name_of(root, name) if name == "best" else name
    if not known or not (root / known / "state.json").is_file():
        there = sorted(p.name for p in root.glob("[0-9]*")) if root.is_dir() else []
        raise RecipeError(
            f"{run.path}: has no checkpoint {name!r}" + (f"; there are {', '.join(there)}" if there else " yet")
        )
    folder = root / known
    state = checkpoint.read_state(folder, *STATE)
    (task_name, kind), *_ = recipe.tasks.items()
    recipe = replace(recipe, tasks={task_name: with_options(task_name, kind, options, files)})
    tasks, model, facts = build(recipe, Facts(**state["facts"]))
    has = (folder / "ema.safetensors").is_file()
    if averaged and not has:
        raise RecipeError(f"{run.path}: keeps no averaged weights (average.decay is 0); leave ema=true out")
    use = has if averaged is None else averaged
    tensors = checkpoint.read_tensors(folder / ("ema.safetensors" if use else "model.safetensors"))
    checkpoint.check_tensors(folder, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    origin = {"source": str(run.path), "checkpoint": name if name == "best" else known, "update": state["update"]}
    return Ready(model, tasks[task_name], recipe, facts, origin | {"weights": "ema" if use else "raw"})
