"""The weights that a name stands for: a file, a published name, a run that has ended or goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ...backbones import read_weights
from ...backbones.sources import is_name
from ...backbones.weights import Weights
from ...cluster import checkpoint
from ..recipe.fields import Recipe
from ..recipe.plain import from_plain
from ..runs.run import STATE, Run
from .assembly import Facts
from .bundle import Bundle, read_bundle


def weights_of(
    source: str | Path, arch: str | None = None, stride_in: str | None = None, key: str = ""
) -> Weights | None:
    """Read the weights that `weights=` names: a file, a published name or a run's folder; None for `none`.

    Of a run that has not ended, its last checkpoint's are taken, and `source` says so. Of what holds several tasks, `key` says
    whose head is meant. Raises RecipeError for a folder without weights, and where it is not said which task; WeightsError for
    weights that cannot be used.
    """
    if str(source) == "none":
        return None
    bundle = bundle_of(source)
    if bundle is None:
        folder = folder_of(source)
        return read_weights(Run(folder).weights if folder else source, arch=arch, stride_in=stride_in, key=key)
    names = list(bundle.recipe.tasks)
    if not key and len(names) > 1:
        raise RecipeError(
            f"{source}: holds the tasks {', '.join(names)}: say which with weights_key=, or give the file of one"
        )
    task = bundle.named(key) if key else names[0]
    found = bundle.of(task, arch=arch, stride_in=stride_in)
    return replace(found, source=bundle.source)


def bundle_of(source: str | Path) -> Bundle | None:
    """Read what holds a whole model with its tasks: a file for all, or a run that has not ended; None for all else."""
    folder = folder_of(source)
    if folder is None:
        return read_bundle(Path(source))
    run = Run(folder)
    return read_bundle(run.weights) if run.weights.is_file() else saved_so_far(run)


def folder_of(source: str | Path) -> Path | None:
    """Return the folder that is meant; None for a file or a published name. Raises RecipeError for a run of folds."""
    path = Path(source)
    if not path.is_dir():
        return None
    Run(path).refuse_folds()
    return path if Run(path).exists() or Run(path).weights.is_file() or not is_name(str(source)) else None


def saved_so_far(run: Run) -> Bundle:
    """Read from a run without published weights what its last checkpoint holds, averaged weights where there are any.

    `source` says which checkpoint it is. Raises RecipeError where nothing is saved yet.
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
    folder = run.checkpoints / known
    state = checkpoint.read_state(folder, *STATE)
    averaged = (folder / "ema.safetensors").is_file()
    tensors = checkpoint.read_tensors(folder / ("ema.safetensors" if averaged else "model.safetensors"))
    kind = "averaged" if averaged else "raw"
    source = f"{run.path} (not ended: the {kind} weights of its checkpoint {known})"
    recipe, facts = recipe_of(run, state), Facts(**state["facts"])
    return Bundle(run.recipe["recipe"], recipe, facts, tensors, state["update"], source)


def checkpoint_of(run: Run, name: str) -> tuple[Path, dict[str, Any]]:
    """Find a run's checkpoint, `last`, `best` or a number, and read its state. Raises RecipeError where it is not there."""
    _ = run.recipe  # without one it is no run, which is told as that
    root = run.checkpoints
    known = checkpoint.find(root) if name == "last" else checkpoint.name_of(root, name) if name == "best" else name
    if not known or not (root / known / "state.json").is_file():
        there = sorted(p.name for p in root.glob("[0-9]*")) if root.is_dir() else []
        raise RecipeError(
            f"{run.path}: has no checkpoint {name!r}" + (f"; there are {', '.join(there)}" if there else " yet")
        )
    return root / known, checkpoint.read_state(root / known, *STATE)


def has_checkpoint_with(run: Run, task: str) -> bool:
    """Say whether any checkpoint of a run has a task, which may have come or gone while the run went on."""
    states = (checkpoint.read_state(file.parent, *STATE) for file in run.checkpoints.glob("[0-9]*/state.json"))
    return any(task in state["facts"]["tasks"] for state in states)


def recipe_of(run: Run, state: dict[str, Any]) -> Recipe:
    """Return the recipe that a checkpoint's tensors are of: the run's, or where tasks came or went since, its own.

    Data lies where the run says now.
    """
    now = from_plain(run.recipe["resolved"])
    if "recipe" not in state:
        return now
    then = from_plain(state["recipe"]["resolved"])
    moved = {
        name: replace(own, data=now.tasks[name].data) if type(now.tasks.get(name)) is type(own) else own
        for name, own in then.tasks.items()
    }
    return now if moved == now.tasks else replace(then, tasks=moved)
