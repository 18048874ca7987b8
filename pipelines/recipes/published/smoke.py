"""What the smoke runs of published recipes share."""

from dataclasses import replace
from typing import Any

from ...recipe.fields import Batches, Recipe


def tiny(recipe: Recipe, options: Any) -> Recipe:
    """Give a recipe of one task these options, a small trunk from random weights, and a length of two updates."""
    (name,) = recipe.tasks
    return replace(
        recipe,
        tasks={name: options},
        network=replace(recipe.network, backbone="resnet18", weights="none", norm="batch"),
        batch=Batches(2, 2),
        phases=(replace(recipe.phases[0], epochs=None, updates=2, frozen=0),),
    )
