"""The demonstration: generated scenes, from nothing to a report."""

from ...cluster.config import Optimizer, Schedule
from ...tasks.classification.options import Options
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
