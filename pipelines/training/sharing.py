"""What tasks must have in common to share a trunk, a batch, an update: checked before anything is trained."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from trunkline.ground.errors import Mistake, RecipeError

from ...backbones.contract import Preprocessing, within
from ...backbones.norm import per_task
from ...backbones.table import is_known, named
from ...cluster.engines.optimizer import multiples
from ...heads.model import Model, add_spreads
from ...tasks.contract import Task
from ...tasks.samples import Samples
from ..feeding.joint import Joint
from ..models.assembly import make_head
from ..recipe.fields import Recipe, learning_tasks, shared_groups
from .network import arch_in, on_meta


def shared_problems(recipe: Recipe, found: Mapping[str, tuple[Task, Samples]]) -> list[str]:
    """List what keeps the tasks of a group from one batch: other pixels, or no picture in common.

    `found` has each task with its training split.
    """
    problems = []
    for group in shared_groups(recipe):
        given = f"shared_batch={'+'.join(group)}"
        views = {name: found[name][0].view(True) for name in group}
        if lone := [name for name, view in views.items() if view is None or _plays_alone(found[name][0])]:
            problems += [f"{given}: {_unshared(found[name][0])}" for name in lone]
            continue
        first, *others = group
        problems += [
            f"{given}: {line}; a shared batch has one picture for all"
            for other in others
            for line in (
                *_differences(first, views[first], other, views[other]),
                *_read_apart(first, found[first][0].options, other, found[other][0].options),
            )
        ]
        if not problems:
            problems += _strangers(given, {name: found[name][1] for name in group})
    return problems


def _plays_alone(task: Task) -> bool:
    """Say whether the task's losses may be others than the model's, which are those of all parts of a shared batch."""
    return type(task).players is not Task.players


def _unshared(task: Task) -> str:
    if _plays_alone(task):
        return f"{task.name} computes its losses by players of its own, and a shared batch has one loss for all: leave it out"
    if hasattr(task.options, "view"):
        return f"{task.name} sees crops of its own: set tasks.{task.name}.view=fit with its size, or leave it out"
    return f"{task.name} makes its pictures in a way that no other task has: leave it out"


def _differences(first: str, one: Any, other: str, two: Any) -> list[str]:
    if one == two:
        return []
    if type(one) is not type(two) or not is_dataclass(one):
        return [f"{first} and {other} make their pictures in different ways"]
    names = [f.name for f in fields(one) if f.compare and getattr(one, f.name) != getattr(two, f.name)]
    return [
        f"tasks.{first}.{name}={getattr(one, name)} and tasks.{other}.{name}={getattr(two, name)} differ"
        for name in names
    ]


def _read_apart(first: str, one: Any, other: str, two: Any) -> list[str]:
    """Say which options let two tasks read other pixels of one file."""
    return [
        f"tasks.{first}.{name}={a or 'none'} and tasks.{other}.{name}={b or 'none'} differ"
        for name in ("depth", "exif")
        if (a := getattr(one, name, "")) != (b := getattr(two, name, ""))
    ]


def _strangers(given: str, samples: Mapping[str, Samples]) -> list[str]:
    """Say which task has no picture in common with the first; their data is read, which may be refused."""
    try:
        joint = Joint.of(list(samples.values()))
    except RecipeError as error:
        return [f"{given}: {line}" for line in error.problems]
    first = joint.rows[0] >= 0
    return [
        f"{given}: {name} has no picture in common with {next(iter(samples))}: give them the same data, or batches of their own"
        for name, rows in zip(samples, joint.rows, strict=True)
        if not (first & (rows >= 0)).any()
    ]


def partly_labelled(recipe: Recipe, samples: Mapping[str, Samples]) -> list[str]:
    """List the tasks of shared batches that label some of the pictures only."""
    learning, found = learning_tasks(recipe), []
    for group in shared_groups(recipe):
        own = [name for name in group if name in learning]
        joint = Joint.of([samples[name] for name in own]) if len(own) > 1 else None
        found += [n for n, rows in zip(own, joint.rows, strict=True) if (rows < 0).any()] if joint else []
    return found


def absent_losses(recipe: Recipe, samples: Mapping[str, Samples]) -> list[str]:
    """Say why FAMO cannot follow the loss of a task that labels some pictures of its shared batches only."""
    if recipe.balance != "famo" or not (partly := partly_labelled(recipe, samples)):
        return []
    return [
        f"balance=famo: follows every loss in every update, and {', '.join(partly)} labels some pictures of the shared batches "
        "only, so that an update may have none; set another balance"
    ]


def head_problems(recipe: Recipe, tasks: Mapping[str, Task]) -> list[str]:
    """List which tasks cannot stand on the trunk of a recipe of several.

    It lacks the maps that a head needs, or the batch norms whose statistics a task is to have for itself. Also which
    rate is of a part that the whole has not.
    """
    if len(recipe.tasks) < 2:
        return []
    weights = recipe.network.weights
    arch = named(recipe.network.backbone or arch_in(recipe.network) or (weights if is_known(weights) else ""))
    if not arch:
        return []
    try:
        trunk = on_meta(recipe.network, arch)
        per_task(within(trunk), recipe.norms)
    except Mistake as error:
        return [str(error)]
    problems: list[str] = []
    heads: dict[str, Any] = {}
    for name, task in tasks.items():
        if getattr(task.options, "append", False):
            continue  # its head is made from the weights
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                heads[name] = make_head(task, trunk, None)
        except Mistake as error:
            problems.append(f"tasks.{name}: {error}")
    return problems or _rate_problems(recipe, trunk, heads)


def _rate_problems(recipe: Recipe, trunk: Any, heads: Mapping[str, Any]) -> list[str]:
    """Say which of `optimizer.rates` is of no part of the model, or is a task's name and that of another part too."""
    with torch.device("meta"):
        model = Model(trunk, dict(heads), Preprocessing())
    if recipe.balance == "uncertainty":
        add_spreads(model)
    names, rates = [name for name, _ in model.named_parameters()], recipe.optimizer.rates
    parts = {part for name in names for part in name.split(".")[2 if name.startswith("heads.") else 1 :]}
    problems = [
        f"optimizer.rates.{name}: is the name of a task and of a part of the network; give the task another name"
        for name in rates
        if name in heads and name in parts
    ]
    if not problems and len(heads) == len(recipe.tasks):
        try:
            multiples(names, rates)
        except Mistake as error:
            problems = [str(error)]
    return problems
