"""The demonstration of several tasks on one trunk: classes, boxes, pixels and clips of generated scenes."""

from dataclasses import replace
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.names import nearest

from ...cluster.config import Optimizer, Schedule
from ...tasks.classification.options import Options as Classes
from ...tasks.detection.options import Options as Boxes
from ...tasks.segmentation.options import Options as Pixels
from ...tasks.video.options import Options as Clips
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe
from .joint import REFUSED

ALL = "all"
# by task: its options, the samples of a batch, and what it counts
_TASKS: dict[str, tuple[Any, int, float]] = {
    "classification": (Classes(data="demo", size=64, scale=(0.7, 1.0)), 32, 1.0),
    "boxes": (Boxes(data="demo:boxes", head="one_stage", size=64, longest=64, padding=96), 16, 2.0),
    "pixels": (
        Pixels(
            data="demo:pixels",
            format="pairs",
            head="fpn",
            view="fit",
            size=64,
            longest=64,
            jitter=(0.8, 1.25),
            dice=1.0,
        ),
        16,
        2.0,
    ),
    "clips": (Clips(data="demo:clips", head="transformer", frames=4, size=64), 8, 0.5),
}


def demo_joint(tasks: tuple[str, ...] = (ALL,), updates: int = 700, seed: int = 0, smoke: bool = False) -> Recipe:
    """Train classes, boxes, pixels and clips of generated scenes together, on one ResNet-18.

    tasks    all, or some of classification, boxes, pixels and clips; one by itself has the settings, and the number of its own
             samples, that it has with the others
    updates  how long; each takes a batch of every task
    smoke    tiny sets and two updates

    From random weights, all at 64 pixels; frames of clips go through the trunk as pictures do, a transformer sees their order.
    """
    chosen = chosen_of(tasks)
    options = {name: _TASKS[name][0] for name in chosen}
    if smoke:
        options = {name: replace(one, data=f"{one.data}:smoke") for name, one in options.items()}
    sizes = {name: Batches(2 if smoke else _TASKS[name][1]) for name in chosen}
    several = len(chosen) > 1
    return Recipe(
        tasks=options,
        network=Network(backbone="resnet18", weights="none", pyramid="conv", wrapper="frames"),
        batch=sizes[chosen[0]],
        batches=sizes if several else {},
        loss_weights={name: _TASKS[name][2] for name in chosen} if several else {},
        norms=dict.fromkeys(chosen, "own")
        if several
        else {},  # scenes, frames and small pictures have statistics of their own
        phases=(Phase("joint", updates=2 if smoke else updates),),
        optimizer=Optimizer("adamw", lr=0.001, weight_decay=0.05),
        schedule=Schedule("cosine", unit="run", warmup=0.05, warmup_from=0.05),
        evaluation=Evaluation(every=0, batch=50),
        seed=seed,
    )


def chosen_of(tasks: tuple[str, ...]) -> list[str]:
    """List the tasks that are meant, in the order of the table. Raises RecipeError with all that are none of it."""
    problems = [
        f"tasks={','.join(tasks)}: {name} stands there twice" for name in dict.fromkeys(tasks) if tasks.count(name) > 1
    ]
    for name in tasks:
        if name not in (ALL, *_TASKS):
            why = (
                REFUSED.get(name)
                or f"there is no such task{nearest(name, _TASKS)}; there are {', '.join(_TASKS)}, or all"
            )
            problems.append(f"tasks={name}: {why}")
    if problems:
        raise RecipeError(problems)
    return [name for name in _TASKS if name in tasks or ALL in tasks]
