"""Norm policies: how a trunk's norms treat statistics. The names inside are batch norm's, so checkpoints load."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from trunkline.ground.errors import WeightsError

from .table import NORMS

GROUPS = 32  # Wu and He 2018, section 4: 32 groups, or as many as divide the channels


class FrozenBatchNorm2d(nn.Module):
    """Batch norm that is a fixed affine map: `(N, C, *T, H, W)` in and out, statistics and weights as stored.

    Everything it holds is a buffer, so that no optimizer moves it and `train()` changes nothing. In float32 its output
    is that of `nn.BatchNorm2d`, for clips `nn.BatchNorm3d`, in eval mode to the last bit.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the maps with the stored numbers; nothing is updated."""
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, var, self.get_buffer("weight"), self.get_buffer("bias"), False, 0.0, self.eps)

    def extra_repr(self) -> str:
        """Show channels and eps, as batch norm prints them."""
        return f"{self.num_features}, eps={self.eps}"


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def norm_layer(policy: str, clips: bool = False) -> Callable[[int], nn.Module]:
    """Return what makes a norm for a number of channels: "batch", "frozen", "sync" (over all processes) or "group".

    `clips` is for maps `(N, C, T, H, W)`.

    Raises WeightsError for another name, and for "sync" on a machine where torch has no synchronised batch norm.
    """
    if policy not in NORMS:
        raise WeightsError(f"norm={policy}: expected one of {', '.join(NORMS)}")
    if policy == "sync" and not _can_synchronise():
        raise WeightsError(
            "norm=sync: torch synchronises batch norm on CUDA and XPU devices only, and this machine has none. "
            "Use norm=batch (statistics of each micro-batch), norm=group (no statistics) or norm=frozen (the stored "
            "ones); weights trained with norm=sync load into norm=batch, whose names are the same."
        )
    batch = nn.BatchNorm3d if clips else nn.BatchNorm2d
    return {"batch": batch, "frozen": FrozenBatchNorm2d, "sync": nn.SyncBatchNorm, "group": _group_norm}[policy]


def _can_synchronise() -> bool:
    return torch.distributed.is_available() and (torch.cuda.is_available() or torch.xpu.is_available())


@contextmanager
def statistics_held(module: nn.Module) -> Iterator[None]:
    """Hold the running statistics and counters of the batch norms in `module`; what they compute stays the same."""
    kinds = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    norms = [m for m in module.modules() if isinstance(m, kinds) and m.track_running_stats]
    moving = [(norm, norm.taken if isinstance(norm, PerTask) else norm) for norm in norms]
    held = [(norm, norm.momentum, owner.get_buffer("num_batches_tracked")) for norm, owner in moving if owner.training]
    counts = [counter.clone() for *_, counter in held]
    for norm, *_ in held:
        norm.momentum = 0.0  # running = 1 * running + 0 * batch
    try:
        yield
    finally:
        for (norm, momentum, counter), count in zip(held, counts, strict=True):
            norm.momentum = momentum
            counter.copy_(count)


class Statistics(nn.Module):
    """The running statistics that a task has of a batch norm for itself; they begin as copies of the norm's."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, norm.get_buffer(name).clone())

    def forward(self, x: Tensor, norm: _BatchNorm) -> Tensor:
        """Normalise maps as `norm` does, with its affine weights and momentum and these statistics."""
        count, factor = self.get_buffer("num_batches_tracked"), norm.momentum
        if self.training:
            count.add_(1)
        if factor is None:  # the mean of all batches
            factor = 1.0 / float(count) if self.training else 0.0
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, var, norm.weight, norm.bias, self.training, factor, norm.eps)


