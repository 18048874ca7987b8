"""The weights that a name stands for: a file, a published name, a run that has ended or goes on."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError, WeightsError

from ...backbones import read_weights
from ...backbones.sources import is_name
from ...backbones.weights import Weights
from ...cluster import checkpoint
from ..recipe.plain import from_plain
from ..runs.run import STATE, Run
from .assembly import Facts, assemble
from .publishing import write_published


def weights_of(
    source: str | Path, arch: str | None = None, stride_in: str | None = None, key: str = ""
) -> Weights | None:
    """Read the weights that `weights=` names: a file, a published name or a run's folder; None for `none`.

    Of a run that has not ended, its last checkpoint's are taken, and `source` says so. Raises RecipeError for a folder without
    weights, WeightsError for weights that cannot be used.
    """
    if str(source) == "none":
        return None
    folder = folder_of(source)
    if folder is not None and not Run(folder).weights.is_file():
        return saved_so_far(Run(folder), arch=arch, stride_in=stride_in, key=key)
    return read_weights(Run(folder).weights if folder else source, arch=arch, stride_in=stride_in, key=key)


def folder_of(source: str | Path) -> Path | None:
    """Return the folder that is meant; None for a file or a published name. Raises RecipeError for a run of folds."""
    path = Path(source)
    if not path.is_dir():
        return None
    Run(path).refuse_folds()
    return path if Run(path).exists() or Run(path).weights.is_file() or not is_name(str(source)) else None


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
    tasks, model, _ = assemble(recipe, facts=facts)
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
