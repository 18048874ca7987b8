"""Where generated data lies: `data=demo` and the like mean scenes that are written when they are first needed."""

from dataclasses import replace
from pathlib import Path

from trunkline.ground.cache import cache_folder
from trunkline.ground.storage import absolute

from .fields import Recipe

SIZES = {"demo": {"train": 2000, "val": 500, "size": 64}, "demo:smoke": {"train": 40, "val": 20, "size": 32},
         "demo:boxes": {"train": 400, "val": 100, "size": 128}, "demo:boxes:smoke": {"train": 16, "val": 8, "size": 64},
         "demo:pixels": {"train": 400, "val": 100, "size": 128}, "demo:pixels:smoke": {"train": 16, "val": 8, "size": 64},
         }  # fmt: skip


def placed(recipe: Recipe) -> Recipe:
    """The recipe with every `demo` replaced by the folder of the generated scenes, and paths that hold anywhere."""
    tasks = {}
    for name, options in recipe.tasks.items():
        if options.data in SIZES:
            folder = cache_folder() / "scenes" / options.data.replace(":", "-")
            _write(options.data, folder)
            options = replace(options, data=str(folder))
        tasks[name] = options
    return whole_paths(replace(recipe, tasks=tasks))


def _write(name: str, folder: Path) -> None:
    if name.startswith("demo:boxes"):
        from ...tasks.detection.scenes import write_box_scenes

        write_box_scenes(folder, **SIZES[name])
    elif name.startswith("demo:pixels"):
        from ...tasks.segmentation.scenes import write_pixel_scenes

        write_pixel_scenes(folder, **SIZES[name])
    else:
        from ...tasks.scenes import write_scenes

        write_scenes(folder, **SIZES[name])


def whole_paths(recipe: Recipe) -> Recipe:
    """The recipe with paths that mean the same in another folder; what is no path (`demo`, a published name) stays."""
    tasks = {
        name: options if options.data in SIZES else replace(options, data=absolute(options.data))
        for name, options in recipe.tasks.items()
    }
    weights = Path(recipe.network.weights).expanduser()
    network = replace(recipe.network, weights=str(weights.absolute())) if weights.exists() else recipe.network
    return replace(recipe, tasks=tasks, network=network)
