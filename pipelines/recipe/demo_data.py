"""Where generated data lies: `data=demo` and the like mean scenes that are written when they are first needed."""

from dataclasses import replace
from pathlib import Path

from trunkline.ground.cache import cache_folder
from trunkline.ground.names import load_named
from trunkline.ground.storage import absolute, at_home

from ...tasks.table import scenes
from .fields import Recipe


def placed(recipe: Recipe) -> Recipe:
    """Replace every `demo` of a recipe by the folder of its generated scenes, and make its paths absolute."""
    tasks = {}
    for name, options in recipe.tasks.items():
        if options.data in scenes():
            folder = cache_folder() / "scenes" / options.data.replace(":", "-")
            write(options.data, folder)
            options = replace(options, data=str(folder))
        tasks[name] = options
    return whole_paths(replace(recipe, tasks=tasks))


def write(name: str, folder: Path, **other: int) -> Path:
    """Write the generated data of this name into a folder; `other` numbers (train, val, size) replace its own."""
    found = scenes()[name]
    load_named(found.write)(folder, **{"train": found.train, "val": found.val, "size": found.size, **other})
    return folder


def whole_paths(recipe: Recipe) -> Recipe:
    """Make a recipe's paths absolute, to hold in any folder; what is no path (`demo`, a published name) stays."""
    tasks = {
        name: options if options.data in scenes() else replace(options, data=absolute(options.data))
        for name, options in recipe.tasks.items()
    }
    weights = Path(at_home(recipe.network.weights))
    there = (
        weights.is_file() or (weights / "weights.safetensors").is_file()
    )  # a mere folder may be called as a published name
    named = there and recipe.network.weights != "none"  # the word, also where a file is called so
    network = replace(recipe.network, weights=str(weights.absolute())) if named else recipe.network
    return replace(recipe, tasks=tasks, network=network)
