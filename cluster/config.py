"""What decides an engine, as data. Imports no torch."""

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
    step: float = ranged(30.0, STEP)  # step: how far drops are apart
    milestones: tuple[float, ...] = ranged((), LENGTH)  # multistep: where the drops are
    gamma: float = ranged(0.1, FACTOR)  # step, multistep: the factor of a drop
    power: float = ranged(0.9, FACTOR)  # polynomial
    peak: float = ranged(0.3, SHARE)  # one_cycle: the share of all updates at which the rate is highest
    start: float = ranged(0.04, SHARE)  # one_cycle: the first factor

    def problems(self) -> list[str]:
        """List milestones that are out of order, and lengths that are no share of the run where they should be one."""
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
    reduction: Literal["exact", "fp32"] = "exact"  # how gradients are summed: in fp64, so that order is nothing, or not
    deterministic: bool | Literal["auto"] = "auto"  # refuse kernels whose sums have no order; auto: on the CPU only
    threads: int | Literal["auto"] = ranged(
        "auto", THREADS
    )  # of one process, for its arithmetic; another number gives other bits
    loaders: int | Literal["auto"] = ranged("auto", LOADERS)  # processes that decode; never part of the result


OF_TRAINING = ("zero", "offload", "timeout", "placement", "failures", "preemptions", "grow")
"""What of a launch means nothing to workers that only evaluate or predict."""
OF_RAY = ("address", "cpus", "gpus", "placement", "failures", "preemptions", "grow")
"""What of a launch means nothing without Ray."""


@dataclass(frozen=True)
class Launch:
    """Where the workers come from. None of it is part of the result, but for the rounding of `zero` 2 and 3.

    launch       local: processes on this machine; ray: on a Ray cluster
    workers      how many processes divide the work; with ray also a range such as 2,4
    zero         DeepSpeed's ZeRO stage; none: without DeepSpeed. By default none here, 0 on Ray
    offload      ZeRO 1 to 3: the optimizer's state lives in the host's memory
    timeout      seconds that an update waits for a silent worker
    address      ray: host:port of a cluster, or auto; by default one is started on this machine
    cpus, gpus   ray: what a worker reserves; cpus is also its number of threads
    placement    ray: how workers lie on nodes
    failures     ray: how often workers that failed are started again; -1 without end
    preemptions  ray: the same where a node was taken away with notice
    grow         ray, with a range of workers: seconds between looks for room for more
    """

    launch: Literal["local", "ray"] = "local"
    workers: int | tuple[int, int] = 1
    zero: Literal[0, 1, 2, 3, "none"] | None = None
    offload: bool = False
    timeout: float = 600.0
    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    failures: int = 3
    preemptions: int = -1
    grow: float = 60.0
