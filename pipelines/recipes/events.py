"""Events in long videos: a head that learns on features that were computed before."""

from typing import Literal

from trunkline.ground.errors import RecipeError

from ...cluster.config import Average, Optimizer, Schedule
from ...tasks.events.options import Options
from ..recipe.fields import Batches, Evaluation, Machine, Network, Phase, Recipe


def events(
    data: str = "",
    features: str = "",
    weights: str = "none",
    head: Literal["pyramid", "windows"] = "pyramid",
    window: float = 1.0,
    width: int | None = None,
    levels: int | None = None,
    stride: int = 0,
    span: int = 0,
    rate: float = 0.0,
    format: Literal["auto", "activitynet", "thumos", "events"] = "auto",
    train: str = "",
    val: str = "",
    group: str = "",
    folds: int | Literal["groups"] = 0,
    protocol: Literal["activitynet", "thumos"] = "activitynet",
    overlaps: tuple[float, ...] = (),
    epochs: float | None = None,
    updates: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    ema: float = 0.0,
    seed: int = 0,
    on_bad_sample: Literal["stop", "skip"] = "stop",
    on_bad_event: Literal["stop", "skip"] = "stop",
    strict: bool = False,
    smoke: bool = False,
) -> Recipe:
    """Learn to find events in long videos: what happens, from when to when.

    data           a folder with ActivityNet's JSON, THUMOS' texts, or tables (train.csv, val.csv: video, start, end, label)
    features       the folder of the videos' features, NAME.npy each (by default data/features): `predict RUN features=` writes
                   them, and published ones are read
    weights        none, or another run of events whose head goes on learning, where the classes are the same
    head           pyramid: learns classes and bounds; windows: a classifier slid over time, and the runs that it is sure of
    window         seconds of the windows' windows
    stride, span, rate  of published features: frames from one step to the next, frames of each step, frames a second
    train, val     the JSON's subsets, or the tables; val=0.2 holds out a fifth of the videos
    group, folds   what stays on one side of a split, and how often all are divided (docs/data.md)
    protocol       whose average precision is the score; overlaps=0.3,0.4,0.5,0.6,0.7 chooses others than its own
    smoke          a tiny run of seconds on generated features, to see that everything works
    """
    if epochs is not None and updates is not None:
        raise RecipeError(f"epochs={epochs:g} and updates={updates} both say how long: give one of them")
    if smoke:  # settings that are given stay; only defaults shrink
        data, width, levels = data or "demo:events:smoke", width or 16, levels or 3
        if epochs is None and updates is None:
            updates = 2
    if not data:
        raise RecipeError("data= is missing: give a folder with annotations of events, and features= of their videos")
    epochs = 30.0 if epochs is None and updates is None else epochs
    return Recipe(
        tasks={
            "events": Options(
                data=data, features=features, format=format, train=train, val=val, group=group, folds=folds,
                stride=stride, span=span, rate=rate, head=head, window=window, width=width or 64, levels=levels or 5,
                protocol=protocol, overlaps=overlaps, on_bad_sample=on_bad_sample, on_bad_event=on_bad_event, strict=strict,
                dropout=0.5,
            )
        },
        network=Network(backbone="features", weights=weights),
        batch=Batches(2 if batch is None else batch),
        phases=(Phase(head, epochs=epochs, updates=updates),),
        optimizer=Optimizer("adamw", lr=1e-3 if lr is None else lr, weight_decay=0.05, clip=1.0),
        schedule=Schedule("cosine", unit="run", warmup=0.1),
        average=Average(ema),
        machine=Machine(precision="fp32", threads=1),  # small layers: a second thread costs more time than it saves
        evaluation=Evaluation(times=5, metric="mAP", batch=1),
        seed=seed,
    )  # fmt: skip
