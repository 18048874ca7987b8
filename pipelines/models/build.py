"""From a recipe, or from what a checkpoint says, to a task and a model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_model
from trunkline.ground.names import load_named

from ...backbones import backbone, read_weights
from ...backbones.contract import STATED, Preprocessing
from ...backbones.pyramid import Pyramid
from ...backbones.table import wrappers
from ...backbones.weights import Weights
from ...heads.contract import HEAD
from ...heads.model import Model
from ...tasks.contract import Published, Task, check_has, forgotten
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe
from ..runs.run import Run


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says so that its network can be built without the weights that the run began from."""

    arch: str
    stride_in: str
    preprocessing: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    loaded: str = "random weights"


def weights_of(source: str | Path, arch: str | None = None, stride_in: str | None = None) -> Weights | None:
    """Read the weights that `weights=` names: a file, a published name or a run's folder; None for `none`.

    Raises RecipeError for a folder without weights, WeightsError for weights that cannot be used.
    """
    if str(source) == "none":
        return None
    path = Path(source)
    if path.is_dir():
        run = Run(path)
        if not run.weights.is_file():
            raise RecipeError(
                f"weights={source}: that folder holds no weights.safetensors; give a finished run's folder or a file"
            )
        path = run.weights
        return read_weights(path, arch=arch, stride_in=stride_in)
    return read_weights(source, arch=arch, stride_in=stride_in)


def make_task(name: str, options: Any, preprocessing: Preprocessing, facts: dict[str, Any] | None = None) -> Task:
    """Make the task `name` of the table."""
    return task_class(name)(options, preprocessing, facts)


def task_class(name: str) -> type[Task]:
    """Load the class of a task. Raises RecipeError naming the methods and attributes that it lacks."""
    kind = load_named(known_tasks()[name])
    if missing := forgotten(kind):
        raise RecipeError(f"the task {name} ({kind.__module__}.{kind.__qualname__}) lacks {', '.join(missing)}")
    return kind


def make_head(task: Task, trunk: Any, weights: Weights | None) -> Any:
    """Make a task's head. Raises RecipeError where it lacks a part of the contract, or reads maps that the trunk lacks."""
    head = task.head(trunk, weights)
    check_has(head, f"the head of the task {task.name}", HEAD)
    if absent := [name for name in head.needs if name not in trunk.channels]:
        raise RecipeError(
            f"the head of the task {task.name} needs the maps {', '.join(absent)}; this trunk has {', '.join(trunk.channels)}"
        )
    return head


def build(recipe: Recipe, facts: Facts | None = None) -> tuple[dict[str, Task], Model, Facts]:
    """Build the tasks and the model of a recipe, and return them with their facts.

    The weights are random or those of `network.weights`; with `facts` the model is ready for a checkpoint's tensors.
    """
    network = recipe.network
    weights = None if facts else weights_of(network.weights, network.backbone, network.stride_in)
    preprocessing = stated(facts) if facts else weights.preprocessing if weights else Preprocessing()
    tasks = {
        name: make_task(name, options, preprocessing, facts.tasks[name] if facts else None)
        for name, options in recipe.tasks.items()
    }
    for task in tasks.values():  # read class names from the data, in the tasks' order, before any network is built
        _ = task.facts
    seed_model(key(recipe.seed, "init"))
    trunk = make_trunk(network, weights, facts)
    heads, beside = {}, {}
    for name, task in tasks.items():
        seed_model(key(recipe.seed, "init", name))
        heads[name] = make_head(task, trunk, weights)
        seed_model(key(recipe.seed, "init", name, "beside"))
        beside |= task.beside()
    first = next(iter(tasks.values()))
    model = Model(trunk, heads, first.preprocessing, beside)
    loaded = str(trunk.report) if weights else "random weights"
    own = {name: task.facts for name, task in tasks.items()}
    return tasks, model, facts or Facts(trunk.arch, trunk.stride_in, asdict(preprocessing), own, loaded)


def stated(facts: Facts) -> Preprocessing:
    """Read the preprocessing that a checkpoint states; JSON's lists become tuples."""
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.preprocessing.items()}
    return Preprocessing(**said)


