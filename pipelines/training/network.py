"""Whether timm's network goes with a recipe, found from the shapes of its maps before any data is read."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from trunkline.ground.errors import Mistake, WeightsError

from ...backbones import read_weights
from ...backbones.contract import Preprocessing, within
from ...backbones.table import TIMM, named
from ...backbones.timm_facts import CannotDilate
from ..models.assembly import make_task, make_trunk
from ..models.opened import checkpoint_of, folder_of
from ..recipe.fields import Network, Recipe
from ..runs.run import Run


def network_problems(recipe: Recipe) -> list[str]:
    """List what of a network of timm cannot be made, or does not go with the tasks' heads and sizes, or the phases.

    Of other networks nothing is said: they take pictures of any size, and their heads find all maps.
    """
    network = replace(recipe.network, backbone=named(recipe.network.backbone or arch_of(recipe.network.weights)))
    if not network.backbone or not network.backbone.startswith(TIMM):
        return []
    try:
        trunk = _on_meta(network)
    except CannotDilate as error:
        return _undilated(recipe, network, error)
    except Mistake as error:
        return [str(error)]
    return [f"{trunk.arch}: {said}" for said in _misfits(recipe, trunk)] + _unfrozen(recipe, trunk)


def _undilated(recipe: Recipe, network: Network, error: CannotDilate) -> list[str]:
    """Say with which output stride the network works, or where it works with none, why."""
    try:
        trunk = _on_meta(replace(network, output_stride=error.own))
    except Mistake as other:
        return [str(other)]
    trunk.dilates = False
    return [f"{error.said}; {said}" for said in _misfits(recipe, trunk)] or [str(error)]


def arch_of(weights: str) -> str:
    """Read the architecture that a local file, or a finished run, of Trunkline's states in its header; "" where none does."""
    path = Path(weights) / "weights.safetensors" if Path(weights).is_dir() else Path(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        return ""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("arch", "")
    except SafetensorError:
        return ""  # reading it says what is wrong with it


def arch_in(network: Network) -> str:
    """Find the architecture of the weights of a network, where no header says it: of a file by its tensors.

    Of a run that has not ended its last checkpoint says it. "" where nothing local is meant, or what is there cannot be read:
    building the network says what is wrong with it.
    """
    path = Path(network.weights).expanduser()
    with contextlib.suppress(Mistake):
        if said := arch_of(network.weights):
            return said
        if path.is_file():
            return read_weights(path, key=network.weights_key).arch
        if path.is_dir() and folder_of(path):
            return checkpoint_of(Run(path), "last")[1]["facts"]["arch"]
    return ""


def on_meta(network: Network, arch: str) -> Any:
    """Build the whole trunk, its pyramid and its wrapper without memory and without a random number."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return make_trunk(replace(network, backbone=arch), None, None).eval()


def _on_meta(network: Network) -> Any:
    """Build the trunk and its pyramid alone; a plug-in's wrapper is left out."""
    return on_meta(replace(network, wrapper="none"), network.backbone or "")


def _misfits(recipe: Recipe, trunk: Any) -> list[str]:
    if recipe.network.wrapper != "none":
        return []
    preprocessing = Preprocessing() if recipe.network.weights == "none" else within(trunk).preprocessing
    found = []
    for name, options in recipe.tasks.items():
        said = make_task(name, options, preprocessing).misfits(trunk)
        found += [f"tasks.{name}: {line}" for line in said] if len(recipe.tasks) > 1 else said
    return found


def _unfrozen(recipe: Recipe, trunk: Any) -> list[str]:
    """Say which phases freeze parts that the network does not tell apart."""
    found = []
    for number, phase in enumerate(recipe.phases):
        try:
            trunk.freeze(phase.frozen)
        except WeightsError as error:
            found.append(f"phases.{number}.{error}")
    return found
