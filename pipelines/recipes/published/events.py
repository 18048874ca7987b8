"""Events in time as published, on published features."""

from trunkline.ground.errors import RecipeError

from ....cluster.config import Average, Optimizer, Schedule
from ....tasks.events.options import Options
from ...recipe.fields import Batches, Evaluation, Machine, Network, Phase, Recipe

OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""The overlaps over which papers on THUMOS take the mean."""


def thumos(
    data: str = "",
    features: str = "",
    epochs: float = 35,
    batch: int = 2,
    lr: float = 1e-4,
    seed: int = 0,
    smoke: bool = False,
) -> Recipe:
    """Learn THUMOS' 20 classes of events on I3D features that are published with ActionFormer's code.

    data       a folder with its annotations (a JSON in ActivityNet's form, or THUMOS' own texts): its validation trains
    features   the folder of I3D features, a step each 4 frames, of 16 frames (by default data/features)
    smoke      a tiny run of seconds on generated features, to see that everything works

    Settings of Zhang et al. 2022, "ActionFormer", and of its code for THUMOS: cuts of 2304 steps, 6 levels of 512 channels, two
    videos an update, AdamW at 1e-4 with 5 of 35 epochs of warm-up, averaged weights, Soft-NMS. Levels are max-pooled, as in
    Tang et al. 2023, "TemporalMaxer"; assignment and losses are this package's. Published, mean of mAP at 0.3 to 0.7:
    ActionFormer 68.4, TemporalMaxer 68.3 (as OpenTAD reports them). Not run here.
    """
    if smoke:
        data = data or "demo:events:smoke"
    if not data:
        raise RecipeError("data= is missing: give the folder with THUMOS' annotations, and features= of its videos")
    stride, span = (0, 0) if data.startswith("demo:") else (4, 16)
    return Recipe(
        tasks={
            "events": Options(
                data=data, features=features, stride=stride, span=span, width=16 if smoke else 512, levels=3 if smoke else 6,
                overlaps=OVERLAPS, score=0.001, dropout=0.1,
            )
        },
        network=Network(backbone="features", weights="none"),
        batch=Batches(batch),
        phases=(Phase("pyramid", epochs=None if smoke else epochs, updates=2 if smoke else None),),
        optimizer=Optimizer("adamw", lr=lr, weight_decay=0.05, clip=1.0),
        schedule=Schedule("cosine", unit="run", warmup=5 / 35),
        average=Average(0.999),
        machine=Machine(precision="fp32"),
        evaluation=Evaluation(times=7, metric="mAP", batch=1),
        seed=seed,
    )  # fmt: skip
