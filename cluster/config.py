"""What decides an engine, as data. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Optimizer:
    """One optimizer step. Weight decay (L2; decoupled where the optimizer decouples it) and L1 spare norms and biases."""

    name: str = "sgd"  # any name of timm's optimizer factory; "sgd" is Nesterov's, "momentum" the plain one
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    l1: float = 0.0  # strength of a penalty on the sum of absolute weights
    clip: float = 0.0  # largest global norm of the gradient; 0 does not clip
    rates: dict[str, float] = field(
        default_factory=dict
    )  # multiples of lr by a part of parameters' names: heads, layer4
    options: dict[str, Any] = field(default_factory=dict)  # handed to the optimizer as they are: betas, eps, …


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor as a pure function of the update's number."""

    name: Literal["constant", "step", "multistep", "cosine", "polynomial", "one_cycle"] = "cosine"
    unit: Literal["epochs", "run"] = "epochs"  # of warmup, step and milestones: epochs, or shares of the whole run
    warmup: float = 0.0  # how long it rises, linearly
    warmup_from: float = 0.01  # where it begins, as a share of the rate
    final: float = 0.0  # cosine, polynomial, one_cycle: the last factor
    step: float = 30.0  # step: how far drops are apart
    milestones: tuple[float, ...] = ()  # multistep: where the drops are
    gamma: float = 0.1  # step, multistep: the factor of a drop
    power: float = 0.9  # polynomial
    peak: float = 0.3  # one_cycle: the share of all updates at which the rate is highest
    start: float = 0.04  # one_cycle: the first factor


@dataclass(frozen=True)
class Average:
    """Exponential moving average of weights and buffers."""

    decay: float = 0.0  # 0 keeps none
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
    threads: int | Literal["auto"] = "auto"  # of one process, for its arithmetic; another number gives other bits
    loaders: int | Literal["auto"] = "auto"  # processes that decode; never part of the result


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
