"""How much each of several tasks counts in an update, where fixed weights do not say it alone.

A balance multiplies a task's loss in a micro-batch by a factor, which is the same on every worker. What it learns from an
update it uses in the next one: so no worker waits for another inside an update, and an update's factors are known before
it begins. All sums are of fp64 numbers in the order of the micro-batches: the number of workers changes no bit.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trunkline.ground.errors import EngineError

from ..workers import Workers
from .sums import wide


class Fixed:
    """Every task counts as its `loss_weights` says."""

    name = "fixed"
    learns = False

    def __init__(self, tasks: Sequence[str] = ()):
        self.tasks = tuple(tasks)

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Multiply a task's loss of a micro-batch by its factor."""
        return loss

    def began(self, device: torch.device) -> None:
        """Put the state on the device that computes."""

    def took(self, number: int, batch: Any) -> None:
        """Keep what the backward of micro-batch `number` of the update said."""

    def finish(self, count: int, losses: Mapping[str, Tensor], workers: Workers) -> None:
        """Compute the factors of the next update, from `count` micro-batches and the means of the losses by name."""

    def factors(self) -> dict[str, Tensor]:
        """Return the factor of each task in this update, for the report; empty where nothing changes."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain data."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned; a task that it does not know begins anew."""


class Uncertainty(Fixed):
    """L e^-s / 2 + s / 2 for each task, with a parameter s that learns with its head (Kendall et al. 2018, section 3.2).

    `spreads` are the parameters by task, logarithms of variances; they are the heads' own, and have no decay.
    """

    name = "uncertainty"
    learns = True

    def __init__(self, tasks: Sequence[str], spreads: Mapping[str, nn.Parameter]):
        super().__init__(tasks)
        self.spreads = dict(spreads)

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Compute L e^-s / 2 + s / 2."""
        spread = self.spreads[task][0]
        return loss * (-spread).exp() * 0.5 + spread * 0.5

    def factors(self) -> dict[str, Tensor]:
        """Return e^-s / 2 of each task."""
        return {task: (-self.spreads[task].detach()[0]).exp() * 0.5 for task in self.tasks}


class GradientNorm(Fixed):
    """Each task divided by how strong its gradient is where it leaves the trunk, as it was in the update before.

    The strength of a task is the root mean square, over the samples of an update, of the norm of the gradient of the
    sample's own loss at all maps that the task reads. Factors are 1 / strength, times what makes their sum, each times its
    loss weight, that of the loss weights. A task that an update leaves out keeps its strength. In the first update all
    factors are 1; of a task that reads only maps that do not learn it stays 1. (Scaling by gradient norms: arXiv 2509.23915.)
    """

    name = "gradient_norm"
    learns = True

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]):
        super().__init__(tasks)
        self.weights = torch.tensor([weights[task] for task in tasks], dtype=torch.float64)
        self.strengths = torch.zeros(len(tasks), dtype=torch.float64)  # 0: not known yet
        self._factors = torch.ones(len(tasks), dtype=torch.float64)
        self._used = dict.fromkeys(tasks, torch.ones(()))
        self._norms: dict[str, dict[str, Tensor]] = {}  # by task and map
        self._found: dict[int, dict[str, tuple[Tensor, int]]] = {}

    def began(self, device: torch.device) -> None:
        """Put the state on the device that computes."""
        kind = wide(torch.empty(0, device=device))
        self.weights, self.strengths = self.weights.to(device, kind), self.strengths.to(device, kind)
        self._set(self._factors.to(device, kind))

    def _set(self, factors: Tensor) -> None:
        self._factors = factors
        self._used = dict(zip(self.tasks, factors.float().unbind(), strict=True))

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Multiply by the factor, in fp32."""
        return loss * self._used[task]

    def __call__(self, batch: Any, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the maps, each as a tensor of its own, whose gradient is this task's alone and is measured."""
        found = self._norms[batch.task] = {}

        def measure(name: str, gradient: Tensor) -> None:
            found[name] = torch.linalg.vector_norm(gradient, dtype=wide(gradient))

        own = {name: tensor.view_as(tensor) for name, tensor in maps.items()}
        for name, tensor in own.items():
            if tensor.requires_grad:
                tensor.register_hook(partial(measure, name))
        return own

    def took(self, number: int, batch: Any) -> None:
        """Keep each task's sum of squares of this micro-batch's gradients, as if each sample's loss counted 1."""
        self._found[number] = {}
        for part in getattr(batch, "parts", ()) or (batch,):
            if norms := self._norms.pop(part.task, {}):
                square = torch.stack([norms[name] for name in sorted(norms)]).square().sum()
                self._found[number][part.task] = (square * (len(part) / part.scale) ** 2, len(part))
        self._norms.clear()

    def finish(self, count: int, losses: Mapping[str, Tensor], workers: Workers) -> None:
        """Compute the strengths, and from them the next factors."""
        nothing = (self.strengths.new_zeros(()), 0)
        own = [self._found.get(number, {}).get(task, nothing) for number in range(count) for task in self.tasks]
        self._found.clear()
        found = torch.stack([square for square, _ in own]).view(count, -1)
        samples = (
            torch.tensor([n for _, n in own], dtype=found.dtype).to(found.device, non_blocking=True).view(count, -1)
        )
        used = torch.stack([self._used[task] for task in self.tasks]).to(
            found.dtype
        )  # the factors that they flowed with
        table = torch.stack([found / used.square(), samples], 1)
        workers.add(table.view(-1), "the strengths of tasks' gradients")
        squares, samples = table.sum(0)
        self.strengths = torch.where(samples > 0, (squares / samples.clamp(min=1)).sqrt(), self.strengths)
        known = self.strengths > 0
        inverse = torch.where(known, 1 / self.strengths, 0.0)
        kept = (self.weights * known).sum() / (self.weights * inverse).sum()
        self._set(torch.where(known, inverse * kept, 1.0))

    def factors(self) -> dict[str, Tensor]:
        """Return the factor of each task."""
        return self._used

    def state(self) -> dict[str, Any]:
        """Return the strengths and the factors by task."""
        pairs = zip(self.tasks, self.strengths.tolist(), self._factors.tolist(), strict=True)
        return {task: list(pair) for task, *pair in pairs}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back the strengths and the factors of the tasks that it knows."""
        known = [state.get(task, (0.0, 1.0)) for task in self.tasks]
        self.strengths = self.strengths.new_tensor([strength for strength, _ in known])
        self._set(self.strengths.new_tensor([factor for _, factor in known]))


class Famo(Fixed):
    """Let all losses fall at one rate, by constant memory: FAMO (Liu et al. 2023, algorithm 1), an update late.

    The paper computes every loss once more after the step, on the same samples, to see how fast each fell. Here losses of
    different samples are compared, whose noise is larger than their fall: so x follows the fall of a running mean m of each
    loss's logarithm (of which 0.98 stays in an update). Of update u the factors are k softmax(x) / e^m, with m after update
    u - 1, where k makes their mean over tasks 1; x follows Adam (rate 0.025, decay 0.01 of the paper's code, times 0.02) with
    the gradient that the falls give. In the first update all factors are 1.
    """

    name = "famo"
    learns = True
    RATE, KEPT, BETAS, EPS = 0.025, 0.98, (0.9, 0.999), 1e-8
    DECAY = 0.01 * (1 - KEPT)

    def __init__(self, tasks: Sequence[str]):
        super().__init__(tasks)
        self._rows = torch.zeros(5, len(tasks), dtype=torch.float64)  # x, Adam's two moments, means of logs, factors
        self._rows[4] = 1.0
        self._steps = self._seen = 0
        self._used = dict.fromkeys(tasks, torch.ones(()))

    def began(self, device: torch.device) -> None:
        """Put the state on the device that computes."""
        self._rows = self._rows.to(device, wide(torch.empty(0, device=device)))
        self._share()

    def _share(self) -> None:
        self._used = dict(zip(self.tasks, self._rows[4].float().unbind(), strict=True))

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Multiply by the factor, in fp32."""
        return loss * self._used[task]

    def finish(self, count: int, losses: Mapping[str, Tensor], workers: Workers) -> None:
        """Move x by how the mean of each loss's logarithm fell, and compute the next factors.

        Raises EngineError on a CPU where a loss is not above 0; elsewhere the report finds its factor.
        """
        x, first, second, before, _ = self._rows.clone()
        losses_now = torch.stack([_sum_of(task, losses) for task in self.tasks])
        if losses_now.device.type == "cpu" and not (losses_now > 0).all():
            found = ", ".join(f"{t} {v:g}" for t, v in zip(self.tasks, losses_now.tolist(), strict=True) if not v > 0)
            raise EngineError(
                f"balance=famo: takes the logarithm of every loss, and one is not above 0 ({found}); set another"
            )
        now = losses_now.log()
        if self._seen:
            now = before.lerp(now, 1 - self.KEPT)
            z, fall = x.softmax(0), before - now
            gradient = z * (fall - (z * fall).sum()) + self.DECAY * x
            self._steps += 1
            low, high = self.BETAS
            first, second = first.lerp(gradient, 1 - low), second.lerp(gradient.square(), 1 - high)
            scale = (second / (1 - high**self._steps)).sqrt() + self.EPS
            x = x - self.RATE * (first / (1 - low**self._steps)) / scale
        self._seen += 1
        weights = x.softmax(0) / now.exp()
        factors = weights * len(self.tasks) / weights.sum()
        self._rows = torch.stack([x, first, second, now, factors])
        self._share()

    def factors(self) -> dict[str, Tensor]:
        """Return the factor of each task."""
        return self._used

    def state(self) -> dict[str, Any]:
        """Return all numbers, and the tasks that they are of. Raises EngineError where one is not finite: it would stay so."""
        if not torch.isfinite(self._rows).all():
            raise EngineError(
                "balance=famo: takes the logarithm of every loss, and one was not above 0; nothing was saved. Set another "
                "balance; the last good checkpoint stays"
            )
        return {"tasks": list(self.tasks), "rows": self._rows.tolist(), "steps": self._steps, "seen": self._seen}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put all back. With other tasks it begins anew: its weights are shares of a whole."""
        if tuple(state.get("tasks", ())) != self.tasks:
            return
        self._rows = self._rows.new_tensor(state["rows"])
        self._steps, self._seen = state["steps"], state["seen"]
        self._share()


def _sum_of(task: str, losses: Mapping[str, Tensor]) -> Tensor:
    """Add up the means of a task's losses, in the order in which they were named. Raises EngineError where it has none."""
    own = [loss for name, loss in losses.items() if name.startswith(f"{task}/")]
    if not own:
        raise EngineError(f"balance=famo: the task {task} had no loss in an update, and FAMO follows each one's fall")
    kind = wide(own[0])
    return own[0].to(kind) if len(own) == 1 else torch.stack([loss.to(kind) for loss in own]).sum()
