"""A recipe: everything that decides a run, as data; and how settings become one. Imports no torch."""

from trunkline.ground.errors import RecipeError

from .fields import CHANGEABLE, Batches, Checkpoints, Evaluation, Log, Network, Phase, Playing, Recipe

__all__ = [
    "CHANGEABLE",
    "Batches",
    "Checkpoints",
    "Evaluation",
    "Log",
    "Network",
    "Phase",
    "Playing",
    "Recipe",
    "RecipeError",
]
