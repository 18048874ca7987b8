"""A recipe: everything that decides a run, as a tree of small dataclasses with no logic in it. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.ground.ranges import COUNT, POSITIVE, Range, ranged

from ...cluster.config import Average, Machine, Optimizer, Schedule

EPOCHS = Range(-1e9, 1e9)  # the check of the phase refuses what is not above 0
RATE = Range(0, 1e6, "a number above 0", low_in=False)
REPEATS = Range(1, 1000)
UPDATES = Range(-1e12, 1e12)
TEMPERATURE = Range(0, 1e6, "a number above 0", low_in=False)


@dataclass(frozen=True)
class Network:
    """The trunk and where its weights come from."""

    backbone: str | None = None  # a name of the table; None takes it from the weights
    weights: str = "none"  # a file, a published name, a run's folder, or none
    weights_key: str = ""  # which network of a file that holds several: the keys that lead to it, and its prefix
    output_stride: Literal[32, 16, 8] = 32
    norm: Literal["batch", "frozen", "sync", "group"] = "batch"
    stride_in: Literal["3x3", "1x1"] | None = None  # where a bottleneck strides; None takes it from the weights
    checkpointing: bool = False  # compute the maps again in the backward pass: less memory, more time
    zero_init: bool = True  # the last norm of each block begins at 0
    pyramid: Literal["none", "pool", "conv"] = (
        "none"  # around the trunk: pool for two-stage heads, conv for one-stage ones
    )
    wrapper: str = "none"  # around all of that: frames or tsm (a 2-D trunk on clips), or a plug-in's
    blocks: int | None = ranged(None, POSITIVE)  # of a trunk of super-resolution; None: as published, or the weights'
    width: int | None = ranged(None, POSITIVE)  # its channels; None likewise
    unshuffle: Literal[1, 2, 4] = 1  # before it, squares of so many pixels become channels
    inflate: Literal["centre", "mean"] | None = None  # how an i3d_… takes 2-D weights; None: centre, or the weights'
    residual_scale: float | None = None  # what edsr multiplies its residuals by; None: 0.1 for 32 blocks of 256, else 1


@dataclass(frozen=True)
class Batches:
    """`size` samples an update, in micro-batches of `micro` samples that divide it; an epoch sees each `repeats` times."""

    size: int = ranged(32, POSITIVE)
    micro: int | Literal["auto", "all"] = "all"
    repeats: int = ranged(1, REPEATS)  # each time augmented anew: as several random clips of a video


@dataclass(frozen=True)
class Phase:
    """One engine over one plan of updates; give `epochs` or `updates`."""

    name: str = "train"
    epochs: float | None = ranged(None, EPOCHS)
    updates: int | None = ranged(None, UPDATES)
    frozen: int = 0  # stages of the trunk that do not learn: 1 is the stem, 5 all of it
    still: tuple[str, ...] = ()  # what does not learn besides: tasks, whose heads keep their weights, and `pyramid`
    cached: bool = False  # the trunk's maps are computed once; needs the whole trunk frozen
    rate: float = ranged(1.0, RATE)  # what learning rates are multiplied by in it
    players: tuple[str, ...] = ()  # who learns in it, where a task has several players; empty: all of them


@dataclass(frozen=True)
class Playing:
    """How a player learns that takes its turns beside the model (a critic)."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    average: Average = field(default_factory=Average)


@dataclass(frozen=True)
class Evaluation:
    """When the validation split is scored, and what that decides."""

    every: float = ranged(1.0, COUNT)  # epochs; 0 scores only at the end
    times: int = ranged(0, COUNT)  # at most so often in a phase, evenly spread; 0 sets no bound
    metric: str = ""  # names the best checkpoint; empty: the first of the first task, of several tasks as task/metric
    patience: int = ranged(
        0, COUNT
    )  # evaluations without a better metric after which the phase ends; 0 never ends it early
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    batch: int = ranged(32, POSITIVE)
    nth: dict[str, int] = field(
        default_factory=dict
    )  # of a task: score it at every so-manieth evaluation, and at the last
    patience_of: dict[str, int] = field(
        default_factory=dict
    )  # of a task: its evaluations without a better first metric
    # after which it learns no more
    single: dict[str, str] = field(default_factory=dict)  # of a task: what a run of it alone reached, for the metric
    # all/mean_change: NUMBER, METRIC:NUMBER, RUN (its folder) or RUN:METRIC


