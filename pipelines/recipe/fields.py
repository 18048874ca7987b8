"""A recipe: everything that decides a run, as a tree of small dataclasses with no logic in it. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ...cluster.config import Average, Machine, Optimizer, Schedule


@dataclass(frozen=True)
class Network:
    """The trunk and where its weights come from."""

    backbone: str | None = None  # a name of the table; None takes it from the weights
    weights: str = "none"  # a file, a published name, a run's folder, or none
    output_stride: Literal[32, 16, 8] = 32
    norm: Literal["batch", "frozen", "sync", "group"] = "batch"
    stride_in: Literal["3x3", "1x1"] | None = None  # where a bottleneck strides; None takes it from the weights
    checkpointing: bool = False  # compute the maps again in the backward pass: less memory, more time
    zero_init: bool = True  # the last norm of each block begins at 0
    pyramid: Literal["none", "pool", "conv"] = (
        "none"  # around the trunk: pool for two-stage heads, conv for one-stage ones
    )


@dataclass(frozen=True)
class Batches:
    """`size` samples an update, in micro-batches of `micro` samples that divide it."""

    size: int = 32
    micro: int | Literal["auto", "all"] = "all"


@dataclass(frozen=True)
class Phase:
    """One engine over one plan of updates; give `epochs` or `updates`."""

    name: str = "train"
    epochs: float | None = None
    updates: int | None = None
    frozen: int = 0  # stages of the trunk that do not learn: 1 is the stem, 5 all of it
    cached: bool = False  # the trunk's maps are computed once; needs frozen=5


@dataclass(frozen=True)
class Evaluation:
    """When the validation split is scored, and what that decides."""

    every: float = 1.0  # epochs; 0 scores only at the end
    times: int = 0  # at most so often in a phase, evenly spread; 0 sets no bound
    metric: str = "top1"  # names the best checkpoint
    patience: int = 0  # evaluations without a better metric after which the phase ends; 0 never ends it early
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    batch: int = 32


@dataclass(frozen=True)
class Checkpoints:
    """When a run is saved: at an evaluation that is the best so far or the last, and by time or updates between."""

    minutes: float = 10.0  # 0: not by time
    updates: int = 0  # 0: not by updates
    keep: int = 2  # the newest ones; the best and the last always stay


@dataclass(frozen=True)
class Log:
    """What is written while a run goes on."""

    every: int = 1  # updates a line
    tensorboard: bool = True


@dataclass(frozen=True)
class Recipe:
    """All of a run. `tasks` maps a task's name to its options (`trunkline.tasks.table`)."""

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
    seed: int = 0


# What may differ when a run goes on: how long, where things lie, how the work is spread, what is logged.
CHANGEABLE = (
    "phases.*.epochs",
    "phases.*.updates",
    "tasks.*.data",
    "network.weights",
    "machine.workers",
    "evaluation.batch",
    "evaluation.patience",
    "checkpoints.*",
    "log.*",
)
