"""What `evaluate` and `predict` start from: a run's folder or a weights file, made ready to compute."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named, nearest
from trunkline.ground.storage import is_remote

from ...cluster import checkpoint
from ...tasks.options import belonging, followed, hint_of, reset
from ...tasks.table import kind_of
from ...tasks.table import options as known_options
from ..recipe.convert import convert
from ..recipe.fields import Machine, Network
from ..recipe.limits import check_options
from ..runs.machine import check_device, resolve_machine
from ..runs.run import Run
from .assembly import Facts, Ready, assemble, task_class
from .blend import blend_of, mix_in, refuse_foreign
from .build import build, from_weights, held_by
from .bundle import Bundle, read_bundle
from .foreign import TASK as FOREIGN
from .foreign import is_foreign
from .opened import checkpoint_of, folder_of, has_checkpoint_with, recipe_of, weights_of


@dataclass(frozen=True)
class Source:
    """A run's folder or a weights file, what of it is wanted, and on which device. It travels to workers as JSON.

    task        of a run of several, which one; empty: the only one
    tasks       or which ones, on one model; `all`: all of them
    checkpoint  of a run: last, best or a number; `ema` true: averaged weights, false: raw ones, None: averaged if there
    backbone, stride_in  what a file does not say of its network
    weights_key  which network of a file that holds several
    classes     names for the outputs of a file's head that has none
    options     fields of the task's options that replace the stored ones
    files       whether files are predicted: then there is no data set, and options of one are refused
    blend       FILE:SHARE, a network that is mixed in; empty: none
    """

    source: str
    task: str = ""
    checkpoint: str = "last"
    ema: bool | None = None
    device: str = "auto"
    threads: int | None = None
    backbone: str | None = None
    stride_in: Any = None
    weights_key: str = ""
    classes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    files: bool = False
    blend: str = ""
    tasks: tuple[str, ...] = ()


def ready(source: Source) -> Ready:
    """Load a run's checkpoint (`last`, `best` or a number; averaged weights where there are any), or a weights file.

    `options` replace fields of the task's options, as text or as values; with other `data`, fields that say how the run's
    own data is laid out return to their defaults. Options of training alone are refused. `blend` mixes the weights with
    another network's: of a run, its last checkpoint's. Raises RecipeError where a folder holds no run, a setting does not fit or
    two networks do not go together, WeightsError where the source is no file that can be used.
    """
    blend = blend_of(source.blend) if source.blend else None
    if blend:
        refuse_foreign(source.source, blend)
    path = fetched(source.source)
    machine, _ = resolve_machine(
        Machine(device=source.device, threads="auto" if source.threads is None else source.threads)
    )
    check_device(machine.device)
    if folder_of(path):
        if given := [name for name in ("backbone", "stride_in", "weights_key", "classes") if getattr(source, name)]:
            raise RecipeError(f"{source.source}: is a run, which says it itself; leave {' and '.join(given)} out")
        found = _from_run(Run(path), source)
    elif source.checkpoint != "last" or source.ema is not None:
        raise RecipeError(f"{source.source}: is a file; checkpoint= and ema= are for runs")
    elif (bundle := _bundle(source)) is not None:
        found = _from_bundle(bundle, source)
    else:
        if source.task or source.tasks:
            key = "task" if source.task else "tasks"
            raise RecipeError(f"{source.source}: is a file, which holds one task; {key}= is for runs")

        def choose(name: str, said: dict[str, Any]) -> Any:
            own = load_named(known_options()[name])()
            return changed_options(name, replace(own, **said), source.options, source.files)

        network = Network(source.backbone, stride_in=source.stride_in, weights_key=source.weights_key)
        recipe, task, model, facts = from_weights(source.source, network, choose, tuple(source.classes))
        found = Ready(model, task, recipe, facts, {"source": source.source})
    import torch

    from ...cluster.engines.memory_format import place

    if isinstance(machine.threads, int) and machine.device == "cpu":
        torch.set_num_threads(machine.threads)
    place(found.model, machine.device, machine.channels_last is True).eval()
    found.recipe = replace(found.recipe, machine=machine)
    if blend:
        mix_in(found, ready(_mixed_in(source, blend.source, found.task.name)), blend)
    return found


def _mixed_in(source: Source, other: str, task: str) -> Source:
    """Say how the network that is mixed in is loaded: what a file does not say of itself, it shares with the first."""
    data = {key: value for key, value in source.options.items() if key == "data"}
    where = Source(other, device=source.device, threads=source.threads, options=data, files=source.files)
    if is_remote(other) or folder_of(other):
        return replace(where, task=task)
    return replace(where, backbone=source.backbone, stride_in=source.stride_in, weights_key=source.weights_key,
                   classes=source.classes)  # fmt: skip


def changed_options(
    name: str, own: Any, given: dict[str, Any], files: bool = False, asked: Collection[str] = ()
) -> Any:
    """Replace the given fields of a task's options. `asked` are the keys as they were asked for, where they name the task.

    Raises RecipeError with each that is unknown, out of its range, of training alone or, for `files`, of a data set or of scores.
    """
    hints = get_type_hints(type(own))
    idle, data = belonging(own, "training"), {"data", *belonging(own, "data")} if files else set()
    scores = belonging(own, "scores") if files else set()
    full = {key: f"{name}.{key}" if f"{name}.{key}" in asked else key for key in given}
    said = {key: f"{full[key]}={value}" for key, value in given.items()}
    whose = {key: "this task" if full[key] == key else f"the task {name}" for key in given}
    problems = [
        f"{said[key]}: there is no such setting{nearest(key, hints)}; {whose[key]} has {', '.join(hints)}"
        for key in given
        if key not in hints
    ]
    problems += [f"{said[key]}: only training reads it; leave it out" for key in given if key in idle]
    problems += [f"{said[key]}: is of a data set, and here are files; leave it out" for key in given if key in data]
    problems += [f"{said[key]}: only scores read it; leave it out" for key in given if key in scores]
    values = reset(own) if given.get("data") else {}
    for key, value in given.items():
        if key in hints:
            try:
                values[key] = convert(hints[key], value, full[key])
            except RecipeError as error:
                problems += [problem + hint_of(own, key) for problem in error.problems]
    if problems:
        raise RecipeError(problems)
    changed = replace(own, **values, **followed(own, values))
    try:
        check_options(name, changed)
    except RecipeError as error:
        found = [(problem.partition("=")[0], problem) for problem in error.problems]
        raise RecipeError([full.get(key, key) + problem[len(key) :] for key, problem in found]) from None
    return changed


def tasks_of(source: Source) -> dict[str, Any]:
    """Load the classes of the tasks that a source holds, by name, before anything is built; `task` picks one of a run's.

    Raises RecipeError where a file holds no task's head, or a run has not this task.
    """
    if is_foreign(source.source):
        return {FOREIGN: task_class(FOREIGN)}
    path, task = fetched(source.source), source.task
    bundle = None if folder_of(path) else _bundle(source)
    if folder_of(path) or bundle:
        run = Run(path)
        held = bundle.recipe if bundle else recipe_of(run, checkpoint_of(run, source.checkpoint)[1])
        names = {name: kind_of(name, own) for name, own in held.tasks.items()}
        if task and task not in names:
            went = "" if bundle else _went(run, task)
            raise RecipeError(
                f"task={task}: {source.source} has no such task{nearest(task, names)}; it has {', '.join(names)}{went}"
            )
        return {name: task_class(names[name]) for name in ([task] if task else names)}
    weights = weights_of(source.source, source.backbone, source.stride_in, source.weights_key)
    held = held_by(source.source, weights)
    return {held.task: task_class(held.task)}


def _went(run: Run, task: str) -> str:
    """Say when a task joined or left a run, and whether a checkpoint has it; "" where it never did."""
    said = [
        f"it {word} at update {change['update']}"
        for change in run.recipe.get("changes", ())
        for word, names in (("joined", change["added"]), ("left", change["removed"]))
        if task in names
    ]
    if not said:
        return ""
    if has_checkpoint_with(run, task):
        return f" ({', '.join(said)}: checkpoint= chooses one with it)"
    if task in run.recipe["resolved"]["tasks"]:
        return f" ({', '.join(said)}, and no checkpoint has it yet: go on with the run until one is saved)"
    return f" ({', '.join(said)}, and no checkpoint with it is left)"


def task_kind(source: Source) -> Any:
    """Load the class of the one task that is asked for. Raises RecipeError where a run has several and none is named."""
    return next(iter(_one_task(source).values()))


def _one_task(source: Source) -> dict[str, Any]:
    found = tasks_of(source)
    if len(found) > 1:
        raise RecipeError(
            f"{source.source}: has several tasks: say which with task=, one of {', '.join(found)}; tasks=all takes all of them"
        )
    return found


def chosen(source: Source) -> list[str]:
    """List the tasks that a source asks for: those of `tasks`, or the one of `task`, or the only one.

    Raises RecipeError where a run has several and none is named, or one is named twice or is not there.
    """
    if not source.tasks:
        return [*_one_task(source)]
    if source.task:
        raise RecipeError(f"task={source.task} and tasks={','.join(source.tasks)} say both which: give one of them")
    there = [*tasks_of(source)]
    names = there if [*source.tasks] == ["all"] else [*source.tasks]
    given = f"tasks={','.join(source.tasks)}"
    if unknown := [name for name in names if name not in there]:
        near = nearest(unknown[0], there)
        raise RecipeError(f"{given}: {source.source} has no task {unknown[0]}{near}; it has {', '.join(there)}, or all")
    if len(set(names)) < len(names):
        raise RecipeError(f"{given}: a task stands there twice")
    return names


def options_of(given: dict[str, Any], tasks: dict[str, Any], others: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Give each of several tasks the options that are meant for it: `TASK.KEY`, or a KEY that only one of them has.

    `tasks` are their own options, by name; `others` names all tasks that could have been chosen. Raises RecipeError for a key
    that several have, or that is of a task which is not chosen.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    problems = []
    for key, value in given.items():
        name, dot, rest = key.partition(".")
        if dot and name in found:
            found[name][rest] = value
            continue
        if dot:
            there = others or found
            problems.append(
                f"{key}={value}: {name} is not among the chosen tasks, {', '.join(found)}: choose it too, or leave this out"
                if name in there
                else f"{key}={value}: there is no task {name}{nearest(name, there)}; there are {', '.join(there)}"
            )
            continue
        having = [task for task, own in tasks.items() if hasattr(own, key)] if len(tasks) > 1 else [*tasks]
        if len(having) == 1:
            found[having[0]][key] = value
        else:
            said = " and ".join(f"{task}.{key}=" for task in having or tasks)
            problems.append(f"{key}={value}: {'several tasks have it' if having else 'no task has it'}; give {said}")
    if problems:
        raise RecipeError(problems)
    return found


def fetched(source: str | Path) -> Path:
    """Return the path of a run's folder or a file; fetch a run at an address first. Raises RecipeError where none is there."""
    if not is_remote(source):
        return Path(source)
    run = Run(source)
    run.pull()
    if not run.exists():
        raise RecipeError(f"{source}: there is no run")
    return run.path


