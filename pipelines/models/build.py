"""From a recipe, or from what a checkpoint says, to a task and a model."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key, seed_model

from ...backbones import backbone, read_weights
from ...backbones.contract import Preprocessing
from ...backbones.pyramid import Pyramid
from ...backbones.weights import Weights
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.table import tasks as known_tasks
from ..recipe.fields import Network, Recipe
from ..recipe.knobs import load_named
from ..runs.run import Run


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says so that its network can be built again without the weights that it began from."""

    arch: str
    stride_in: str
    preprocessing: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    loaded: str = "random weights"


def weights_of(source: str | Path, arch: str | None = None, stride_in: str | None = None) -> Weights | None:
    """The weights that `weights=` names: a file, a published name, a run's folder, or `none`."""
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
    """The task `name` of the table."""
    return load_named(known_tasks()[name])(options, preprocessing, facts)


def build(recipe: Recipe, facts: Facts | None = None) -> tuple[dict[str, Task], Model, Facts]:
    """Tasks and model of a recipe: random, or from its `network.weights`; with `facts`, ready for a checkpoint's tensors."""
    network = recipe.network
    weights = None if facts else weights_of(network.weights, network.backbone, network.stride_in)
    preprocessing = stated(facts) if facts else weights.preprocessing if weights else Preprocessing()
    tasks = {
        name: make_task(name, options, preprocessing, facts.tasks[name] if facts else None)
        for name, options in recipe.tasks.items()
    }
    for task in tasks.values():  # class names come from the data before any network is built
        task.samples("train") if not task.facts.get("classes") else None
    seed_model(key(recipe.seed, "init"))
    trunk = make_trunk(network, weights, facts)
    heads = {}
    for name, task in tasks.items():
        seed_model(key(recipe.seed, "init", name))
        heads[name] = task.head(trunk, weights)
    first = next(iter(tasks.values()))
    model = Model(trunk, heads, first.preprocessing)
    return (
        tasks,
        model,
        facts
        or Facts(
            arch=trunk.arch,
            stride_in=trunk.stride_in,
            preprocessing=asdict(preprocessing),
            tasks={name: task.facts for name, task in tasks.items()},
            loaded=str(trunk.report) if weights else "random weights",
        ),
    )


def stated(facts: Facts) -> Preprocessing:
    """The preprocessing that a checkpoint states; JSON has no tuples."""
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.preprocessing.items()}
    return Preprocessing(**said)


def make_trunk(network: Network, weights: Weights | None, facts: Facts | None) -> Any:
    """The trunk as the recipe wants it; its architecture and stride come from the weights where it leaves them open."""
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
    return trunk if network.pyramid == "none" else Pyramid(trunk, network.pyramid)


def from_weights(
    source: str | Path, network: Network, choose: Callable[[str, dict[str, Any]], Any]
) -> tuple[Recipe, Task, Model, Facts]:
    """A model exactly as a weights file holds it. `choose` makes a task's options from what the file says of them.

    Raises RecipeError where no task finds its head and its class names in the file.
    """
    weights = weights_of(source, network.backbone, network.stride_in)
    kinds = {name: load_named(target) for name, target in known_tasks().items()}
    said = {name: kind.reads(weights) for name, kind in kinds.items() if weights is not None}
    name = next((name for name, options in said.items() if options is not None), None)
    if weights is None or not weights.classes or name is None:
        raise RecipeError(
            f"{source}: holds no head with class names; give a run's folder, or the file of a classifier, detector or segmenter"
        )
    options, info = choose(name, said[name]), weights.info
    task = make_task(name, options, weights.preprocessing, {"classes": list(weights.classes)})
    has = [any(name.startswith(start) for name in weights.rest) for start in ("backbone.fpn.", "classifier.")]
    pyramid = "none" if not has[0] else "conv" if "backbone.fpn.extra_blocks.p6.weight" in weights.rest else "pool"
    stride = info.get("trunkline_output_stride", 8 if has[1] else 32)  # 8: torchvision's segmenters
    network = replace(
        network,
        output_stride=int(stride),  # pyright: ignore[reportArgumentType]
        norm=info.get("trunkline_norm", "frozen" if weights.rest else "batch"),
        pyramid=info.get("trunkline_pyramid", pyramid),
    )
    trunk = make_trunk(network, weights, None)
    model = Model(trunk, {name: task.head(trunk, weights)}, task.preprocessing)  # type: ignore[arg-type]
    facts = Facts(trunk.arch, trunk.stride_in, asdict(weights.preprocessing), {name: task.facts}, str(trunk.report))
    return Recipe({name: options}, network), task, model, facts


def published(model: Model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names that others read: torchvision's for a trunk with one head, also on a pyramid."""
    first, *others = model.heads.values()
    prefix = "backbone." if isinstance(model.backbone, Pyramid) else "" if others else getattr(first, "trunk", "")
    result = {
        prefix + name.removeprefix("backbone."): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.")
    }
    for task, head in model.heads.items():
        prefix = f"heads.{task}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        alone = len(model.heads) == 1
        result |= {n if alone else prefix + n: t for n, t in head.published(own).items()}  # type: ignore[operator]
    return result
