"""A recipe of two tasks on one trunk: classes and boxes of generated scenes."""

from trunkline.cluster.config import Average, Optimizer, Schedule
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.tasks.classification.options import Options as Classes
from trunkline.tasks.detection.options import Options as Boxes


def two_tasks(data: str = "demo:smoke", boxes: str = "demo:boxes:smoke", updates: int = 4, seed: int = 3) -> Recipe:
    """Four micro-batches of classes and one of boxes an update, of these in every second update only."""
    return Recipe(
        tasks={
            "classification": Classes(data=data, size=32, dropout=0.2),
            "detection": Boxes(data=boxes, size=64, longest=64, head="one_stage"),
        },
        network=Network(backbone="narrow", weights="none", pyramid="conv"),
        batches={"classification": Batches(8, 2), "detection": Batches(3, 3)},
        loss_weights={"detection": 0.3},
        mix={"detection": 0.5},
        phases=(Phase(updates=updates),),
        optimizer=Optimizer("momentum", lr=0.005, weight_decay=1e-3, clip=1.0),
        schedule=Schedule("cosine"),
        average=Average(0.9),
        evaluation=Evaluation(every=0, batch=10),
        seed=seed,
    )


recipe = two_tasks
