"""What DeepSpeed alone is told, as data, and what it cannot do. Imports neither torch nor DeepSpeed."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from trunkline.ground.ranges import ranged

from ..config import EngineOptions, Machine, Optimizer

ELEMENTWISE = ("sgd", "nesterov", "momentum", "adam", "adamw", "nadam", "nadamw", "radam", "adamax", "rmsprop", "adagrad",
               "adadelta", "lion")  # fmt: skip
"""Optimizers whose step at an element depends on that element alone: only they may see a part of a tensor."""


@dataclass(frozen=True)
class ZeroOptions(EngineOptions):
    """Holds what DeepSpeed alone is told.

    zero         DeepSpeed's ZeRO stage; none: without DeepSpeed
    offload      ZeRO 1 to 3: the optimizer's state lives in the host's memory
    """

    zero: Literal[0, 1, 2, 3, "none"] | None = ranged(None, of="training")
    offload: bool = ranged(False, of="training")

    @property
    def stage(self) -> int | None:
        """The stage, or None without DeepSpeed."""
        return None if self.zero == "none" else self.zero

    def asked(self) -> str:
        """Return `zero=` with the stage; empty without DeepSpeed."""
        return "" if self.stage is None else f"zero={self.stage}"

    def refusals(self, optimizer: Optimizer, machine: Machine, workers: int, tasks: int) -> list[str]:
        """Say that DeepSpeed has to be installed, or list what the stage cannot do."""
        if self.stage is None:
            return ["offload=true needs zero=1, 2 or 3"] if self.offload else []
        if find_spec("deepspeed") is None:
            return [f"zero={self.stage} needs DeepSpeed: install it with pip install 'trunkline[cluster]'"]
        found = refuse(optimizer, machine, workers, self.stage, self.offload)
        return [*found, *filter(None, [self.mixed(tasks)])]

    def mixed(self, tasks: int) -> str:
        """Refuse several tasks in stages 2 and 3, which would move what had no part in an update."""
        if (self.stage or 0) < 2 or tasks < 2:
            return ""
        return (
            f"{self.asked()}: a mixture of tasks needs zero=0 or zero=1; stages 2 and 3 move a head that has no micro-batch in "
            "an update"
        )

    def several(self, players: Sequence[str]) -> str:
        """Refuse players in turns in stages 2 and 3, which would end elsewhere than one process does."""
        if (self.stage or 0) < 2:
            return ""
        return (
            f"{self.asked()}: this stage reduces gradients by itself, in hooks of every backward, so that players in turns "
            f"({', '.join(players)}) would not end with the bits of one process; use zero=0 or zero=1, or leave zero out"
        )


def refuse(optimizer: Optimizer, machine: Machine, workers: int, zero: int, offload: bool = False) -> list[str]:
    """List what is asked for that the stage cannot do."""
    problems = []
    if machine.precision == "fp16":
        problems.append(
            f"zero={zero}: fp16 scales the loss, which DeepSpeed's engine here does not; use precision=bf16"
        )
    if machine.precision == "fp64" and zero:
        problems.append(f"zero={zero}: DeepSpeed keeps weights in fp32 at most; use zero=0 for precision=fp64")
    if machine.device.startswith("mps"):
        problems.append("zero: DeepSpeed here runs on CPUs and NVIDIA GPUs, not on Apple's; leave zero out")
    if zero == 1 and workers & (workers - 1):
        problems.append(
            f"zero=1 with workers={workers}: its own reduction is exact for 2, 4, 8, … workers only; use zero=0"
        )
    if zero and optimizer.name.lower() not in ELEMENTWISE:
        problems.append(
            f"zero={zero} with optimizer.name={optimizer.name}: a stage that divides tensors suits optimizers that look at "
            f"single elements: {', '.join(ELEMENTWISE)}; or use zero=0"
        )
    if zero >= 2 and optimizer.l1 and optimizer.clip:
        problems.append(f"zero={zero}: optimizer.l1 and optimizer.clip do not go together there; use zero=0 or zero=1")
    if offload and not zero:
        problems.append("offload=true needs zero=1, 2 or 3: stage 0 divides nothing that could be put aside")
    return problems
