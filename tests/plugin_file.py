"""A file of one's own: a task and a recipe for it."""

PLUGIN = '''
from dataclasses import dataclass
from pathlib import Path

import trunkline
from trunkline.cluster.config import Optimizer
from trunkline.pipelines.recipe import Batches, Network, Phase, Recipe
from trunkline.tasks.classification import options, task
from trunkline.tasks.table import Row


@dataclass(frozen=True)
class Options(options.Options):
    """As class folders, and a file that says where the code is."""

    log: str = ""


class Named(task.Classification):
    name = "named"

    def head(self, backbone, weights=None):
        with Path(self.options.log).open("a") as file:
            file.write(f"{trunkline.__file__}\\n")
        return super().head(backbone, weights)


def mine(data: str = "", log: str = "") -> Recipe:
    """A task of my own."""
    return Recipe({"named": Options(data=data, log=log, size=32)}, Network("resnet18", weights="none"),
                  batch=Batches(8, 2), phases=(Phase(updates=3),), optimizer=Optimizer("adamw", lr=1e-3))


TASKS = {"named": Row(Named, Options)}
'''
