"""What decides an engine and where its workers come from, as data. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.ground.ranges import SHARE, Range, ranged

BELOW_1 = Range(0, 1, "0 to below 1", high_in=False)
RATE = Range(0, 1e38, "a number above 0", low_in=False)
STRENGTH = Range(0, 1e38)
LENGTH = Range(0, 1e9)
FACTOR = Range(0, 1e3)
STEP = Range(0, 1e9, "a length above 0", low_in=False)
MULTIPLE = Range(0, 1e6, "a number above 0 (frozen stages: see phases)", low_in=False)
DECAY = Range(0, 1, "0 (none) to below 1", high_in=False)
SECONDS = Range(0, math.inf, "seconds above 0", low_in=False, high_in=False)
THREADS = Range(1, 4096)
LOADERS = Range(0, 4096)


@dataclass(frozen=True)
class Optimizer:
    """One optimizer step. Weight decay (L2; decoupled where the optimizer decouples it) and L1 spare norms and biases."""

    name: str = "sgd"  # any name of timm's optimizer factory; "sgd" is Nesterov's, "momentum" the plain one
    lr: float = ranged(0.01, RATE)
    momentum: float = ranged(0.9, BELOW_1)
    weight_decay: float = ranged(1e-4, STRENGTH)
    l1: float = ranged(0.0, STRENGTH)  # strength of a penalty on the sum of absolute weights
    clip: float = ranged(0.0, STRENGTH)  # largest global norm of the gradient; 0 does not clip
    rates: dict[str, float] = field(
        default_factory=dict, metadata={"within": MULTIPLE}
    )  # multiples of lr by a part of parameters' names: heads, layer4
    options: dict[str, Any] = field(default_factory=dict)  # handed to the optimizer as they are: betas, eps, …


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor as a pure function of the update's number."""

    name: Literal["constant", "step", "multistep", "cosine", "polynomial", "one_cycle"] = "cosine"
    unit: Literal["epochs", "run"] = "epochs"  # of warmup, step and milestones: epochs, or shares of the whole run
    warmup: float = ranged(0.0, LENGTH)  # how long it rises, linearly
    warmup_from: float = ranged(0.01, SHARE)  # where it begins, as a share of the rate
    final: float = ranged(0.0, SHARE)  # cosine, polynomial, one_cycle: the last factor
    cycles: int = ranged(1, Range(1, 1e6))  # cosine: how often it falls, each time from the top (warm restarts)
    step: float = ranged(30.0, STEP)  # step: from one drop to the next
    milestones: tuple[float, ...] = ranged((), LENGTH)  # multistep: where the drops are
    gamma: float = ranged(0.1, FACTOR)  # step, multistep: the factor of a drop
    power: float = ranged(0.9, FACTOR)  # polynomial
    peak: float = ranged(0.3, SHARE)  # one_cycle: the share of all updates at which the rate is highest
    start: float = ranged(0.04, SHARE)  # one_cycle: the first factor

    def problems(self) -> list[str]:
        """List milestones that are out of order, and lengths above 1 where they are shares of the run."""
        found = []
        if list(self.milestones) != sorted(self.milestones):
            found.append(f"milestones={','.join(f'{m:g}' for m in self.milestones)}: expected them in their order")
        if self.unit == "run":
            lengths = [("warmup", self.warmup), *(("milestones", m) for m in self.milestones)]
            lengths += [("step", self.step)] * (self.name == "step")
            wanted = "expected 0 to 1, a share of the run, or schedule.unit=epochs"
            found += [f"{key}={length:g}: {wanted}" for key, length in lengths if length > 1]
        return found


@dataclass(frozen=True)
class Average:
    """Exponential moving average of weights and buffers."""

    decay: float = ranged(0.0, DECAY)  # 0 keeps none
    warmup: bool = True  # early on the decay is (1 + n) / (10 + n), so that the first weights are soon forgotten


@dataclass(frozen=True)
class Learning:
    """How one player learns in a phase of `total` updates, of which `per_epoch` are an epoch."""

    optimizer: Optimizer
    schedule: Schedule
    average: Average
    total: int
    per_epoch: int


@dataclass(frozen=True)
class Machine:
    """Where and how numbers are computed. All but `loaders` is part of the result; `auto` is resolved once and stored."""

    device: str = "auto"  # cpu, cuda, cuda:N, mps
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = False
    reduction: Literal["exact", "fp32"] = "exact"  # exact: sums of gradients in fp64, which no order changes
    deterministic: bool | Literal["auto"] = "auto"  # refuse kernels whose sums have no order; auto: on the CPU only
    threads: int | Literal["auto"] = ranged(
        "auto", THREADS
    )  # of one process, for its arithmetic; another number gives other bits
    loaders: int | Literal["auto"] = ranged("auto", LOADERS)  # processes that decode; never part of the result


@dataclass(frozen=True)
class Common:
    """Holds what every launcher is told.

    launch       who starts the workers, as named below
    workers      how many processes divide the work; where a launcher can grow and shrink, also a range such as 2,4
    timeout      seconds that an update waits for a silent worker
    """

    launch: str = "local"  # a name of cluster/launchers/table.py
    workers: int | tuple[int, int] = 1
    timeout: float = ranged(600.0, SECONDS, of="training")

    @property
    def least(self) -> int:
        """The smallest number of workers with which the work is done."""
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def most(self) -> int:
        """The number of workers where there is room for all."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers

    def problems(self) -> list[str]:
        """Check the number of workers."""
        if 1 <= self.least <= self.most:
            return []
        said = ",".join(map(str, self.workers)) if isinstance(self.workers, tuple) else self.workers
        return [f"workers={said}: expected a number above 0, or two with the smaller one first"]


@dataclass(frozen=True)
class LauncherOptions:
    """The base of a launcher's own options; a launcher without any uses it as it is."""

    def missing(self) -> str:
        """Say what has to be installed first; empty where nothing is missing."""
        return ""


@dataclass(frozen=True)
class EngineOptions:
    """The base of an engine's own options; an engine without any uses it as it is."""

    def asked(self) -> str:
        """Return the setting that asks for this engine as `KEY=VALUE`; empty where it is not asked for."""
        return ""

    def refusals(self, optimizer: Optimizer, machine: Machine, workers: int, tasks: int) -> list[str]:
        """List what the engine cannot do for so many workers and tasks; also called for engines that nobody asked for."""
        return []

    def several(self, players: Sequence[str]) -> str:
        """Say why the engine cannot train players in turns; empty where it can."""
        return ""


@dataclass(frozen=True)
class Launch(Common):
    """Says where the workers come from and what they train with.

    own      the options of the launcher, of the class that stands in its row (cluster/launchers/table.py)
    engines  the options of each engine, by its name (cluster/engines/table.py)
    """

    own: Any = LauncherOptions()
    engines: dict[str, Any] = field(default_factory=dict)