def _same_network(run: Any, own: Any, changed: Any) -> None:
    """Raise RecipeError where options that decide a network's layers are not those that the run was trained with."""
    pairs = [(key, getattr(own, key), getattr(changed, key)) for key in sorted(belonging(own, "network"))]
    if wrong := [
        f"{run}: was trained for {key}={was}, and {key}={now} was asked for: leave {key}= out"
        for key, was, now in pairs
        if was != now
    ]:
        raise RecipeError(wrong)


def _bundle(source: Source) -> Bundle | None:
    """Read the file for all tasks that a source names; None where it is another file, or one of its tasks is meant."""
    return None if source.weights_key else read_bundle(Path(source.source))


def _from_bundle(bundle: Bundle, source: Source) -> Ready:
    """Build the model of a file for all tasks, each with its own options but for those that are given."""
    recipe, names = bundle.recipe, chosen(source)
    for task, own in options_of(source.options, {name: recipe.tasks[name] for name in names}, recipe.tasks).items():
        options = changed_options(task, recipe.tasks[task], own, source.files, [*source.options])
        _same_network(bundle.source, recipe.tasks[task], options)
        recipe = replace(recipe, tasks={**recipe.tasks, task: options})
    tasks, model, facts = assemble(recipe, facts=bundle.facts)
    model.load_state_dict(bundle.tensors)
    origin = {"source": source.source, "update": bundle.update, "task": names[0]}
    return Ready(model, tasks[names[0]], recipe, facts, origin, tasks)