class PerTask(_BatchNorm):
    """A batch norm that treats its running statistics in another way in the passes of some tasks; affine weights are shared.

    `take` says whose the next passes are, and stays until it says otherwise: a forward that is repeated in the backward pass
    is that of the same task. "shared" passes are those of the plain norm. "frozen" ones are normalised by its running
    statistics, which they do not move. "own" ones move and, in evaluation, read the task's own, a module in `statistics`.

    In passes that do not move its statistics the norm itself is in eval mode, and what watches who runs in training (an
    engine that averages buffers) sees the module whose statistics move, and no other.
    """

    kinds: dict[str, str]
    statistics: nn.ModuleDict
    task: str
    learns: bool

    def take(self, task: str) -> None:
        """Treat the next passes as this task's; of one that has no kind, as shared."""
        self.task = task
        self.train(self.learns)

    def train(self, mode: bool = True) -> "PerTask":
        """Set the mode as in torch, for the passes of the task that was taken."""
        self.learns = mode
        super().train(mode)
        self.training = mode and self.kinds.get(self.task, SHARED) == SHARED
        return self

    @property
    def taken(self) -> nn.Module:
        """What holds the statistics of the task that was taken: the norm, or a module of its `statistics`."""
        if self.task in self.statistics:
            return self.statistics[self.task]
        return self

    def forward(self, input: Tensor) -> Tensor:
        """Normalise maps as a pass of the task that was taken."""
        if self.task not in self.statistics:
            return super().forward(input)
        found = self.statistics[self.task](input, self)
        for name in _BEHIND:
            found = self.get_submodule(name)(found) if name in self._modules else found
        return found


SHARED = "shared"
_BEHIND = ("drop", "act")
"""What follows in timm's norm that has its activation in it."""


def per_task(trunk: nn.Module, kinds: Mapping[str, str]) -> None:
    """Let a trunk's batch norms treat the passes of tasks as `kinds` say: shared, frozen or own; see `PerTask`.

    Where all are shared nothing changes. Raises WeightsError for a trunk that has no batch norm with running statistics, and
    for norms of its own kind, where a task is to have its own statistics.
    """
    asked = {task: kind for task, kind in kinds.items() if kind != SHARED}
    if not asked:
        return
    said = ", ".join(f"norms.{task}={kind}" for task, kind in asked.items())
    norms = [m for m in trunk.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise WeightsError(
            f"{said}: {_named(trunk)} has no batch norm, whose statistics these are; leave it out, or take another backbone="
        )
    own = [task for task, kind in asked.items() if kind == "own"]
    if own and (odd := sorted({type(m).__name__ for m in norms if not _known(m)})):
        raise WeightsError(
            f"{said}: {_named(trunk)} has norms that compute in a way of their own ({', '.join(odd)}), for which no other "
            "statistics can stand in; set frozen or shared, or take another backbone="
        )
    for norm in norms:
        statistics = nn.ModuleDict({task: Statistics(norm) for task in own})
        norm.__class__ = _with_tasks(type(norm))
        changed: Any = norm
        changed.kinds, changed.statistics, changed.task = asked, statistics, ""
        changed.train(norm.training)


def _named(trunk: Any) -> str:
    return getattr(trunk, "arch", None) or type(trunk).__name__


def _known(norm: _BatchNorm) -> bool:
    """Say whether a norm computes as torch's do, perhaps with what `_BEHIND` names behind it."""
    plain = type(norm).forward is _BatchNorm.forward
    return plain or all(name in norm._modules for name in _BEHIND)


@lru_cache
def _with_tasks(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """Make the class of norms of a kind that are `PerTask`."""
    return type(f"PerTask{kind.__name__}", (PerTask, kind), {})


def norms_of(model: nn.Module) -> dict[str, _BatchNorm]:
    """Find the batch norms in a model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}


@torch.no_grad()
def begin_statistics(model: nn.Module, task: str, tensors: Mapping[str, Tensor], of: str = "") -> None:
    """Let a task's own statistics begin as others' among `tensors`: the shared ones, or those of the task `of`."""
    for name, norm in norms_of(model).items():
        if isinstance(norm, PerTask) and task in norm.statistics:
            for own, buffer in norm.statistics[task].named_buffers():
                if (there := tensors.get(f"{name}.statistics.{of}.{own}" if of else f"{name}.{own}")) is not None:
                    buffer.copy_(there)


def of_task(model: nn.Module, tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Put a task's own statistics in the place of the shared ones, and leave out those that tasks have for themselves.

    `tensors` have the names that they have in `model`; what comes out has those of a model with plain norms.
    """
    found = dict(tensors)
    for name, norm in norms_of(model).items():
        if isinstance(norm, PerTask):
            for own in norm.statistics:
                held = {n: found.pop(f"{name}.statistics.{own}.{n}") for n in norm.statistics[own].state_dict()}
                found |= {f"{name}.{n}": tensor for n, tensor in held.items()} if own == task else {}
    return found
