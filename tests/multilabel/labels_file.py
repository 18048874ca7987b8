"""Recipes of a file of one's own: several labels a picture, on crops and on whole pictures."""

from trunkline.cluster.config import Average, Optimizer, Schedule
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.tasks.multilabel.options import Options


def labels(data: str = "demo:labels:smoke", view: str = "crop", cached: bool = False, seed: int = 3) -> Recipe:
    """Learn which shapes are in a picture."""
    return Recipe(
        tasks={"multilabel": Options(data=data, view=view, size=64, dropout=0.2, augment=not cached)},
        network=Network(backbone="narrow", weights="none"),
        batch=Batches(8, 4),
        phases=(Phase(updates=3, frozen=5 if cached else 0, cached=cached),),
        optimizer=Optimizer("momentum", lr=0.05, weight_decay=1e-4),
        schedule=Schedule("cosine"),
        average=Average(0.9),
        evaluation=Evaluation(every=0, metric="mAP"),
        seed=seed,
    )


recipe = labels
