"""What an engine is: one verb, `update`, which does all of an optimizer step; and what it reports."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trunkline.ground.errors import EngineError

from .checkpoint import SAME, Parts
from .workers import LostWorker

Losses = Callable[[nn.Module, Any], dict[str, Tensor]]
"""From a model and a micro-batch to named scalar losses; their sum is what the gradient is taken of.

A scalar whose name begins with `MEASURED` is no loss: it is reported beside them, as a mean like theirs.
"""


class Player(Protocol):
    """Who learns in a turn: a module, its losses, and the tasks whose micro-batches it takes (empty: all).

    It sits out the first `waits` updates of a phase.
    """

    @property
    def module(self) -> nn.Module: ...
    @property
    def losses(self) -> Losses: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def waits(self) -> int: ...


class TooSmall(EngineError):
    """A micro-batch of so few samples that batch norm has a single value per channel."""

    def __init__(self, update: int, samples: int, labelled: int | None = None):
        self.update, self.samples = update, samples
        few = "" if labelled in (None, samples) else f", of which a task labels {labelled}"
        super().__init__(
            f"batch norm has a single value per channel in a micro-batch of {samples} samples{few}: take at least two"
        )


class TooLarge(EngineError):
    """A micro-batch for which memory ran out."""

    def __init__(self, update: int, samples: int, cause: str):
        self.update, self.samples, self.cause = update, samples, cause
        super().__init__(f"memory ran out in update {update} with a micro-batch of {samples} samples: {cause}")


PARTS = ("trunkline::forward", "trunkline::backward", "trunkline::reduce", "trunkline::step")
"""The names of an update's parts in a profiler's trace."""


@dataclass
class Report:
    """What an update did.

    `losses` are means over its micro-batches, still on the device (reading one waits for it); `total` is the sum of the
    means, each times the weight of its task. `own` is the sum of all that this worker computed of them, and `ids` are
    its samples. `measured` are means of what the losses gave beside themselves (`MEASURED`). `others` are the reports
    of the players that took their turns after the first, by name; `waited` is a player's that sat the update out.
    """

    update: int
    lr: float
    losses: dict[str, Tensor]
    total: Tensor
    own: Tensor
    grad_norm: Tensor | None = None
    skipped: bool = False  # fp16 only: the gradients overflowed, the loss scale was lowered, nothing moved
    ids: list[list[str]] = field(default_factory=list)
    measured: dict[str, Tensor] = field(default_factory=dict)
    waited: bool = False
    others: dict[str, "Report"] = field(default_factory=dict)
    _host: Tensor | None = None
    _arrived: Any = None

    def _numbers(self) -> Tensor:
        norm = [] if self.grad_norm is None else [self.grad_norm.to(self.total)]
        return torch.stack([self.total, self.own, *self.losses.values(), *self.measured.values(), *norm])

    def send(self) -> None:
        """Begin to copy the numbers from CUDA to the host: reading them then waits for this update and no later one."""
        if self.total.device.type == "cuda":
            numbers, self._arrived = self._numbers(), torch.cuda.Event()
            self._host = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def numbers(self) -> dict[str, float]:
        """Read this player's losses and what was measured, by name, `grad_norm` where there is one, `total` and `own`."""
        if self._arrived is not None:
            self._arrived.synchronize()
        total, own, *rest = (self._numbers() if self._host is None else self._host).tolist()
        names = [*self.losses, *self.measured, *([] if self.grad_norm is None else ["grad_norm"])]
        return {**dict(zip(names, rest, strict=True)), "total": total, "own": own}

    def check(self) -> None:
        """Raise EngineError where a loss is not finite, with the samples that it was computed on.

        Workers that did not compute it raise LostWorker.
        """
        numbers = self.numbers()
        if not math.isfinite(numbers["total"]):
            self._refuse(numbers)
        if odd := [name for name in self.measured if name.startswith("balance/") and not math.isfinite(numbers[name])]:
            raise EngineError(
                f"the factor of {odd[0].removeprefix('balance/')} in update {self.update} is not finite (balance=famo needs "
                "losses above 0): set another balance; the last good checkpoint stays"
            )
        for other in self.others.values():
            other.check()

    def _refuse(self, numbers: dict[str, float]) -> None:
        if math.isfinite(numbers["own"]):
            raise LostWorker(f"the loss of update {self.update} is not finite on another worker")
        named = ", ".join(f"{k} = {numbers[k]:.4g}" for k in (*self.losses, *self.measured))
        samples = [i for ids in self.ids for i in ids]
        raise EngineError(
            f"the loss of update {self.update} is not finite ({named}); its weights were not saved. Its {len(samples)} "
            f"samples: {', '.join(samples[:8])}{' …' if len(samples) > 8 else ''}. Try a lower optimizer.lr, "
            "optimizer.clip=1, or precision=fp32; the last good checkpoint stays"
        )


class Engine(Protocol):
    """The same contract for one process, many processes, DeepSpeed, and players in turns. Its losses are its own."""

    @property
    def updates(self) -> int:
        """How many updates are done."""
        ...

    def update(self, micro_batches: Sequence[Any]) -> Report:
        """Do one optimizer step over this worker's micro-batches; a worker that has none gives a stand-in."""
        ...

    def save(self, folder: Path | None) -> dict[str, Any]:
        """Write tensors into `folder` (None: on a worker that writes nothing); return the rest as plain data."""
        ...

    def load(self, folder: Path, state: dict[str, Any], parts: Parts = SAME) -> None:
        """Put back what `save` wrote and returned; `parts` of the model are new since, or gone."""
        ...

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Return the whole state dict of the model, of the first player where there are several."""
        ...

    def close(self) -> None:
        """Let go of the model: the next phase's engine takes it over."""
        ...