def make_trunk(network: Network, weights: Weights | None, facts: Facts | None) -> Any:
    """Build the trunk that the recipe asks for; where it leaves architecture or stride open, the weights say them."""
    name = facts.arch if facts else network.backbone or (weights.arch if weights else None)
    stride_in = facts.stride_in if facts else network.stride_in
    trunk = backbone(
        name,
        weights=weights,
        output_stride=network.output_stride,
        norm=network.norm,
        checkpointing=network.checkpointing,
        zero_init=network.zero_init,
        stride_in=stride_in,
    )
    trunk = trunk if network.pyramid == "none" else Pyramid(trunk, network.pyramid)
    if network.wrapper == "none":
        return trunk
    wrapped = load_named(wrappers()[network.wrapper])(trunk)
    check_has(wrapped, f"the wrapper {network.wrapper}", (*STATED, "arch"))
    return wrapped


def from_weights(
    source: str | Path, network: Network, choose: Callable[[str, dict[str, Any]], Any]
) -> tuple[Recipe, Task, Model, Facts]:
    """Build a model exactly as a weights file holds it. `choose` makes a task's options from what the file says of them.

    Raises RecipeError where no task finds its head in the file.
    """
    weights = weights_of(source, network.backbone, network.stride_in)
    name, said = held_by(source, weights)
    assert weights is not None
    options, info = choose(name, said.options), weights.info
    task = make_task(name, options, weights.preprocessing, said.facts)
    network = replace(
        network,
        output_stride=int(info.get("trunkline_output_stride", said.network.get("output_stride", 32))),  # pyright: ignore
        norm=info.get("trunkline_norm", said.network.get("norm", "batch")),
        pyramid=info.get("trunkline_pyramid", said.network.get("pyramid", "none")),
        wrapper=info.get("trunkline_wrapper", "none"),
    )
    trunk = make_trunk(network, weights, None)
    model = Model(trunk, {name: make_head(task, trunk, weights)}, task.preprocessing)
    facts = Facts(trunk.arch, trunk.stride_in, asdict(weights.preprocessing), {name: task.facts}, str(trunk.report))
    return Recipe({name: options}, network), task, model, facts


def held_by(source: str | Path, weights: Weights | None) -> tuple[str, Published]:
    """Find the task whose head a file holds, and what the file says of it. Raises RecipeError where no task knows the head."""
    kinds = {name: task_class(name) for name in known_tasks()}
    named = weights.info.get("trunkline_task") if weights else None
    if named and named not in kinds:
        raise RecipeError(
            f"{source}: holds a head of the task {named}, unknown here; give its recipe file, plugin=FILE"
        )
    for name, kind in kinds.items():
        if weights and named in (None, name) and (said := kind.reads(weights)) is not None:
            return name, said
    raise RecipeError(
        f"{source}: holds no head that a task knows ({', '.join(kinds)}), or one without class names; give a run's folder, or "
        "the file of a model that was published by one"
    )


def published(model: Model, tensors: dict[str, torch.Tensor], task: str) -> dict[str, torch.Tensor]:
    """Rename the tensors of the trunk and of the task's head as others read them: to torchvision's names, also on a pyramid.

    Where the head has no use for the pyramid, its tensors are left out.
    """
    head: Any = model.heads[task]
    bare = isinstance(model.backbone, Pyramid) and not needs_pyramid(model, task)
    inside = "backbone.body." if bare else "backbone."
    prefix = "backbone." if hasattr(model.backbone, "body") and not bare else getattr(head, "trunk", "backbone.")
    trunk = {prefix + name.removeprefix(inside): t for name, t in tensors.items() if name.startswith(inside)}
    start = f"heads.{task}."
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return trunk | head.published(own)


def needs_pyramid(model: Model, task: str) -> bool:
    """Say whether there is a pyramid around the trunk and the task's head reads its maps."""
    pyramid = isinstance(model.backbone, Pyramid)
    return pyramid and any(name in model.backbone.levels for name in model.heads[task].needs)  # type: ignore[union-attr]
