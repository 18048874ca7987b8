"""A task's trunk and head under the names that others read: as a run's published file, or from a run that has not ended."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trunkline.ground.errors import RecipeError, WeightsError

from ...backbones import read_weights
from ...backbones.weights import Weights, save_weights
from ...cluster import checkpoint
from ...heads.model import Model
from ...tasks.contract import Task
from ..recipe.fields import Network
from ..recipe.plain import from_plain
from ..runs.run import STATE, Run
from .build import Facts, build, needs_pyramid, published, settings_of


def write_published(
    file: Path,
    recipe: str,
    network: Network,
    task: Task,
    model: Model,
    facts: Facts,
    tensors: dict[str, Tensor],
    update: int,
) -> None:
    """Write the trunk and the task's head as one file of published weights; `recipe` is the recipe's name."""
    info = {
        "trunkline_recipe": recipe,
        "trunkline_update": str(update),
        "trunkline_output_stride": str(network.output_stride),
        "trunkline_norm": network.norm,
        "trunkline_pyramid": network.pyramid if needs_pyramid(model, task.name) else "none",
        "trunkline_task": task.name,
        **({} if network.wrapper == "none" else {"trunkline_wrapper": network.wrapper}),
        **{f"trunkline_{name}": str(value) for name, value in settings_of(model.backbone).items()},
        **task.stated(),
    }
    save_weights(
        file, published(model, tensors, task.name), arch=facts.arch, stride_in=facts.stride_in,
        classes=task.facts.get("classes"), preprocessing=task.preprocessing, info=info,
    )  # fmt: skip


def saved_so_far(run: Run, **stated: Any) -> Weights:
    """Read from a run without published weights what its last checkpoint holds, averaged weights where there are any.

    It is written to a file beside first, so that both kinds are read alike; `stated` is for `read_weights`. `source` says
    which checkpoint it is. Raises RecipeError where nothing is saved yet, and where a run has several tasks.
    """
    known = checkpoint.find(run.checkpoints) if run.checkpoints.is_dir() else None
    if not run.exists() or not known:
        what = (
            "a run that has saved nothing yet: let it go on, and stop it after a checkpoint"
            if run.exists()
            else "no run"
        )
        raise RecipeError(
            f"{run.path}: that folder holds no weights.safetensors; give a finished run's folder or a file (it is {what})"
        )
    said = run.recipe
    recipe = from_plain(said["resolved"])
    if len(recipe.tasks) > 1:
        raise RecipeError(
            f"{run.path}: that run has the tasks {', '.join(recipe.tasks)}: give one of the files that it has at its end, as "
            f"{run.published(next(iter(recipe.tasks)))}"
        )
    folder = run.checkpoints / known
    state = checkpoint.read_state(folder, *STATE)
    facts = Facts(**state["facts"])
    tasks, model, _ = build(recipe, facts)
    averaged = (folder / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(folder / ("ema.safetensors" if averaged else "model.safetensors"))
    checkpoint.check_tensors(folder, model.state_dict(), tensors)
    (task,) = tasks.values()
    with tempfile.TemporaryDirectory() as beside:
        file = Path(beside) / run.weights.name
        write_published(file, said["recipe"], recipe.network, task, model, facts, tensors, state["update"])
        kind = "averaged" if averaged else "raw"
        source = f"{run.path} (not ended: the {kind} weights of its checkpoint {known})"
        try:
            return replace(read_weights(file, **stated), source=source)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(file), source)) from None
