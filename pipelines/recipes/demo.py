"""The demonstrations: generated scenes, from nothing to a report."""

from dataclasses import replace
from typing import Any, Literal

from ...cluster.config import Optimizer, Schedule
from ...tasks.classification.options import Options
from ...tasks.detection.options import Options as Boxes
from ...tasks.segmentation.options import Options as Pixels
from ...tasks.video.options import Options as Clips
from ..recipe.fields import Batches, Evaluation, Network, Phase, Recipe


def demo(data: str = "demo", epochs: float | None = None, seed: int = 0, smoke: bool = False) -> Recipe:
    """Train ResNet-18 from random weights on generated scenes of ten shapes.

    data    a folder of class folders; by default 2,000 scenes of 64 x 64 pixels, written when they are first needed
    epochs  how long; by default 8
    smoke   a tiny set, and two updates unless epochs are given
    """
    return Recipe(
        tasks={"classification": Options(data="demo:smoke" if smoke else data, size=64, scale=(0.7, 1.0))},
        network=Network(backbone="resnet18", weights="none"),
        batch=Batches(8 if smoke else 32),
        phases=(Phase(updates=2) if smoke and epochs is None else Phase(epochs=8 if epochs is None else epochs),),
        optimizer=Optimizer("adamw", lr=0.002, weight_decay=0.05),
        schedule=Schedule("cosine", warmup=1.2, warmup_from=0.05),
        evaluation=Evaluation(every=2, batch=125),
        seed=seed,
    )


# of demo-joint, by task: its options, and the samples that an update takes of it
_TOGETHER: dict[str, tuple[Any, int]] = {
    "classification": (Options(data="demo", size=64, scale=(0.7, 1.0)), 32),
    "boxes": (Boxes(data="demo:boxes", head="one_stage", size=64, longest=64), 16),
    "pixels": (Pixels(data="demo:pixels", format="pairs", head="fcn", view="fit", size=64, longest=64), 16),
    "clips": (Clips(data="demo:clips", head="transformer", frames=4, size=64), 8),
}


def demo_joint(
    only: Literal["classification", "boxes", "pixels", "clips"] | None = None,
    updates: int = 500,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Train classes, boxes, pixels and clips of generated scenes together, on one ResNet-18.

    only     trains this task alone, with the settings and the number of its samples that it has here
    updates  how long
    smoke    tiny sets and two updates
    """
    tasks = {name: options for name, (options, _) in _TOGETHER.items() if only in (None, name)}
    if smoke:
        tasks = {name: replace(options, data=f"{options.data}:smoke") for name, options in tasks.items()}
    sizes = {name: Batches(2 if smoke else _TOGETHER[name][1]) for name in tasks}
    return Recipe(
        tasks=tasks,
        network=Network(backbone="resnet18", weights="none", pyramid="conv", wrapper="frames"),
        batch=next(iter(sizes.values())),
        batches={} if only else sizes,
        phases=(Phase(updates=2 if smoke else updates),),
        optimizer=Optimizer("adamw", lr=0.002, weight_decay=0.05),
        schedule=Schedule("cosine", unit="run", warmup=0.05, warmup_from=0.05),
        evaluation=Evaluation(every=0, batch=50),
        seed=seed,
    )