def _from_run(run: Run, source: Source) -> Ready:
    name = source.checkpoint
    folder, state = checkpoint_of(run, name)
    recipe = recipe_of(run, state)
    names = chosen(replace(source, source=str(run.path)))
    given = options_of(source.options, {name: recipe.tasks[name] for name in names}, recipe.tasks)
    for task, own in given.items():
        options = changed_options(task, recipe.tasks[task], own, source.files, [*source.options])
        _same_network(run.path, recipe.tasks[task], options)
        recipe = replace(recipe, tasks={**recipe.tasks, task: options})
    tasks, model, facts = build(recipe, Facts(**state["facts"]))
    task = names[0]
    has = (folder / "ema.safetensors").is_file()
    if source.ema and not has:
        raise RecipeError(f"{run.path}: keeps no averaged weights (average.decay is 0); leave ema=true out")
    use = has if source.ema is None else source.ema
    tensors = checkpoint.read_tensors(folder / ("ema.safetensors" if use else "model.safetensors"))
    checkpoint.check_tensors(folder, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    model.preprocessing = tasks[task].preprocessing
    origin = {"source": str(run.path), "checkpoint": name if name == "best" else folder.name, "update": state["update"]}
    if len(tasks) > 1:
        origin["task"] = task
    return Ready(model, tasks[task], recipe, facts, origin | {"weights": "ema" if use else "raw"}, tasks)
