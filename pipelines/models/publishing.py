"""A model's tensors as files that others read."""

from pathlib import Path
from typing import Any

import torch

from ...backbones.contract import within
from ...backbones.norm import of_task
from ...backbones.pyramid import Pyramid, pyramid_of
from ...backbones.video.names import published_names
from ...backbones.weights import save_weights
from ...heads.model import SPREAD, Model
from ...tasks.contract import Task
from ..recipe.fields import Network
from .assembly import Facts, settings_of


def published(model: Model, tensors: dict[str, torch.Tensor], task: str) -> dict[str, torch.Tensor]:
    """Rename the tensors of the trunk and of the task's head as others read them: to torchvision's names, also on a pyramid.

    Where the head has no use for the pyramid, its tensors are left out. Of a trunk frame by frame they are the 2-D trunk's.
    Where the task has running statistics of its own, they stand in the place of the trunk's.
    """
    head: Any = model.heads[task]
    tensors = of_task(model, tensors, task)
    inside, around = "backbone.", model.backbone
    while getattr(around, "transparent", False):  # a wrapper without tensors, as that of frames
        inside, around = f"{inside}body.", around.get_submodule("body")
    bare = isinstance(around, Pyramid) and not needs_pyramid(model, task)
    inside += "body." if bare else ""
    wraps = within(around) is not around
    prefix = "backbone." if wraps and not bare else getattr(head, "trunk", "backbone.")
    trunk = {prefix + name.removeprefix(inside): t for name, t in tensors.items() if name.startswith(inside)}
    start = f"heads.{task}."
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    own.pop(SPREAD, None)
    return published_names(within(model.backbone).arch, trunk | head.published(own))


def needs_pyramid(model: Model, task: str) -> bool:
    """Say whether there is a pyramid around the trunk and the task's head reads its maps."""
    pyramid = pyramid_of(model.backbone)
    return pyramid is not None and any(name in pyramid.levels for name in model.heads[task].needs)  # type: ignore[union-attr]


def needs_wrapper(model: Model, task: Task, network: Network) -> bool:
    """Say whether a wrapper stands around the trunk that the task goes through: frames are none for pictures beside clips."""
    beside_clips = len(model.heads) > 1 and getattr(model.backbone, "transparent", False)
    return network.wrapper != "none" and not (beside_clips and task.unit == Task.unit)


def write_published(
    file: Path,
    recipe: str,
    network: Network,
    task: Task,
    model: Model,
    facts: Facts,
    tensors: dict[str, torch.Tensor],
    update: int,
) -> None:
    """Write the trunk and the task's head as one file of published weights; `recipe` is the recipe's name."""
    info = {
        "trunkline_recipe": recipe,
        "trunkline_update": str(update),
        "trunkline_output_stride": str(network.output_stride),
        "trunkline_norm": network.norm,
        "trunkline_pyramid": network.pyramid if needs_pyramid(model, task.name) else "none",
        "trunkline_task": type(task).name,
        **({"trunkline_wrapper": network.wrapper} if needs_wrapper(model, task, network) else {}),
        **{f"trunkline_{name}": str(value) for name, value in settings_of(model.backbone).items()},
        **task.stated(),
    }
    save_weights(
        file, published(model, tensors, task.name), arch=facts.arch, stride_in=facts.stride_in,
        classes=task.facts.get("classes"), preprocessing=task.preprocessing, info=info,
    )  # fmt: skip