@dataclass(frozen=True)
class Checkpoints:
    """When a run is saved: at an evaluation that is the best so far or the last, and by time or updates between."""

    minutes: float = ranged(10.0, COUNT)  # 0: not by time
    updates: int = ranged(0, Range(0, 1e12))  # 0: not by updates
    keep: int = ranged(2, POSITIVE)  # the newest ones; the best and the last always stay


@dataclass(frozen=True)
class Log:
    """What is written while a run goes on."""

    every: int = ranged(1, POSITIVE)  # updates a line
    tensorboard: bool = True
    cosines: int = ranged(
        0, COUNT
    )  # of several tasks: updates from one comparison of their gradients to the next; 0: none


@dataclass(frozen=True)
class Recipe:
    """All of a run. `tasks` maps a task's name to its options (`trunkline.tasks.table`).

    Several tasks learn together: the gradient is the sum over them of the task's `loss_weights` times the mean over its
    micro-batches. How much an update takes of each is set apart: `mix` of its batches, with `batches` samples each.
    """

    tasks: dict[str, Any]
    network: Network
    batch: Batches = field(default_factory=Batches)
    phases: tuple[Phase, ...] = (Phase(epochs=1),)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    average: Average = field(default_factory=Average)
    machine: Machine = field(default_factory=Machine)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    log: Log = field(default_factory=Log)
    batches: dict[str, Batches] = field(default_factory=dict)  # of a task, in place of batch
    loss_weights: dict[str, float] = field(default_factory=dict)  # of a task; 1 where it has none, 0 leaves it out
    mix: dict[str, float] = field(default_factory=dict)  # of a task: its batches an update, on average; 1 by default
    norms: dict[str, Literal["shared", "frozen", "own"]] = field(
        default_factory=dict
    )  # of a task: what its passes read and move of the running statistics of the trunk's batch norms; shared by default
    mixing: Literal["ratios", "proportional", "round_robin"] = (
        "ratios"  # what mix means: see `pipelines/training/parts.py`
    )
    temperature: float = ranged(1.0, TEMPERATURE)  # of mixing=proportional: data of n batches counts as n ** (1 / this)
    balance: str = "fixed"  # of the tasks' losses: fixed, uncertainty, gradient_norm or famo
    shared_batch: tuple[
        str, ...
    ] = ()  # tasks of one data set that share each pass of the trunk: a,b or, of several sets, a+b,c+d
    players: dict[str, Playing] = field(default_factory=dict)  # of those beside the model; without one, as the model
    seed: int = 0


def batches_of(recipe: Recipe, task: str) -> Batches:
    """Find the sizes of a task's batches: its own, or else the recipe's."""
    return recipe.batches.get(task, recipe.batch)


def learning_tasks(recipe: Recipe) -> list[str]:
    """List the tasks that learn: those whose loss weight is above 0."""
    return [task for task in recipe.tasks if recipe.loss_weights.get(task, 1.0) > 0]


def shared_groups(recipe: Recipe) -> list[tuple[str, ...]]:
    """List the groups of tasks that `shared_batch` names."""
    return groups_of(recipe.shared_batch)


def groups_of(shared_batch: Sequence[str]) -> list[tuple[str, ...]]:
    """List the groups that words name: names alone are one group, `a+b,c+d` one each."""
    named = [tuple(group.split("+")) for group in shared_batch]
    if all(len(group) == 1 for group in named):
        return [tuple(name for (name,) in named)] if named else []
    return named


def sharing(recipe: Recipe) -> list[tuple[str, ...]]:
    """List the tasks that learn, those that share batches together, in the recipe's order."""
    return grouped(recipe, learning_tasks(recipe))


def grouped(recipe: Recipe, tasks: Iterable[str]) -> list[tuple[str, ...]]:
    """List some tasks, those that share batches together, in their order."""
    names = list(tasks)
    groups = [tuple(name for name in names if name in group) for group in shared_groups(recipe)]
    found: list[tuple[str, ...]] = []
    for name in names:
        own = next((group for group in groups if name in group), (name,))
        if own not in found:
            found.append(own)
    return found


MEAN_CHANGE = "all/mean_change"
"""A metric of several tasks: the mean change against what `Evaluation.single` says. No task can be called `all`."""

# What may differ when a run goes on: how long, where things lie, how the work is spread, what is logged.
CHANGEABLE = (
    "phases.*.epochs",
    "phases.*.updates",
    "tasks.*.data",
    "network.weights",
    "network.weights_key",
    "machine.loaders",
    "evaluation.batch",
    "evaluation.patience",
    "checkpoints.*",
    "log.*",
)
