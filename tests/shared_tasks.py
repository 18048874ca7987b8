"""A recipe of three tasks on one trunk: classes, and of one data set all boxes and those of two shapes, in shared batches."""

from trunkline.cluster.config import Average, Optimizer, Schedule
from trunkline.pipelines.recipe import Batches, Evaluation, Network, Phase, Recipe
from trunkline.tasks.classification.options import Options as Classes
from trunkline.tasks.detection.options import Options as Boxes


def shared_tasks(
    data: str = "demo:smoke",
    objects: str = "demo:boxes:smoke",
    updates: int = 4,
    balance: str = "fixed",
    shared: bool = True,
    names: tuple[str, ...] = ("classification", "boxes", "some"),
    seed: int = 3,
) -> Recipe:
    """Two micro-batches of classes and two that both detectors share an update; `some` labels a part of the pictures."""
    own = {"data": objects, "size": 64, "longest": 64, "head": "one_stage"}
    tasks = {
        "classification": Classes(data=data, size=32, dropout=0.2),
        "boxes": Boxes(**own),
        "some": Boxes(**own, categories=("circle", "square")),
    }
    sizes = {"classification": Batches(8, 4), "boxes": Batches(4, 2), "some": Batches(4, 2)}
    weights = {"boxes": 0.3, "some": 0.7}
    return Recipe(
        tasks={name: tasks[name] for name in names},
        network=Network(backbone="narrow", weights="none", pyramid="conv"),
        batches={name: sizes[name] for name in names},
        loss_weights={name: weight for name, weight in weights.items() if name in names},
        phases=(Phase(updates=updates),),
        optimizer=Optimizer("momentum", lr=0.005, weight_decay=1e-3, clip=1.0),
        schedule=Schedule("cosine"),
        average=Average(0.9),
        evaluation=Evaluation(every=0, batch=10),
        balance=balance,
        shared_batch=("boxes", "some") if shared else (),
        seed=seed,
    )


recipe = shared_tasks
